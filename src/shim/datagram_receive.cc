// Datagram sockets: recv and its kin, errors, shutdown. Model: with the seat held the cursor stands
// at a DatagramHeader; what a call does not take of a datagram is skipped. Where the seat is the
// kernel's it lends the chunks of one datagram. recvmsg(2), ip(7). Any thread.

#include <netinet/in.h>
#include <netinet/ip.h>

#include "shim/address.h"
#include "shim/datagram.h"
#include "shim/family.h"
#include "shim/receive.h"
#include "shim/revive.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u64 header_bytes = sizeof(DatagramHeader);

struct Taking {
  const iovec* parts;
  size_t count;
  u64 wanted;
  bool peek;
  DatagramHeader header{};
};

// Copies the datagram at the cursor, which then stands behind it. Within `unread` bytes. False: the
// kernel's list is broken.
bool copy_datagram(const Arena* arena, u32& chunk, u32& offset, u64 unread, Taking& t) {
  iovec head{&t.header, header_bytes};
  Pieces into_header(&head, 1);
  if (unread < header_bytes || !walk_chunks(arena, chunk, offset, header_bytes, &into_header) ||
      t.header.bytes > unread - header_bytes) {
    return false;
  }
  const u64 copied = t.header.bytes < t.wanted ? t.header.bytes : t.wanted;
  Pieces pieces(t.parts, t.count);
  return walk_chunks(arena, chunk, offset, copied, &pieces) &&
         walk_chunks(arena, chunk, offset, t.header.bytes - copied, nullptr);
}

// What there is instead of a datagram: 0 (the end), -EAGAIN.
ssize_t none(const Socket* socket, u8 flags) {
  return socket->peer_shut_read || (flags & flag_peer_closed) != 0 ? 0 : -EAGAIN;
}

// REQUIRES: the seat. 1: taken; 0: the end; -errno.
ssize_t take(Socket* socket, Taking& t) {
  const KernelSocket* kernel = socket->kernel;
  if (!begun(socket)) return -EAGAIN;
  const u8 flags = acquire(kernel->flags);
  const u64 unread = acquire(kernel->received) - socket->consumed;
  if (unread == 0) return none(socket, flags);
  u32 chunk = socket->cursor_chunk;
  u32 offset = socket->cursor_offset;
  if (load(kernel->first_position) == socket->consumed) {
    chunk = load(kernel->first_chunk);
    offset = 0;
  }
  if (unread > most_unread || !copy_datagram(socket->arena, chunk, offset, unread, t)) {
    mark_dead(socket->arena);
    return -ENETDOWN;
  }
  if (t.peek) return 1;
  socket->may_leave = false;
  const u64 taken = header_bytes + t.header.bytes;
  socket->cursor_chunk = chunk;
  socket->cursor_offset = offset;
  store(socket->consumed, socket->consumed + taken);
  publish_word(socket->program->consumed, socket->consumed);
  if (taken == unread) {
    Guard guard(socket->lock);  // posts are senders' too
    Call c{.op = Op::consumed};
    post_on(socket, c);
  }
  return 1;
}

void give_back(Arena* arena, u32 chunk, u64 bytes) {
  Call give{.op = Op::free_receive};
  for (u64 done = 0; done < bytes && chunk < receive_chunks; done += receive_chunk_payload) {
    const u32 next =
        acquire(reinterpret_cast<const ChunkHeader*>(arena->kernel->chunk[chunk])->next);
    give.a[1 + give.a[0] / 2] |= static_cast<u64>(chunk) << (give.a[0] % 2 * 32);
    if (++give.a[0] == 10 || done + receive_chunk_payload >= bytes) {
      post(arena, give);
      give = Call{.op = Op::free_receive};
    }
    chunk = next;
  }
}

// The seat is the kernel's. As take; -ERESTART: it came back to us.
ssize_t take_shared(Socket* socket, Taking& t) {
  Call c{.op = Op::receive_datagram, .socket = socket->slot, .generation = socket->generation};
  c.a[0] = t.peek ? 1 : 0;
  Critical critical;
  const Reply reply = call_kernel(socket->arena, c);  // what others post on it need not come first
  socket->climbed = true;
  if (reply.result == 0 || reply.result == -EAGAIN)
    return none(socket, acquire(socket->kernel->flags));
  if (reply.result < 0) return reply.result;
  socket->may_leave = false;
  u32 chunk = static_cast<u32>(reply.value[0]);
  const u32 first = chunk;
  u32 offset = 0;
  const auto bytes = static_cast<u64>(reply.result);
  if (!copy_datagram(socket->arena, chunk, offset, bytes, t)) return -ENETDOWN;
  give_back(socket->arena, first, bytes);
  return 1;
}

ssize_t try_take(Socket* socket, int fd, Taking& t, bool& moved) {
  // As Linux: an error goes before what waits.
  if (socket->arena != nullptr && is_live(socket) &&
      (load(socket->own_error) != 0 || (begun(socket) && load(socket->kernel->error) != 0)))
      [[unlikely]] {
    Guard guard(socket->lock);
    if (const int error = take_datagram_error(socket)) return -error;
  }
  switch (enter_seat(socket, fd)) {
    case Turn::mine: {
      const ssize_t n = take(socket, t);
      leave_seat(socket);
      return n;
    }
    case Turn::shared: {
      const ssize_t n = take_shared(socket, t);
      moved = n == -ERESTART;
      return n;
    }
    case Turn::not_connected:
      return socket->peer_shut_read ? 0 : -EAGAIN;
    case Turn::dead:
      revive_listeners();
      return awaits_revival(socket) || !is_dead(socket) ? -EAGAIN : -ENETDOWN;
    case Turn::moved:
      break;
  }
  moved = true;
  return 0;
}

// ---- what recvmsg tells beside the bytes

class Control {
 public:
  explicit Control(msghdr* message) : message_(message), room_(message->msg_controllen) {}
  ~Control() { message_->msg_controllen = used_; }
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  void put(int level, int type, const void* data, size_t bytes) {
    if (message_->msg_control == nullptr || room_ - used_ < CMSG_LEN(bytes)) {
      message_->msg_flags |= MSG_CTRUNC;
      return;
    }
    cmsghdr header{};
    header.cmsg_len = CMSG_LEN(bytes);
    header.cmsg_level = level;
    header.cmsg_type = type;
    u8* at = static_cast<u8*>(message_->msg_control) + used_;
    memcpy(at, &header, sizeof header);
    memcpy(at + CMSG_LEN(0), data, bytes);
    used_ += room_ - used_ < CMSG_SPACE(bytes) ? room_ - used_ : CMSG_SPACE(bytes);
  }

 private:
  msghdr* message_;
  size_t room_;
  size_t used_ = 0;
};

// The cob is no interface of the host's; it stands for loopback.
constexpr u32 interface_index = 1;

// True if that is all: a datagram of IPv6's.
bool tell_ipv6(const Socket* socket, const DatagramHeader& header, Control& control) {
  if (socket->tell_ipv6_packet_info) {
    in6_pktinfo info{};
    info.ipi6_addr = to_ipv6(header.local_address);
    info.ipi6_ifindex = interface_index;
    control.put(IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  }
  if (is_ipv4(header.local_address)) return false;
  const int hop_limit = header.time_to_live, traffic_class = header.type_of_service;
  if (socket->tell_hop_limit)
    control.put(IPPROTO_IPV6, IPV6_HOPLIMIT, &hop_limit, sizeof hop_limit);
  if (socket->tell_traffic_class)
    control.put(IPPROTO_IPV6, IPV6_TCLASS, &traffic_class, sizeof traffic_class);
  return true;
}

Ipv4Endpoint remote_of(const DatagramHeader& header) {
  Ipv4Endpoint out{header.remote_address, header.remote_port};
  if (out.address == elsewhere) memcpy(&out.ipv6, header.remote_ipv6, sizeof out.ipv6);
  return out;
}

void tell(const Socket* socket, const DatagramHeader& header, msghdr* message) {
  if (message->msg_name != nullptr)
    write_address(remote_of(header), socket->ipv6, static_cast<sockaddr*>(message->msg_name),
                  &message->msg_namelen);
  Control control(message);
  if (socket->ipv6 && tell_ipv6(socket, header, control)) return;
  if (socket->tell_packet_info) {
    in_pktinfo info{};
    info.ipi_ifindex = static_cast<int>(interface_index);
    info.ipi_addr.s_addr = htonl(header.local_address);
    info.ipi_spec_dst.s_addr =
        htonl(header.local_address >> 28 == 14 ? g.cob_address : header.local_address);
    control.put(IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  }
  if (socket->tell_time_to_live) {
    const int ttl = header.time_to_live;
    control.put(IPPROTO_IP, IP_TTL, &ttl, sizeof ttl);
  }
  if (socket->tell_type_of_service)
    control.put(IPPROTO_IP, IP_TOS, &header.type_of_service, sizeof header.type_of_service);
}

}  // namespace

ssize_t receive_datagram(int fd, const iovec* parts, size_t count, int flags, msghdr* message) {
  const u32 seen = signals_seen();
  const u32 breaking = signals_breaking();
  if ((flags & MSG_ERRQUEUE) != 0) return -EAGAIN;
  const ssize_t wanted = Pieces::total(parts, count);
  if (wanted < 0) return -EINVAL;
  Taking t{.parts = parts,
           .count = count,
           .wanted = static_cast<u64>(wanted),
           .peek = (flags & MSG_PEEK) != 0};
  i64 deadline = -1;
  for (;;) {
    Socket* socket = lookup_socket(fd);
    if (socket == nullptr) return -ENOTSOCK;
    bool moved = false;
    const ssize_t n = try_take(socket, fd, t, moved);
    if (moved) continue;
    if (n > 0) {
      const u64 bytes = t.header.bytes;
      if (message != nullptr) {
        message->msg_flags = bytes > t.wanted ? MSG_TRUNC : 0;
        tell(socket, t.header, message);
      }
      found_something();
      return static_cast<ssize_t>((flags & MSG_TRUNC) != 0 || bytes < t.wanted ? bytes : t.wanted);
    }
    if (n == 0 && message != nullptr) {
      message->msg_namelen = 0;
      message->msg_controllen = 0;
      message->msg_flags = 0;
    }
    if (n != -EAGAIN) return n;
    if ((flags & MSG_DONTWAIT) != 0 || nonblocking_at(socket, fd)) {
      found_nothing();
      return -EAGAIN;
    }
    const i64 timeout = socket->receive_timeout_ns;
    if (deadline < 0) deadline = timeout == 0 ? forever : now_ns() + timeout;
    const int error = wait_ready(socket, ready_in, deadline, timeout != 0, seen, breaking);
    if (error != 0) return -error;
  }
}

i64 next_datagram_bytes(Socket* socket, int fd) {
  if (socket->arena == nullptr || !is_live(socket) || !begun(socket) ||
      load(socket->kernel->error) != 0) {
    return 0;
  }
  const ssize_t n = receive_datagram(fd, nullptr, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
  return n < 0 ? 0 : n;
}

int take_datagram_error(Socket* socket) {
  if (load(socket->own_error) != 0)
    return static_cast<int>(__atomic_exchange_n(&socket->own_error, 0U, __ATOMIC_RELAXED));
  if (socket->arena == nullptr || !is_live(socket) || !begun(socket)) return 0;
  const int error = load(socket->kernel->error);
  if (error == 0) return 0;
  // More may come: the kernel has forgotten this one when it is told.
  Critical critical;
  Call c{.op = Op::set_option};
  c.a[0] = static_cast<u64>(SocketOption::error_taken);
  post_on(socket, c);
  call_kernel(socket->arena, {.op = Op::nothing});
  return error;
}

// Of a socket that is not connected Linux says ENOTCONN, and does it.
int shutdown_datagram(Socket* socket, int how) {
  Guard guard(socket->lock);
  settle(socket);
  if (is_dead(socket)) return fail(ENOTCONN);
  if (how != SHUT_WR) socket->peer_shut_read = true;
  if (how != SHUT_RD) socket->shut_write = true;
  if (socket->stage != Stage::datagram) return fail(ENOTCONN);
  Call c{.op = Op::shutdown};
  c.a[0] = how == SHUT_RD ? 2 : how == SHUT_WR ? 1 : 3;
  post_on(socket, c);
  store(socket->own_changes, load(socket->own_changes) + 1);
  const SocketNames& names = socket->arena->kernel->names[socket->slot];
  return load(names.remote_port) != 0 ? 0 : fail(ENOTCONN);
}

}  // namespace cob::shim
