// What was set on a socket, kept with its description in the kernel for the programs that come to
// share it or to have it after this one: exec, fork, SCM_RIGHTS. Model: a program that has a socket
// alone has the truth in its Socket; once it may be shared, changes go to the kernel, which is
// asked before every look. A forked child has a copy, which is right while the kernel was told
// nothing. Any thread; the socket's lock, or nobody else knows it.

#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>

#include "shim/option_plain.h"
#include "shim/socket.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u64 low_half = 0xffff'ffff;

u64 pair_of(i32 low, i32 high) {
  return static_cast<u32>(low) | static_cast<u64>(static_cast<u32>(high)) << 32;
}
i32 low_of(u64 word) { return static_cast<i32>(word & low_half); }
i32 high_of(u64 word) { return static_cast<i32>(word >> 32); }

u64 datagram_bits_of(const Socket* s) {
  return (s->datagram ? 1U << 8 : 0U) | (s->broadcast ? 1U << 9 : 0U) |
         (s->group_loop_off ? 1U << 10 : 0U) | (s->tell_packet_info ? 1U << 11 : 0U) |
         (s->tell_time_to_live ? 1U << 12 : 0U) | (s->tell_type_of_service ? 1U << 13 : 0U) |
         (s->port_given ? 1U << 14 : 0U);
}

// Those of IPv6, beyond the congestion control's name.
u64 ipv6_bits_of(const Socket* s) {
  const u32 bits = (s->ipv6 ? 1U : 0U) | (s->ipv6_only ? 2U : 0U) |
                   (s->tell_ipv6_packet_info ? 4U : 0U) | (s->tell_hop_limit ? 8U : 0U) |
                   (s->tell_traffic_class ? 16U : 0U);
  return static_cast<u64>(bits) << 58;
}

u64 bits_of(const Socket* s) {
  return (s->reuse_address ? 1U : 0U) | (s->reuse_port ? 2U : 0U) | (s->no_delay ? 4U : 0U) |
         (s->cork ? 8U : 0U) | (s->keep_alive ? 16U : 0U) | (s->linger_on ? 32U : 0U) |
         (s->quick_ack ? 64U : 0U) | (s->protocol != 0 ? 128U : 0U) | datagram_bits_of(s) |
         static_cast<u64>(s->keep_idle) << 16 | static_cast<u64>(s->keep_interval) << 32 |
         static_cast<u64>(s->keep_probes) << 48 | static_cast<u64>(s->congestion) << 56 |
         ipv6_bits_of(s) | static_cast<u64>(reads_true(s, SOL_SOCKET, SO_OOBINLINE)) << 63;
}

void set_bits(Socket* s, u64 bits) {
  s->reuse_address = (bits & 1) != 0;
  s->reuse_port = (bits & 2) != 0;
  s->no_delay = (bits & 4) != 0;
  s->cork = (bits & 8) != 0;
  s->keep_alive = (bits & 16) != 0;
  s->linger_on = (bits & 32) != 0;
  s->quick_ack = (bits & 64) != 0;
  s->datagram = (bits & 1U << 8) != 0;
  s->broadcast = (bits & 1U << 9) != 0;
  s->group_loop_off = (bits & 1U << 10) != 0;
  s->tell_packet_info = (bits & 1U << 11) != 0;
  s->tell_time_to_live = (bits & 1U << 12) != 0;
  s->tell_type_of_service = (bits & 1U << 13) != 0;
  s->port_given = (bits & 1U << 14) != 0;
  const int protocol = s->datagram ? IPPROTO_UDP : IPPROTO_TCP;
  s->protocol = (bits & 128) != 0 ? protocol : 0;
  s->keep_idle = static_cast<u16>(bits >> 16);
  s->keep_interval = static_cast<u16>(bits >> 32);
  s->keep_probes = static_cast<u8>(bits >> 48);
  s->congestion = static_cast<CongestionName>(bits >> 56 & 3);
  s->ipv6 = (bits >> 58 & 1) != 0;
  s->ipv6_only = (bits >> 59 & 1) != 0;
  s->tell_ipv6_packet_info = (bits >> 60 & 1) != 0;
  s->tell_hop_limit = (bits >> 61 & 1) != 0;
  s->tell_traffic_class = (bits >> 62 & 1) != 0;
  const int in_line = static_cast<int>(bits >> 63);
  keep_option(s, SOL_SOCKET, SO_OOBINLINE, &in_line, sizeof in_line);
}

// A datagram socket's choices about what it sends, where a stream has its patience.
u64 sending_of(const Socket* s) {
  return u64{s->ipv6_mtu} | u64{s->type_of_service} << 16 | u64{s->time_to_live} << 24 |
         u64{s->group_time_to_live} << 32 | u64{s->traffic_class} << 40 | u64{s->hop_limit} << 48 |
         static_cast<u64>(s->mtu_discover & 7) << 56 |
         static_cast<u64>(s->ipv6_mtu_discover & 7) << 59 | static_cast<u64>(s->ipv6_whole) << 62;
}

// Read back, and for a host socket in its place.
void keep_plain(Socket* socket, int level, int name, int value) {
  if (read_plain(socket, *plain_option(level, name)) != value)
    keep_option(socket, level, name, &value, sizeof value);
}

void set_sending(Socket* s, u64 word) {
  s->ipv6_mtu = static_cast<u16>(word);
  s->type_of_service = static_cast<u8>(word >> 16);
  s->time_to_live = static_cast<u8>(word >> 24);
  s->group_time_to_live = static_cast<u8>(word >> 32);
  s->traffic_class = static_cast<u8>(word >> 40);
  s->hop_limit = static_cast<u8>(word >> 48);
  s->mtu_discover = word >> 56 & 7;
  s->ipv6_mtu_discover = word >> 59 & 7;
  s->ipv6_whole = (word >> 62 & 1) != 0;
  keep_plain(s, IPPROTO_IP, IP_TOS, s->type_of_service);
  keep_plain(s, IPPROTO_IP, IP_TTL, s->time_to_live);
  keep_plain(s, IPPROTO_IP, IP_MTU_DISCOVER, s->mtu_discover);
  if (!s->ipv6) return;
  keep_plain(s, IPPROTO_IPV6, IPV6_TCLASS, s->traffic_class);
  keep_plain(s, IPPROTO_IPV6, IPV6_UNICAST_HOPS, s->hop_limit);
  keep_plain(s, IPPROTO_IPV6, IPV6_MTU_DISCOVER, s->ipv6_mtu_discover);
  keep_plain(s, IPPROTO_IPV6, IPV6_DONTFRAG, s->ipv6_whole);
  const int mtu = s->ipv6_mtu;
  if (mtu != 0) keep_option(s, IPPROTO_IPV6, IPV6_MTU, &mtu, sizeof mtu);
}

void keep_number(Socket* socket, int level, int name, int value) {
  keep_for_host(socket, level, name, &value, sizeof value);
}

}  // namespace

void keep_for_host(Socket* socket, int level, int name, const void* value, u32 length) {
  if (socket->stage != Stage::undecided || length > sizeof(KeptOption::value)) return;
  keep_option(socket, level, name, value, length);
}

void remember(Socket* socket) {
  if (!is_live(socket)) return;
  Call c{.op = Op::remember};
  c.a[0] = bits_of(socket);
  c.a[1] = pair_of(socket->send_buffer, socket->receive_buffer);
  c.a[2] = pair_of(socket->linger_seconds, static_cast<i32>(socket->low_water));
  c.a[3] =
      socket->datagram ? sending_of(socket) : pair_of(socket->defer_accept, socket->user_timeout);
  c.a[4] = static_cast<u64>(socket->receive_timeout_ns);
  c.a[5] = static_cast<u64>(socket->send_timeout_ns);
  post_on(socket, c);
}

void recall(Socket* socket) {
  if (!is_live(socket)) return;
  Call c{.op = Op::recall};
  const Reply reply = call_on(socket, c);
  if (reply.result != 1) return;
  set_bits(socket, reply.value[0]);
  socket->send_buffer = low_of(reply.value[1]);
  socket->receive_buffer = high_of(reply.value[1]);
  socket->linger_seconds = low_of(reply.value[2]);
  socket->low_water = static_cast<u32>(high_of(reply.value[2]));
  if (socket->datagram) {
    set_sending(socket, reply.value[3]);
  } else {
    socket->defer_accept = low_of(reply.value[3]);
    socket->user_timeout = high_of(reply.value[3]);
  }
  socket->receive_timeout_ns = static_cast<i64>(reply.value[4]);
  socket->send_timeout_ns = static_cast<i64>(reply.value[5]);
}

void recall_for_host(Socket* socket) {
  recall(socket);
  if (socket->stage != Stage::undecided) return;
  if (socket->ipv6_only) keep_number(socket, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (socket->reuse_address) keep_number(socket, SOL_SOCKET, SO_REUSEADDR, 1);
  if (socket->reuse_port) keep_number(socket, SOL_SOCKET, SO_REUSEPORT, 1);
  if (socket->keep_alive) keep_number(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  if (socket->broadcast) keep_number(socket, SOL_SOCKET, SO_BROADCAST, 1);
  if (socket->no_delay) keep_number(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  // Linux doubles what it is given.
  if (socket->send_buffer != 0) {
    keep_number(socket, SOL_SOCKET, SO_SNDBUF, socket->send_buffer / 2);
  }
  if (socket->receive_buffer != 0) {
    keep_number(socket, SOL_SOCKET, SO_RCVBUF, socket->receive_buffer / 2);
  }
  if (socket->linger_on) {
    const struct linger l{1, socket->linger_seconds};
    keep_for_host(socket, SOL_SOCKET, SO_LINGER, &l, sizeof l);
  }
}

}  // namespace cob::shim
