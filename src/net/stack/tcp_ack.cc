// The ACK field of an arriving segment: RFC 9293 section 3.10.7.4 fifth, RFC 5681 section 3.2 and
// RFC 6582 (recovery; by the scoreboard it is tcp_recovery.cc's), RFC 3522 (was it needed), RFC
// 5961 section 5 (acceptable range). Model: changes the send side of the TCB and marks what the
// flush shall send again; the layer hears of acknowledged bytes before anything is read from its
// buffer at the new offset. Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/congestion.h"
#include "net/stack/tcp_stack.h"

namespace cob::net {

// RFC 5961 section 5.2; and, as Linux has it, what lies before our first byte was never there.
bool TcpStack::is_too_old(const Tcb& t, SequenceNumber ack) const {
  const TcbCold& cold = table_.cold(t);
  u32 back = t.send_window_max;
  if (cold.bytes_sent < u32{1} << 31)
    back = std::min(back, t.send_unacknowledged - (cold.initial_send + 1));
  return ack < t.send_unacknowledged - back;
}

// False if the segment ends here or the connection is gone.
bool TcpStack::process_ack(Tcb& t, const TcpSegment& s) {
  const SequenceNumber ack = s.acknowledgment;
  if (ack > t.send_max || (ack < t.send_unacknowledged && is_too_old(t, ack))) {
    challenge_ack(t);
    return false;
  }
  if (t.has(flag_keep_alive)) {
    table_.cold(t).last_receive_ms = now_ms_;
    table_.cold(t).keep_alive_sent = 0;
  }
  if (t.timer == RetransmitTimer::persist) t.retries = 0;  // it lives, if with a closed window
  if (t.has(flag_scoreboard)) return process_sack(t, s);
  if (ack <= t.send_unacknowledged) {
    if (s.sack_blocks > 0) judge_probe(t, s, true);
    const u32 window = u32{s.window} << t.send_scale;
    const bool duplicate = ack == t.send_unacknowledged && t.in_flight() > 0 && s.length() == 0 &&
                           window == t.send_window;  // RFC 5681 section 2
    update_send_window(t, s);
    if (duplicate) on_duplicate_ack(t);
    return true;
  }
  update_send_window(t, s);
  const TcbId id = t.id;
  const bool fin_acked = t.has(flag_fin_sent) && ack == t.send_end + 1;
  on_new_ack(t, s);
  if (!alive(t, id)) return false;
  return !fin_acked || on_fin_acked(t);
}

// RFC 9293: SND.WL1 and SND.WL2 keep an old segment from setting the window. Linux's exception
// (tcp_may_update_window): what acknowledges more is newer, though it repeat old text; the edge
// would move with SND.UNA past what the peer offered. Before SND.UNA moves.
void TcpStack::update_send_window(Tcb& t, const TcpSegment& s) {
  if (s.acknowledgment <= t.send_unacknowledged &&
      (s.sequence < t.window_sequence ||
       (s.sequence == t.window_sequence && s.acknowledgment < t.window_acknowledgment)))
    return;
  t.send_window = s.has(tcp_syn) ? s.window : u32{s.window} << t.send_scale;
  t.send_window_max = std::max(t.send_window_max, t.send_window);
  t.window_sequence = s.sequence;
  t.window_acknowledgment = s.acknowledgment;
  if (t.send_window > 0 && t.timer == RetransmitTimer::persist) {
    t.timer = RetransmitTimer::retransmit;
    t.retransmit_deadline = 0;
    table_.cold(t).persist_shift = 0;
  }
}

void TcpStack::on_new_ack(Tcb& t, const TcpSegment& s) {
  TcbCold& cold = table_.cold(t);
  const SequenceNumber ack = s.acknowledgment;
  const u32 acked = ack - t.send_unacknowledged;
  const u32 flight_before = t.in_flight();
  const u32 fin = t.has(flag_fin_sent) && ack == t.send_end + 1 ? 1 : 0;
  if (t.has(flag_timing_rtt) && ack >= cold.rtt_sequence) {
    // The echo (RFC 7323 section 4.1) bounds what waiting behind a hole would add to the timed
    // segment's own time.
    u32 rtt_us = static_cast<u32>(now_.ns / 1000) - cold.rtt_start_us;
    if (t.has(flag_timestamps)) {
      const u32 echo_ms = timestamp_now(t) - s.timestamp_echo;
      if (echo_ms < rtt_us / 1000) rtt_us = (echo_ms + 1) * 1000;
    }
    measure_rtt(t, rtt_us);
    t.clear(flag_timing_rtt);
  }
  t.send_unacknowledged = ack;
  if (t.send_next < ack) t.send_next = ack;
  t.retries = 0;  // progress ends the backoff, as in Linux
  cold.stalled_since_ms = now_ms_;
  if (cold.probe != Probe::none) [[unlikely]]
    judge_probe(t, s, false);
  bool restart_timer = true;
  if (t.has(flag_in_recovery)) {
    if (t.has(flag_may_undo) && timestamp_before(s.timestamp_echo, cold.undo_timestamp)) {
      congestion::undo_recovery(t, cold, acked);
    } else if (ack >= cold.recover) {
      congestion::leave_recovery(t, cold);
      t.duplicate_acks = 0;
    } else {
      congestion::partial_ack(t, acked);
      t.set(flag_retransmit_due);
      restart_timer = cold.partial_ack_seen == 0;
      cold.partial_ack_seen = 1;
    }
    t.clear(flag_may_undo);
  } else {
    t.duplicate_acks = 0;
    if (t.has(flag_after_timeout) && ack >= cold.recover) t.clear(flag_after_timeout);
    if (!t.has(flag_ecn) || !s.has(tcp_ece)) [[likely]]
      congestion::grow(t, cold, acked, flight_before, now_ms_);
  }
  if (t.in_flight() == 0) {
    t.retransmit_deadline = 0;
  } else if (restart_timer) {
    start_retransmit_timer(t, RetransmitTimer::retransmit);  // RFC 6298 (5.3)
  }
  if (acked > fin) layer_.on_acked(t.id, t.cookie, acked - fin);
}

// RFC 5681 section 3.2, RFC 6582 section 3.2 step 2; limited transmit (RFC 3042) is output_data's.
void TcpStack::on_duplicate_ack(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  if (t.duplicate_acks < 255) ++t.duplicate_acks;
  if (t.has(flag_in_recovery)) {
    t.congestion_window = std::min(t.congestion_window + t.mss, congestion::max_window);
    return;
  }
  // `recover` keeps the duplicates of one loss from counting as another (RFC 6582 section 3.2 step
  // 1).
  if (t.duplicate_acks != 3 || t.send_unacknowledged < cold.recover) return;
  start_recovery(t);
  t.congestion_window += 3u * t.mss;
  cold.partial_ack_seen = 0;
  t.set(flag_retransmit_due);
}

void TcpStack::start_recovery(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  congestion::enter_recovery(t, cold);
  if (t.has(flag_ecn)) t.set(flag_cwr_due);  // RFC 3168 section 6.1.2
  // RFC 3522 (Eifel detection): an echo from before now shows that the original arrived.
  t.assign(flag_may_undo, t.has(flag_timestamps));
  cold.undo_timestamp = timestamp_now(t);
  t.clear(flag_timing_rtt);
  start_retransmit_timer(t, RetransmitTimer::retransmit);
}

// RFC 3168 sections 6.1.2 and 6.1.3, of an acceptable segment.
void TcpStack::on_ecn(Tcb& t, const TcpSegment& s) {
  if (s.has(tcp_cwr)) t.clear(flag_ecn_echo);
  if (s.congestion_experienced && !s.payload.empty()) {
    t.set(flag_ecn_echo);
    t.set(flag_ack_now);
  }
  if (!s.has(tcp_ece) || s.acknowledgment > t.send_max) return;
  TcbCold& cold = table_.cold(t);
  // Once a window of data, and not for what a loss has answered for already.
  if (t.has(flag_in_recovery) || t.has(flag_after_timeout) || t.in_flight() == 0 ||
      s.acknowledgment <= cold.ecn_recover)
    return;
  congestion::reduce_at_once(t, cold);
  cold.ecn_recover = t.send_max;
  t.set(flag_cwr_due);
}

// Our FIN is acknowledged. False if the connection ended.
bool TcpStack::on_fin_acked(Tcb& t) {
  switch (t.state) {
    case TcpState::fin_wait_1:
      t.state = TcpState::fin_wait_2;
      return !t.has(flag_closed) || wait_for_fin(t);
    case TcpState::closing:
      enter_time_wait(t);
      return false;
    case TcpState::last_ack:
      finish(t);
      return false;
    default:
      return true;
  }
}

}  // namespace cob::net
