// MovedProgram: reading an image; see moved_program.h.
#include "kernel/moved_program.h"

#include <algorithm>

#include "kernel/wire_address.h"

namespace cob::kernel {

using call::SocketState;

namespace {

Error malformed(const char* what) { return Error::of(EPROTO, what); }

net::Endpoint endpoint(const EndpointPart& p, net::AddressNames* names) {
  return {from_wire(names, p.address, p.ipv6[0], p.ipv6[1]), Port(static_cast<u16>(p.port))};
}

// Numbers of chunks: each in range and once.
class ChunkNumbers {
 public:
  explicit ChunkNumbers(u32 chunks) : seen_(chunks) {}
  bool take(u32 chunk) {
    if (chunk >= seen_.size() || seen_[chunk]) return false;
    seen_[chunk] = true;
    return true;
  }

 private:
  std::vector<bool> seen_;
};

struct Parse {
  explicit Parse(MovedProgram& program, net::AddressNames* address_names)
      : p(program), names(address_names), in(program.bytes) {}

  MovedProgram& p;
  net::AddressNames* names;
  ImageReader in;
  ChunkNumbers received{call::receive_chunks}, sent{call::send_chunks};

  Result<void> head();
  Result<void> rings();
  Result<void> slots();
  Result<void> lent();
  Result<void> description(MovedDescription& d);
  Result<void> listener(MovedDescription& d);
  Result<void> references();
  Result<void> positions(const MovedDescription& d) const;
  bool is_description(u32 index) const { return index < p.descriptions.size(); }
};

Result<void> Parse::head() {
  p.head = in.take<ImageHead>();
  const ImageHead& h = p.head;
  if (in.failed() || h.magic != image_magic || h.version != image_version ||
      h.bytes_of_parts != sizeof(DescriptionPart) + sizeof(SlotPart) + sizeof(call::KernelSocket))
    return malformed("the image of a program: another build wrote it");
  constexpr u32 half = call::first_kernel_socket;
  if (h.threads > call::max_threads || h.low_slots > half || h.high_slots > half ||
      h.open_slots > h.low_slots + h.high_slots || h.freed_entries > call::send_chunks ||
      h.ready_rings > call::max_ready_rings || h.unused_offer_ring < 1 ||
      h.unused_offer_ring > call::max_listeners || h.offer_rings >= call::max_listeners ||
      h.lent > call::receive_chunks || h.descriptions > 2 * call::max_sockets)
    return malformed("the image of a program: its counts");
  for (u32 i = 0; i < h.threads; ++i) p.threads.push_back(in.take<ThreadPart>());
  return {};
}

Result<void> Parse::rings() {
  const ImageHead& h = p.head;
  p.low_lines = in.take_bytes(u64{h.low_slots} * sizeof(call::KernelSocket));
  p.low_names = in.take_bytes(u64{h.low_slots} * sizeof(call::SocketNames));
  p.high_lines = in.take_bytes(u64{h.high_slots} * sizeof(call::KernelSocket));
  p.high_names = in.take_bytes(u64{h.high_slots} * sizeof(call::SocketNames));
  for (u32 i = 0; i < h.ready_rings; ++i) {
    MovedReadyRing ring{.part = in.take<ReadyRingPart>(), .entries = {}};
    if (ring.part.ring == 0 || ring.part.ring >= call::max_ready_rings ||
        ring.part.entries > call::max_sockets)
      return malformed("the image of a program: a ready ring");
    ring.entries = in.take_bytes(u64{ring.part.entries} * sizeof(u32));
    p.ready_rings.push_back(ring);
  }
  p.freed = in.take_bytes(u64{h.freed_entries} * sizeof(u32));
  for (u32 i = 0; i < h.offer_rings; ++i) {
    const auto ring = in.take<OfferRingPart>();
    if (ring.ring == 0 || ring.ring >= h.unused_offer_ring ||
        ring.offers.made - ring.offers.settled > call::offer_slots || ring.head != ring.offers.made)
      return malformed("the image of a program: an offer ring");
    if (std::ranges::any_of(p.offer_rings, [&](const auto& o) { return o.ring == ring.ring; }))
      return malformed("the image of a program: an offer ring twice");
    p.offer_rings.push_back(ring);
  }
  return in.failed() ? malformed("the image of a program: it is too short") : Result<void>{};
}

Result<void> Parse::slots() {
  std::vector<bool> seen(call::max_sockets);
  for (u32 i = 0; i < p.head.open_slots; ++i) {
    const auto slot = in.take<SlotPart>();
    const bool high = slot.number >= call::first_kernel_socket;
    const u32 index = high ? slot.number - call::first_kernel_socket : slot.number;
    if (in.failed() || slot.number == 0 || index >= (high ? p.head.high_slots : p.head.low_slots) ||
        seen[slot.number] || slot.description >= p.head.descriptions ||
        slot.ready_ring >= call::max_ready_rings)
      return malformed("the image of a program: a slot");
    const bool has_ring = std::ranges::any_of(
        p.offer_rings, [&](const auto& o) { return o.ring == slot.offer_ring; });
    if ((slot.offer_ring != 0 && !has_ring) || (slot.wants_accept != 0 && slot.offer_ring == 0))
      return malformed("the image of a program: a slot's offers");
    seen[slot.number] = true;
    p.slots.push_back(slot);
  }
  return {};
}

Result<void> Parse::lent() {
  for (u32 i = 0; i < p.head.lent; ++i) {
    const u32 chunk = in.take<u32>();
    const auto bytes = in.take_bytes(call::chunk_bytes);
    if (in.failed() || !received.take(chunk)) return malformed("the image of a program: a loan");
    p.lent.push_back({chunk, bytes});
    p.receive_chunks.push_back(chunk);
  }
  return {};
}

Result<void> Parse::description(MovedDescription& d) {
  d.part = in.take<DescriptionPart>();
  const DescriptionPart& q = d.part;
  if (in.failed() || q.state == SocketState::free || q.state >= SocketState::file ||
      q.holders > 1 || q.has_seat > q.holders || q.receive_chunks > call::receive_chunks ||
      q.send_pieces > call::send_chunks || q.last_fill > call::receive_chunk_payload ||
      q.error >= 4'096 || (q.token != 0 && (q.token & call::token_mark_mask) != call::token_mark))
    return malformed("the image of a socket");
  if ((q.flags & ~(call::flag_peer_closed | call::flag_send_closed | call::flag_reset)) != 0)
    return malformed("the image of a socket: its flags");
  constexpr u32 most_limit = 1u << 30;
  if (q.receive_limit == 0 || q.receive_limit > most_limit || q.send_limit > most_limit ||
      q.window_limit > most_limit || q.send_limit_shown > 2 * most_limit)
    return malformed("the image of a socket: its limits");
  d.local = endpoint(q.local, names);
  d.remote = endpoint(q.remote, names);
  for (u32 i = 0; i < q.receive_chunks; ++i) {
    const u32 chunk = in.take<u32>();
    const auto bytes = in.take_bytes(call::chunk_bytes);
    if (in.failed() || !received.take(chunk)) return malformed("the image of a socket: a chunk");
    d.chunks.push_back({chunk, bytes});
    p.receive_chunks.push_back(chunk);
  }
  d.kept = in.take_bytes(q.kept_bytes);
  u64 buffered = 0;
  for (u32 i = 0; i < q.send_pieces; ++i) {
    const auto piece = in.take<PiecePart>();
    if (in.failed() || piece.begin >= piece.end || piece.end > call::chunk_bytes ||
        !sent.take(piece.chunk))
      return malformed("the image of a socket: what it sends");
    buffered += static_cast<u64>(piece.end - piece.begin);
    d.pieces.push_back(piece);
  }
  if (buffered > q.send_limit_shown) return malformed("the image of a socket: it sends too much");
  if (q.tcp_bytes != 0) {
    const auto bytes = in.take_bytes(q.tcp_bytes);
    d.connection = net::MovedConnection{.local = d.local,
                                        .remote = d.remote,
                                        .route = {static_cast<u16>(q.route_kernel)},
                                        .state = {bytes.begin(), bytes.end()}};
  }
  if (q.has_settings != 0) d.settings = in.take<SettingsPart>();
  if (d.settings.congestion > call::CongestionName::reno)
    return malformed("the image of a socket: its congestion control");
  if (q.has_memory != 0) d.memory = in.take<std::array<u64, 6>>();
  if (q.has_datagram != 0) {
    d.datagram = in.take<DatagramPart>();
    d.bound = endpoint(d.datagram.bound, names);
    if (d.datagram.groups > net::max_udp_groups || d.datagram.is_bound > 1 || d.connection ||
        (d.datagram.is_bound != 0 && d.bound.port.value == 0))
      return malformed("the image of a datagram socket");
    for (u32 i = 0; i < d.datagram.groups; ++i) {
      d.groups.push_back({in.take<u32>()});
      if (!d.groups.back().is_multicast())
        return malformed("the image of a datagram socket: a group");
    }
  }
  if ((q.is_listener != 0) != (q.state == SocketState::listening) ||
      (q.is_listener != 0 && d.connection))
    return malformed("the image of a listener");
  if (q.is_listener != 0) TRY(listener(d));
  return in.failed() ? malformed("the image of a socket: it is too short") : Result<void>{};
}

Result<void> Parse::listener(MovedDescription& d) {
  d.listener = in.take<ListenerPart>();
  d.listens_at = endpoint(d.listener.local, names);
  if (d.listens_at.port.value == 0 || d.listener.backlog > 65'536)
    return malformed("the image of a listener: where");
  if (d.listener.pending > p.head.descriptions || d.listener.deferred > p.head.descriptions ||
      d.listener.handshakes > 65'536)
    return malformed("the image of a listener: its queues");
  for (u32 i = 0; i < d.listener.pending; ++i) d.pending.push_back(in.take<u32>());
  for (u32 i = 0; i < d.listener.deferred; ++i) d.deferred.push_back(in.take<DeferredPart>());
  for (u32 i = 0; i < d.listener.handshakes && !in.failed(); ++i) {
    const auto part = in.take<HandshakePart>();
    const auto bytes = in.take_bytes(part.bytes);
    d.handshakes.push_back({.local = endpoint(part.local, names),
                            .remote = endpoint(part.remote, names),
                            .route = {static_cast<u16>(part.route_kernel)},
                            .state = {bytes.begin(), bytes.end()}});
  }
  return {};
}

// What lies in the arena is what the line says: the kernel goes by it afterwards.
Result<void> Parse::positions(const MovedDescription& d) const {
  const DescriptionPart& q = d.part;
  if (q.has_seat == 0) {
    if (!d.chunks.empty()) return malformed("the image of a socket: chunks without a reader");
    return {};
  }
  const bool high = d.slot >= call::first_kernel_socket;
  const u64 index = high ? d.slot - call::first_kernel_socket : d.slot;
  call::KernelSocket line;
  std::memcpy(static_cast<void*>(&line),
              (high ? p.high_lines : p.low_lines).data() + index * sizeof line, sizeof line);
  if (d.chunks.empty()) {
    if (line.received != q.consumed && q.state != SocketState::listening)
      return malformed("the image of a socket: bytes without chunks");
    return {};
  }
  constexpr u64 room = call::receive_chunk_payload;
  const u64 held = line.received - q.first_position, last = u64{q.receive_chunks} - 1;
  if (held != last * room + q.last_fill || q.last_fill == 0 || q.consumed - q.first_position > held)
    return malformed("the image of a socket: where it stands");
  return {};
}

// Who names whom: each description has one place.
Result<void> Parse::references() {
  for (const SlotPart& slot : p.slots) {
    MovedDescription& d = p.descriptions[slot.description];
    if (d.slot != 0 || d.part.holders != 1)
      return malformed("the image of a program: a socket twice");
    d.slot = slot.number;
  }
  std::vector<u32> queued(p.descriptions.size(), no_description);
  const auto queue = [&](u32 listener, u32 index) {
    if (!is_description(index) || queued[index] != no_description) return false;
    queued[index] = listener;
    return p.descriptions[index].part.holders == 0 &&
           p.descriptions[index].connection.has_value() &&
           p.descriptions[index].part.queue_of == listener;
  };
  for (u32 i = 0; i < p.descriptions.size(); ++i) {
    for (const u32 index : p.descriptions[i].pending)
      if (!queue(i, index)) return malformed("the image of a listener: who waits");
    for (const DeferredPart& one : p.descriptions[i].deferred)
      if (!queue(i, one.description)) return malformed("the image of a listener: who waits");
  }
  const auto listens = [&](u32 index) {
    return is_description(index) && p.descriptions[index].part.is_listener != 0;
  };
  for (u32 i = 0; i < p.descriptions.size(); ++i) {
    const MovedDescription& d = p.descriptions[i];
    if ((d.part.holders == 1) != (d.slot != 0) || (d.slot == 0) != (queued[i] != no_description) ||
        (d.part.queue_of != no_description) != (queued[i] != no_description) ||
        (d.part.offered_by != no_description && !listens(d.part.offered_by)))
      return malformed("the image of a program: a socket that is nowhere");
    TRY(positions(d));
  }
  return {};
}

}  // namespace

Result<MovedProgram> MovedProgram::parse(std::vector<std::byte> bytes, net::AddressNames* names) {
  MovedProgram program;
  program.bytes = std::move(bytes);
  Parse parse(program, names);
  TRY(parse.head());
  TRY(parse.rings());
  TRY(parse.slots());
  TRY(parse.lent());
  for (u32 i = 0; i < program.head.descriptions; ++i) {
    MovedDescription d;
    TRY(parse.description(d));
    program.descriptions.push_back(std::move(d));
  }
  if (parse.in.failed() || parse.in.left() != 0)
    return malformed("the image of a program: its length");
  TRY(parse.references());
  return program;
}

}  // namespace cob::kernel
