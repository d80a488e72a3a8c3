// TcbIdle: what of a TcbCold an idle connection's later life depends on, in one cache line.
// Model: a connection is idle when it is established, accepted, has nothing in flight or to be
// sent, and its TcbCold is at rest: then what is left out here follows from its Tcb, or begins anew
// with the next segment sent. What does not fit (probes under way, intervals of no whole seconds, a
// user timeout, reordering seen) keeps its TcbCold. Values; the TcbTable's.
#pragma once

#include "net/stack/tcb.h"

namespace cob::net {

struct alignas(cache_line_bytes) TcbIdle {
  u64 bytes_sent : 48;
  u64 retransmits : 16;
  u64 bytes_received : 48;
  u64 advertised_mss : 16;
  u32 slow_start_threshold;
  u32 smoothed_rtt_us;
  u32 rtt_variance_us;
  u32 timestamp_recent_ms;
  u32 last_receive_ms;
  u32 last_send_ms;
  u32 min_rtt_us;
  u32 window_growth;
  u32 cubic_window_max;
  u32 cubic_window_prior;
  u16 keep_alive_idle_s;
  u16 keep_alive_interval_s;
  u32 keep_alive_probes : 7;
  u32 fin_wait_2_s : 8;
  u32 soft_error : 8;
  u32 new_reno : 1;
  u32 reordering_seen : 1;
  u32 syn_data_taken : 1;
};
static_assert(sizeof(TcbIdle) == cache_line_bytes);

// RFC 6298 (2.1) to (2.4); Linux TCP_RTO_MIN and TCP_RTO_MAX.
inline constexpr u32 first_rto_ms = 1'000, min_rto_ms = 200, max_rto_ms = 120'000;
constexpr u32 retransmit_timeout_ms(u32 smoothed_rtt_us, u32 rtt_variance_us) {
  if (smoothed_rtt_us == 0) return first_rto_ms;
  const u32 variance = 4 * rtt_variance_us;
  const u32 us = smoothed_rtt_us + (variance > min_rto_ms * 1000 ? variance : min_rto_ms * 1000);
  return us > (max_rto_ms - 1) * 1000 ? max_rto_ms : (us + 999) / 1000;
}

// False: the connection is not idle, or does not fit.
bool pack_idle(const Tcb& t, const TcbCold& cold, u32 now_ms, TcbIdle& idle);
// REQUIRES: `idle` was packed from `t`, which has not changed since.
void unpack_idle(const Tcb& t, const TcbIdle& idle, TcbCold& cold);

}  // namespace cob::net
