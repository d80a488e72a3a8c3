// TCP_INFO; see information.h. Model: two questions to the kernel, each a reply of six words; what
// cob does not count (pacing, delivery rates, segments of one connection) stays 0. Any thread; the
// socket's lock.
#include "shim/information.h"

#include <netinet/tcp.h>
#include <string.h>

#include "shim/epoll.h"

namespace cob::shim {

using namespace call;

namespace {

// linux/tcp.h goes on behind what libc's netinet/tcp.h knows, and the two cannot be included
// together.
struct LongTcpInfo {
  tcp_info head;
  u64 pacing_rate, max_pacing_rate, bytes_acked, bytes_received;
  u32 segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out;
  u64 delivery_rate, busy_time, rwnd_limited, sndbuf_limited;
  u32 delivered, delivered_ce;
  u64 bytes_sent, bytes_retrans;
  u32 dsack_dups, reord_seen, rcv_ooopack, snd_wnd, rcv_wnd, rehash;
};
static_assert(sizeof(tcp_info) == 104 && sizeof(LongTcpInfo) == 240);
static_assert(offsetof(LongTcpInfo, notsent_bytes) == 144 && offsetof(LongTcpInfo, snd_wnd) == 228);

constexpr u8 kernel_window_scale = 7;  // net/stack/tcb.h, receive_window_scale

// Linux's number of a state that the kernel names in the order of RFC 9293.
u8 linux_state(u8 state) {
  constexpr u8 numbers[] = {TCP_CLOSE,     TCP_SYN_SENT,  TCP_SYN_RECV,   TCP_ESTABLISHED,
                            TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT, TCP_CLOSING,
                            TCP_LAST_ACK,  TCP_TIME_WAIT};
  return state < sizeof numbers ? numbers[state] : u8{TCP_CLOSE};
}

u32 low(u64 value) { return static_cast<u32>(value); }
u32 high(u64 value) { return static_cast<u32>(value >> 32); }

Reply ask(Socket* socket, u64 part) {
  Call c{.op = Op::info};
  c.a[0] = static_cast<u32>(InfoKind::tcp);
  c.a[1] = part;
  return call_on(socket, c);
}

void fill(LongTcpInfo& info, const Reply& first) {
  info.head.tcpi_state = linux_state(static_cast<u8>(first.value[0]));
  info.head.tcpi_snd_mss = info.head.tcpi_rcv_mss = info.head.tcpi_advmss = high(first.value[0]);
  info.head.tcpi_rtt = low(first.value[1]);
  info.head.tcpi_rttvar = high(first.value[1]);
  const u32 mss = info.head.tcpi_snd_mss != 0 ? info.head.tcpi_snd_mss : 1'460;
  info.head.tcpi_snd_cwnd = low(first.value[2]) / mss;
  info.snd_wnd = high(first.value[2]);
  info.head.tcpi_total_retrans = low(first.value[3]);
  info.head.tcpi_rto = high(first.value[3]);
  info.bytes_sent = first.value[4];
  info.bytes_received = first.value[5];
}

// REQUIRES: filled from the first reply.
void fill_more(LongTcpInfo& info, const Reply& second) {
  const u32 mss = info.head.tcpi_snd_mss != 0 ? info.head.tcpi_snd_mss : 1'460;
  constexpr u32 no_threshold = 0x7fff'ffff;  // Linux's TCP_INFINITE_SSTHRESH
  const u32 threshold = low(second.value[0]);
  info.head.tcpi_snd_ssthresh = threshold >= no_threshold / 2 ? no_threshold : threshold / mss;
  const u32 unacked = high(second.value[0]);
  info.head.tcpi_unacked = unacked / mss + (unacked % mss != 0 ? 1 : 0);
  info.bytes_acked = info.bytes_sent > unacked ? info.bytes_sent - unacked : 0;
  info.notsent_bytes = low(second.value[1]);
  info.rcv_wnd = info.head.tcpi_rcv_space = high(second.value[1]);
  constexpr u8 states[] = {TCP_CA_Open, TCP_CA_Recovery, TCP_CA_Loss};
  const u8 congestion = static_cast<u8>(second.value[2]);
  info.head.tcpi_ca_state = congestion < sizeof states ? states[congestion] : u8{TCP_CA_Open};
  const u8 retries = static_cast<u8>(second.value[2] >> 8);
  constexpr u8 persist = 2;  // net::WaitKind
  if (static_cast<u8>(second.value[2] >> 32) == persist) {
    info.head.tcpi_probes = retries;
  } else {
    info.head.tcpi_retransmits = retries;
  }
  info.head.tcpi_backoff = retries;
  if ((second.value[2] >> 26 & 1) != 0) info.head.tcpi_options |= TCPI_OPT_SACK;
  if ((second.value[2] >> 27 & 1) != 0) info.head.tcpi_options |= TCPI_OPT_ECN;
  if ((second.value[2] >> 28 & 1) != 0) info.head.tcpi_options |= TCPI_OPT_SYN_DATA;
  if ((second.value[2] >> 24 & 1) != 0) info.head.tcpi_options |= TCPI_OPT_TIMESTAMPS;
  if ((second.value[2] >> 25 & 1) != 0) {
    info.head.tcpi_options |= TCPI_OPT_WSCALE;
    info.head.tcpi_snd_wscale = static_cast<u8>(second.value[2] >> 16) & 15;
    info.head.tcpi_rcv_wscale = kernel_window_scale;
  }
}

}  // namespace

void tcp_information(Socket* socket, void* value, socklen_t* length) {
  LongTcpInfo info{};
  info.head.tcpi_state = TCP_CLOSE;
  if (socket->stage == Stage::listener) info.head.tcpi_state = TCP_LISTEN;
  if (socket->stage == Stage::stream && is_live(socket)) {
    Reply reply = ask(socket, 0);
    if (reply.result == 0) {
      fill(info, reply);
      reply = ask(socket, 1);
      if (reply.result == 0) fill_more(info, reply);
    }
  }
  const u32 bytes = *length < sizeof info ? *length : u32{sizeof info};
  memcpy(value, &info, bytes);
  *length = bytes;
}

int path_mtu(Socket* socket, int& bytes) {
  if (!is_live(socket) || (socket->stage != Stage::stream && socket->stage != Stage::datagram))
    return ENOTCONN;
  Call c{.op = Op::info};
  c.a[0] = static_cast<u32>(InfoKind::path_mtu);
  const Reply reply = call_on(socket, c);
  if (reply.result != 0) return reply.result < 0 ? -reply.result : ENOTCONN;
  bytes = static_cast<int>(reply.value[0]);
  return 0;
}

CongestionName congestion_control(Socket* socket) {
  if (socket->stage == Stage::stream && is_live(socket)) {
    const Reply reply = ask(socket, 1);
    const u32 name = static_cast<u8>(reply.value[2] >> 40);
    if (reply.result == 0 && name <= static_cast<u32>(CongestionName::reno))
      return static_cast<CongestionName>(name);
  }
  if (socket->congestion != CongestionName::none) return socket->congestion;
  const Arena* arena = attach();
  const u32 name = arena == nullptr ? 0 : load(arena->kernel->header.default_congestion);
  return name == static_cast<u32>(CongestionName::reno) ? CongestionName::reno
                                                        : CongestionName::cubic;
}

int max_segment(Socket* socket) {
  if (socket->stage == Stage::stream && is_live(socket)) {
    const Reply reply = ask(socket, 0);
    if (reply.result == 0) return static_cast<int>(high(reply.value[0]));
  }
  return socket->max_segment != 0 ? socket->max_segment : 536;
}

}  // namespace cob::shim
