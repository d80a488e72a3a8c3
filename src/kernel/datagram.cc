// Sockets, datagrams: bind and connect, sending, queueing what comes. udp(7), ip(7), socket(7).
// Model: a received datagram is a DatagramHeader and its bytes in the same receive chunks as a
// stream's, so that seats, sharing and passing are one code; a full queue drops and counts. Sending
// builds the frame at once: nothing of it is queued here. docs/calls.md, "Datagrams". Kernel's loop
// only.
#include "kernel/datagram.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "kernel/sockets.h"
#include "kernel/wire_address.h"
#include "net/stack/keyed_hash.h"

namespace cob::kernel {

using call::DatagramHeader;
using call::SocketState;

namespace {

constexpr u32 first_ephemeral_port = 32'768, ephemeral_ports = 28'232;
constexpr std::size_t header_bytes = sizeof(DatagramHeader);

std::span<const std::byte> bytes_of(const DatagramHeader& header) {
  return std::as_bytes(std::span(&header, 1));
}

}  // namespace

// ---- bind, connect

// A random one of those whose home this kernel is (RFC 6056 section 3.3.1): who is not on the path
// of a query must not guess where its answer is awaited (RFC 5452).
Result<Port> Sockets::ephemeral_datagram_port() {
  const u64 random = net::siphash({options_.secret[0], options_.secret[1]}, ++datagram_ports_,
                                  u64{options_.self.value} << 32 | 17);
  const u32 start = static_cast<u32>(random % ephemeral_ports);
  for (u32 tried = 0; tried < ephemeral_ports; ++tried) {
    const Port port(static_cast<u16>(first_ephemeral_port + (start + tried) % ephemeral_ports));
    if (directory_.home_of(port) != options_.self) continue;
    if (stack_->udp_port_in_use(port) || directory_.claimed_here(port, Transport::datagram))
      continue;
    return port;
  }
  return Error::of(EADDRINUSE, "no free local port for a datagram socket");
}

// The port is this description's: from now on it is reached there.
Result<void> Sockets::open_datagram(Description& d, net::Endpoint local) {
  Datagram& u = *d.datagram;
  u.id = TRY(stack_->udp_open(local, d.reuse_port, to_cookie(d)));
  u.bound = local;
  d.local = local;
  d.bound = true;
  d.state = SocketState::datagram;
  directory_.add({local, Transport::datagram, d.reuse_port});
  for (const net::Ipv4Address group : u.groups) {
    (void)stack_->udp_join(u.id, group);
    directory_.add({{group, local.port}, Transport::datagram, d.reuse_port});
  }
  write_names(d);
  write_flags(d);
  return {};
}

// Nobody is reached at its port any more.
void Sockets::close_datagram(Description& d) {
  Datagram& u = *d.datagram;
  if (!d.bound) return;
  stack_->udp_close(u.id);
  u.id = net::no_udp;
  directory_.remove({u.bound, Transport::datagram, d.reuse_port});
  for (const net::Ipv4Address group : u.groups)
    directory_.remove({{group, u.bound.port}, Transport::datagram, d.reuse_port});
  directory_.unclaim(u.bound, d.handle, Transport::datagram);
  d.bound = false;
}

void Sockets::unbind_datagram(Description& d) {
  close_datagram(d);
  d.local = d.remote = d.datagram->bound = {};
  write_names(d);
}

void Sockets::bind_datagram(Program& program, u32 number, net::Endpoint local, bool reuse_address,
                            bool reuse_port, const CallOrigin& origin) {
  Description& d = *program.slot(number).description;
  const bool fresh = d.state == SocketState::undecided || d.state == SocketState::datagram;
  if (d.bound || d.claiming || !fresh || d.listened) return answer(origin, -EINVAL);
  if (!local.address.is_any() && !ours(local.address) && !is_group(local.address))
    return answer(origin, -EADDRNOTAVAIL);
  const bool port_given = local.port.value != 0;
  if (!port_given) {
    const auto port = ephemeral_datagram_port();
    if (port.is_error()) return answer(origin, -EADDRINUSE);
    local.port = port.value();
  }
  if (d.datagram == nullptr) d.datagram = std::make_unique<Datagram>();
  d.reuse_address = reuse_address;
  d.reuse_port = reuse_port;
  const PortClaim claim{.local = local,
                        .owner = options_.self,
                        .handle = d.handle,
                        .reuse_address = reuse_address,
                        .reuse_port = reuse_port,
                        .transport = Transport::datagram};
  d.claiming = true;
  directory_.claim(claim, now_, [this, local, port_given, handle = d.handle, origin](i32 result) {
    Description* bound = at_handle(handle);
    if (bound != nullptr) bound->claiming = false;
    if (result == 0) {
      if (bound == nullptr || bound->bound) {
        result = -EINVAL;  // closed while the claim was under way
      } else if (const auto opened = open_datagram(*bound, local); opened.is_error()) {
        result = -opened.error().code;
      } else {
        bound->port_given = port_given;
      }
      if (result != 0) directory_.unclaim(local, handle, Transport::datagram);
    }
    const u64 values[] = {local.port.value, local.address.value};
    answer(origin, result, values, 2);
  });
}

// A port for a socket that sends or connects without bind: one that this kernel grants.
Result<void> Sockets::bind_itself(Description& d, net::Ipv4Address any) {
  if (d.bound) return {};
  if (d.claiming) return Error::of(EALREADY, "a bind is under way");
  const net::Endpoint local{any, TRY(ephemeral_datagram_port())};
  i32 result = -EADDRINUSE;
  d.reuse_address = d.reuse_port = false;
  directory_.claim({.local = local,
                    .owner = options_.self,
                    .handle = d.handle,
                    .transport = Transport::datagram},
                   now_, [&result](i32 answer) { result = answer; });
  if (result != 0) return Error::of(-result, "claiming a datagram socket's port");
  d.port_given = false;
  const auto opened = open_datagram(d, local);
  if (opened.is_error()) directory_.unclaim(local, d.handle, Transport::datagram);
  return opened;
}

// What is bound to no address sends from here.
net::Ipv4Address Sockets::source_towards(net::Ipv4Address to) const {
  if (to.is_ipv6()) return ours(to) ? to : stack_->ipv6_source_for(to);
  return to.is_loopback() ? net::Ipv4Address{INADDR_LOOPBACK} : options_.address;
}

bool Sockets::is_group(net::Ipv4Address address) const {
  const u32 host = options_.prefix_bits == 0 ? ~0u : ~0u >> options_.prefix_bits;
  return address.is_multicast() || address.value == 0xffff'ffff ||
         (options_.prefix_bits < 31 && address.value == (options_.address.value | host));
}

i32 Sockets::connect_datagram(Program& program, u32 number, net::Endpoint remote,
                              call::DatagramConnect how, net::Ipv4Address any) {
  Description& d = *program.slot(number).description;
  if (d.claiming) return -EALREADY;
  if (!any.is_any()) return -EINVAL;
  if (d.state != SocketState::undecided && d.state != SocketState::datagram) return -EINVAL;
  if (d.datagram == nullptr && d.bound) return -EINVAL;  // a stream socket's port
  if (how == call::DatagramConnect::dissolve) {
    if (d.datagram == nullptr || !d.bound) return 0;
    d.remote = {};
    if (!d.port_given) {  // Linux's udp_disconnect gives it up
      unbind_datagram(d);
      return 0;
    }
    d.local = d.datagram->bound;
    stack_->udp_connect(d.datagram->id, d.local, {});
    write_names(d);
    return 0;
  }
  // A bound one that only looks may still become the host's.
  const bool decided = d.state == SocketState::datagram && how != call::DatagramConnect::look;
  if (remote.address.is_any()) remote.address = net::Ipv4Address{INADDR_LOOPBACK};
  const bool group = is_group(remote.address);
  // An address that may be the host's: without a cob socket there it is.
  const bool maybe_ours = remote.address.is_loopback() && !decided;
  const bool there = goes_out(remote.address) ? true
                     : group ? decided || !directory_.find_group(remote, false).empty()
                             : ours(remote.address) &&
                                   (!maybe_ours || directory_.find_datagram(remote, 0).has_value());
  if (!there) return -EHOSTUNREACH;
  if (how == call::DatagramConnect::look) return 0;
  if (d.datagram == nullptr) d.datagram = std::make_unique<Datagram>();
  if (const auto bound = bind_itself(d, any); bound.is_error()) return -bound.error().code;
  if (how == call::DatagramConnect::send) return 0;
  net::Endpoint local = d.datagram->bound;
  if (local.address.is_any()) local.address = source_towards(remote.address);
  d.local = local;
  d.remote = remote;
  stack_->udp_connect(d.datagram->id, local, remote);
  write_names(d);
  return 0;
}

i32 Sockets::change_membership(Program& program, u32 number, net::Ipv4Address group, bool join) {
  Description& d = *program.slot(number).description;
  if (d.state != SocketState::undecided && d.state != SocketState::datagram) return -EINVAL;
  if (!group.is_multicast() || (d.datagram == nullptr && (d.bound || d.claiming))) return -EINVAL;
  if (d.datagram == nullptr) d.datagram = std::make_unique<Datagram>();
  Datagram& u = *d.datagram;
  const auto found = std::ranges::find(u.groups, group);
  const Reached reached{{group, u.bound.port}, Transport::datagram, d.reuse_port};
  if (join) {
    if (found != u.groups.end()) return -EADDRINUSE;
    if (u.groups.size() >= net::max_udp_groups) return -ENOBUFS;
    u.groups.push_back(group);
    if (!d.bound) return 0;
    (void)stack_->udp_join(u.id, group);
    directory_.add(reached);
    return 0;
  }
  if (found == u.groups.end()) return -EADDRNOTAVAIL;
  u.groups.erase(found);
  if (!d.bound) return 0;
  (void)stack_->udp_leave(u.id, group);
  directory_.remove(reached);
  return 0;
}

// ---- sending

void Sockets::send_to(Program& program, u32 number, const call::CallSlot& call) {
  Description& d = *program.slot(number).description;
  Arena& arena = program.arena();
  DatagramChunks chunks;
  if (!claim_datagram(arena, call, chunks)) {
    programs_.fault(program, "datagram of chunks that are not the program's");
    return;
  }
  // Room is counted by bytes and header, so that datagrams of no length take some too.
  call::KernelSocket& line = program.ours(number);
  const u64 room = chunks.bytes + header_bytes;
  program.slot(number).posted += room;
  publish(line.acknowledged, line.acknowledged + room);
  if (load(program.theirs(number).want_space) != 0) program.touch_space(number);
  if (d.state == SocketState::datagram && d.bound && (d.flags & call::flag_send_closed) == 0) {
    std::array<net::UdpPiece, call::max_datagram_chunks> pieces;
    u32 count = 0;
    for (u32 left = chunks.bytes; left > 0; ++count) {
      const u32 part = std::min(left, call::chunk_bytes);
      pieces[count] = {arena.send_chunk(chunks.chunk[count]), part};
      left -= part;
    }
    const auto flags = static_cast<u16>(call.a[0] >> 32);
    net::UdpSend send{.local = d.local,
                      .remote = {from_call(stack_->names(), call.a[1], call.a[4], call.a[5]),
                                 Port(static_cast<u16>(call.a[1] >> 32))},
                      .type_of_service = static_cast<u8>(call.a[0] >> 48),
                      .time_to_live = static_cast<u8>(call.a[0] >> 56),
                      .whole = (flags & call::datagram_whole) != 0,
                      .cut_by_routers = (flags & call::datagram_cut_by_routers) != 0,
                      .link_only = (flags & call::datagram_link_only) != 0,
                      .most_bytes = static_cast<u16>(call.a[2] >> 32)};
    if (send.remote.port.value == 0) send.remote = d.remote;
    const net::Ipv4Address from{static_cast<u32>(call.a[2])};  // an own one, by its name
    if (ours(from) && from.families() == send.remote.address.families()) send.local.address = from;
    if (send.remote.port.value != 0)
      send_datagram(d, send, std::span(pieces).first(count), (flags & call::datagram_no_loop) == 0);
    counters_.bytes_out += chunks.bytes;
  }
  give_datagram(arena, chunks);
}

// The way is the directory's to know; a port that nobody is known to have is refused by its home.
void Sockets::send_datagram(Description& d, net::UdpSend& send,
                            std::span<const net::UdpPiece> pieces, bool loop) {
  const net::Ipv4Address to = send.remote.address;
  const bool unnamed = send.local.address.is_any() || is_group(send.local.address);
  if (unnamed) send.local.address = source_towards(to);
  if (is_group(to)) {
    if (!loop) return;  // the cob is one host
    for (const KernelId kernel : directory_.find_group(send.remote, !to.is_multicast())) {
      send.route = net::Route::inside(kernel);
      (void)stack_->udp_send(send, pieces);
    }
    return;
  }
  i32 error = ENETUNREACH;
  if (send.local.address.families() != to.families()) {
    // No packet has addresses of both.
  } else if (goes_out(to)) {
    send.route = net::Route::uplink();
    // ip_route_output of Linux: loopback's source is not let out.
    const auto sent =
        send.local.address == options_.address || stack_->is_own_ipv6(send.local.address)
            ? stack_->udp_send(send, pieces)
            : Result<void>(Error::of(EINVAL, "a source that may not leave"));
    error = sent.is_error() ? sent.error().code : 0;
  } else if (ours(to)) {
    const u32 hash =
        net::table_hash({options_.secret[0], 1},
                        stack_->names().word(send.local.address) << 32 | send.local.port.value,
                        send.remote.port.value);
    const auto known = directory_.find_datagram(send.remote, hash);
    send.route = net::Route::inside(known ? *known : directory_.refuser_of(send.remote.port));
    const auto sent = stack_->udp_send(send, pieces);
    error = sent.is_error() ? sent.error().code : 0;
  }
  if (error == 0) return;
  d.error = static_cast<u16>(error);
  write_flags(d);
}

// ---- receiving

// As many chunks as the bytes need may be taken. REQUIRES: a program has the seat.
bool Sockets::has_chunks_for(const Description& d, std::size_t bytes) const {
  constexpr u32 room = call::receive_chunk_payload;
  const Arena& arena = d.holders[static_cast<std::size_t>(d.seat)].program->arena();
  const u32 left = d.last_chunk == call::no_chunk ? 0 : room - d.last_fill;
  if (bytes <= left) return true;
  const u32 chunks = static_cast<u32>((bytes - left + room - 1) / room);
  // Each that is taken makes the share of what is free a little smaller.
  return d.chunks_held + chunks + (chunks + 7) / 8 <= arena.fair_share();
}

void Sockets::on_datagram(u64 cookie, const net::UdpReceived& from,
                          std::span<const std::byte> payload) {
  Description& d = from_cookie(cookie);
  DatagramHeader header{.bytes = static_cast<u32>(payload.size()),
                        .remote_address = from.remote.address.value,
                        .local_address = from.local.address.value,
                        .remote_port = from.remote.port.value,
                        .type_of_service = from.type_of_service,
                        .time_to_live = from.time_to_live,
                        .remote_ipv6 = {}};
  if (has_bytes(from.remote.address) && !stack_->is_own_ipv6(from.remote.address)) {
    const WireAddress remote = to_wire(&stack_->names(), from.remote.address);
    header.remote_address = remote.address;
    std::memcpy(header.remote_ipv6, remote.ipv6, sizeof header.remote_ipv6);
  }
  const std::size_t bytes = header_bytes + payload.size();
  counters_.bytes_in += payload.size();
  // As Linux's udp: a queue that is not full yet takes one more, however long.
  if (d.seat < 0) {
    if (d.kept.size() >= d.receive_limit) {
      ++d.datagram->dropped;
      ++counters_.datagrams_dropped;
      return;
    }
    const auto head = bytes_of(header);
    d.kept.append(head);
    d.kept.append(payload);
    return write_flags(d);
  }
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  call::KernelSocket& line = h.program->ours(h.slot);
  take_consumed(d);
  if (line.received == d.consumed) {
    if (d.first_chunk != call::no_chunk) free_receive_chunks(d);
  } else {
    free_passed_chunks(d);
  }
  if (line.received - d.consumed >= d.receive_limit || !has_chunks_for(d, bytes)) {
    ++d.datagram->dropped;
    ++counters_.datagrams_dropped;
    return;
  }
  u64 received = line.received;
  VERIFY(copy_to_arena(d, bytes_of(header), received) == header_bytes);
  VERIFY(copy_to_arena(d, payload, received) == payload.size());
  publish(line.received, received);
  ++line.change;
  h.program->touch(h.slot);
}

void Sockets::on_datagram_error(u64 cookie, int error) {
  Description& d = from_cookie(cookie);
  d.error = static_cast<u16>(error);
  write_flags(d);
}

i32 Sockets::receive_datagram(Program& program, u32 number, bool peek, u64* first_chunk) {
  Description& d = *program.slot(number).description;
  if (d.datagram == nullptr) return -EINVAL;
  if (d.error != 0) {
    const i32 error = d.error;
    d.error = 0;
    write_flags(d);
    return -error;
  }
  if (d.kept.size() == 0) return (d.flags & call::flag_peer_closed) != 0 ? 0 : -EAGAIN;
  // A program that had the seat may have lied about what it took: then this is no header.
  DatagramHeader header{};
  if (d.kept.size() >= header_bytes) std::memcpy(&header, d.kept.bytes().data(), header_bytes);
  const std::size_t bytes = header_bytes + header.bytes;
  if (header.bytes > call::max_datagram || bytes > d.kept.size()) {
    d.kept.clear();
    write_flags(d);
    return -EAGAIN;
  }
  Arena& arena = program.arena();
  constexpr u32 room = call::receive_chunk_payload;
  const u32 wanted = static_cast<u32>((bytes + room - 1) / room);
  std::array<u32, call::max_datagram / room + 2> chunks;
  for (u32 i = 0; i < wanted; ++i) {
    chunks[i] = arena.take_chunk();
    if (chunks[i] != call::no_chunk) continue;
    while (i > 0) arena.give_chunk(chunks[--i]);
    return -ENOMEM;
  }
  for (u32 i = 0; i < wanted; ++i) {
    const std::size_t at = std::size_t{i} * room;
    std::memcpy(arena.chunk_payload(chunks[i]), d.kept.bytes().data() + at,
                std::min<std::size_t>(bytes - at, room));
    publish(arena.chunk_header(chunks[i]).next, i + 1 < wanted ? chunks[i + 1] : call::no_chunk);
    program.lend_chunk(chunks[i]);
  }
  *first_chunk = chunks[0];
  if (!peek) {
    d.kept.drop(bytes);
    write_flags(d);
  }
  return static_cast<i32>(bytes);
}

}  // namespace cob::kernel
