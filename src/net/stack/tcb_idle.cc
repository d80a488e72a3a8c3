// What is left of an idle connection's TcbCold. See tcb_idle.h.
// Model: pack_idle() judges field by field, in the order of TcbCold, and unpack_idle() gives each
// what an idle connection would find there.
// Owned by the TcbTable.
#include "net/stack/tcb_idle.h"

namespace cob::net {
namespace {

constexpr u64 fits_48_bits = (u64{1} << 48) - 1;
constexpr u32 quiet_ms = 500;  // answers are no longer limited by the last one

bool at_rest(const Tcb& t) {
  constexpr u32 under_way =
      flag_in_accept_queue | flag_fin_queued | flag_fin_sent | flag_peer_fin | flag_closed |
      flag_ack_now | flag_ack_soft | flag_on_output_list | flag_in_recovery | flag_after_timeout |
      flag_timing_rtt | flag_peer_fin_known | flag_may_undo | flag_retransmit_due | flag_consumed |
      flag_send_forced | flag_scoreboard | flag_ecn_echo | flag_cwr_due;
  return t.state == TcpState::established && (t.flags & under_way) == 0 &&
         t.send_unacknowledged == t.send_end && t.send_max == t.send_end && t.retries == 0 &&
         t.retransmit_deadline == 0;
}

bool at_rest(const TcbCold& c, u32 now_ms) {
  const bool window_stands =
      c.cubic.epoch_ms == 0 || now_ms - c.last_send_ms > c.retransmit_timeout_ms;
  const bool quiet = c.last_answer_ms == 0 || now_ms - c.last_answer_ms >= quiet_ms;
  return window_stands && quiet && c.reassembly_head == no_slot && c.listener == no_slot &&
         c.persist_shift == 0 && c.keep_alive_sent == 0 && c.probe == Probe::none &&
         c.silent_probes == 0 && (c.fast_open & fast_open_early) == 0;
}

bool fits(const Tcb& t, const TcbCold& c) {
  const bool seconds = !t.has(flag_keep_alive) ||
                       (c.keep_alive_idle_ms % 1'000 == 0 && c.keep_alive_interval_ms % 1'000 == 0);
  return seconds && c.bytes_sent <= fits_48_bits && c.bytes_received <= fits_48_bits &&
         c.retransmits <= UINT16_MAX && c.user_timeout_ms == 0 && c.reorder_multiplier <= 1 &&
         c.reorder_persist == 0 &&
         c.retransmit_timeout_ms == retransmit_timeout_ms(c.smoothed_rtt_us, c.rtt_variance_us);
}

}  // namespace

bool pack_idle(const Tcb& t, const TcbCold& c, u32 now_ms, TcbIdle& idle) {
  if (!at_rest(t) || !at_rest(c, now_ms) || !fits(t, c)) return false;
  const bool keep_alive = t.has(flag_keep_alive);
  idle = {
      .bytes_sent = c.bytes_sent & fits_48_bits,
      .retransmits = static_cast<u16>(c.retransmits),
      .bytes_received = c.bytes_received & fits_48_bits,
      .advertised_mss = c.advertised_mss,
      .slow_start_threshold = c.slow_start_threshold,
      .smoothed_rtt_us = c.smoothed_rtt_us,
      .rtt_variance_us = c.rtt_variance_us,
      .timestamp_recent_ms = c.timestamp_recent_ms,
      .last_receive_ms = c.last_receive_ms,
      .last_send_ms = c.last_send_ms,
      .min_rtt_us = c.min_rtt_us,
      .window_growth = c.window_growth,
      .cubic_window_max = c.cubic.window_max,
      .cubic_window_prior = c.cubic.window_prior,
      .keep_alive_idle_s = static_cast<u16>(keep_alive ? c.keep_alive_idle_ms / 1'000 : 0),
      .keep_alive_interval_s = static_cast<u16>(keep_alive ? c.keep_alive_interval_ms / 1'000 : 0),
      .keep_alive_probes = c.keep_alive_probes & 127u,
      .fin_wait_2_s = c.fin_wait_2_s,
      .soft_error = c.soft_error,
      .new_reno = c.congestion == CongestionControl::new_reno,
      .reordering_seen = c.reordering_seen != 0,
      .syn_data_taken = (c.fast_open & fast_open_data_taken) != 0};
  return true;
}

void unpack_idle(const Tcb& t, const TcbIdle& idle, TcbCold& cold) {
  const SequenceNumber una = t.send_unacknowledged;
  cold = {};
  cold.bytes_sent = idle.bytes_sent;
  cold.bytes_received = idle.bytes_received;
  cold.slow_start_threshold = idle.slow_start_threshold;
  cold.initial_send = una - 1;  // only that it lies before
  cold.recover = cold.rtt_sequence = cold.ecn_recover = cold.urgent_send = una;
  cold.smoothed_rtt_us = idle.smoothed_rtt_us;
  cold.rtt_variance_us = idle.rtt_variance_us;
  cold.retransmit_timeout_ms = retransmit_timeout_ms(idle.smoothed_rtt_us, idle.rtt_variance_us);
  cold.retransmits = idle.retransmits;
  cold.window_growth = idle.window_growth;
  cold.timestamp_recent_ms = idle.timestamp_recent_ms;
  cold.last_receive_ms = idle.last_receive_ms;
  cold.last_send_ms = idle.last_send_ms;
  cold.keep_alive_idle_ms = idle.keep_alive_idle_s * 1'000u;
  cold.keep_alive_interval_ms = idle.keep_alive_interval_s * 1'000u;
  cold.keep_alive_probes = static_cast<u8>(idle.keep_alive_probes);
  cold.fin_wait_2_s = static_cast<u8>(idle.fin_wait_2_s);
  cold.reassembly_head = cold.listener = no_slot;
  cold.advertised_mss = static_cast<u16>(idle.advertised_mss);
  cold.soft_error = static_cast<u8>(idle.soft_error);
  cold.min_rtt_us = idle.min_rtt_us;
  cold.cubic.window_max = idle.cubic_window_max;
  cold.cubic.window_prior = idle.cubic_window_prior;
  cold.congestion = idle.new_reno != 0 ? CongestionControl::new_reno : CongestionControl::cubic;
  cold.reordering_seen = idle.reordering_seen & 1;
  if (idle.syn_data_taken != 0) cold.fast_open = fast_open_data_taken;
}

}  // namespace cob::net
