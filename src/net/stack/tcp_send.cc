// Output: RFC 9293 sections 3.7.4 (Nagle), 3.8.6.2.1 (sender's silly window avoidance), RFC 5681
// and RFC 3042 (how much).
// Model: poll() flushes every touched TCB once; a segment is as large as the MSS, the windows and
// the bytes announced allow. A device without room blocks the TCB: it is tried again at every poll,
// and nothing counts as sent.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/congestion.h"
#include "net/stack/tcp_stack.h"

namespace cob::net {

void TcpStack::touch(Tcb& t) {
  if (t.has(flag_on_output_list)) return;
  t.set(flag_on_output_list);
  output_list_.push_back(t.id);
}

// Those that found no room last time go first, in their order. Where many wait for room a poll
// tries a few of them and of the new ones, or it would do nothing else.
void TcpStack::flush_output() {
  constexpr u32 most_refused = 64;
  u32 refused = 0;
  for (std::size_t left = blocked_.size(); left > 0 && refused < most_refused; --left) {
    const TcbId id = blocked_.front();
    blocked_.pop_front();
    if (flush_output_of(id)) continue;
    blocked_.push_back(id);
    ++refused;
  }
  refused = 0;
  flushing_.swap(output_list_);
  for (const TcbId id : flushing_) {
    if (refused < most_refused && flush_output_of(id)) continue;
    blocked_.push_back(id);
    ++refused;
  }
  flushing_.clear();
}

// False if the device had no room: it stays marked.
bool TcpStack::flush_output_of(TcbId id) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return true;
  t->clear(flag_on_output_list);
  if (t->has(flag_consumed) && !offer_refused(*t)) return true;
  const bool sent = output(*t);
  if (!sent) t->set(flag_on_output_list);
  sync_timer(*t);
  return sent;
}

// False if the device had no room.
bool TcpStack::output(Tcb& t) {
  if (t.state == TcpState::syn_sent || t.state == TcpState::syn_received)
    return output_handshake(t);
  if (!output_data(t)) {
    arm_after_output(t);
    return false;
  }
  arm_after_output(t);
  if (t.has(flag_ack_now) || (t.has(flag_consumed) && window_update_due(t)))
    if (!emit(t, t.send_max, 0, tcp_ack)) return false;
  t.clear(flag_consumed);
  return true;
}

bool TcpStack::output_handshake(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  if (t.send_next != cold.initial_send) {
    if ((cold.fast_open & fast_open_early) != 0) return output_early(t);
    return !t.has(flag_ack_now) || emit(t, t.send_max, 0, tcp_ack);
  }
  if (cold.fast_open != 0 && must_wait_for_data(t, cold)) return true;
  if (t.retransmit_deadline == 0) {
    if (t.retries == 0) cold.stalled_since_ms = now_ms_;
    start_retransmit_timer(t, RetransmitTimer::retransmit);
  }
  if (!emit_syn(t)) return false;
  if (t.retries == 0) {
    cold.rtt_start_us = static_cast<u32>(now_.ns / 1000);
    t.set(flag_timing_rtt);
  } else {
    ++cold.retransmits;
    ++counters_.segments_retransmitted;
  }
  t.send_next = cold.initial_send + 1;
  t.send_max = later_of(t.send_max, t.send_next);
  return (cold.fast_open & fast_open_early) == 0 || output_early(t);
}

bool TcpStack::output_data(Tcb& t) {
  t.clear(flag_congestion_limited);
  if (t.has(flag_scoreboard)) {
    if (!resend_lost(t)) return false;
    if (board(t).lost_bytes() > 0) return true;
  } else if (t.has(flag_retransmit_due) && t.in_flight() > 0) {
    const u32 data_in_flight = std::min(t.send_end, t.send_max) - t.send_unacknowledged;
    const u32 bytes = std::min<u32>(t.mss, data_in_flight);
    const bool fin = t.has(flag_fin_sent) && bytes == data_in_flight;
    const SequenceNumber resume = t.send_next;
    t.send_next = t.send_unacknowledged;
    const bool sent = send_piece(t, bytes, fin);
    t.send_next = later_of(resume, t.send_next);
    if (!sent) return false;
  }
  t.clear(flag_retransmit_due);
  if (t.send_next == t.send_end && !t.has(flag_fin_queued)) return true;
  if (t.in_flight() == 0) {
    TcbCold& cold = table_.cold(t);
    if (now_ms_ - cold.last_send_ms > cold.retransmit_timeout_ms)
      congestion::restart_after_idle(t, cold);
  }
  // What was sent before goes again segment by segment.
  const bool large = t.send_next >= t.send_max && t.send_end - t.send_next > t.mss;
  const u32 most = large ? segmented_payload(t) : t.mss;
  while (t.send_next <= t.send_end) {
    const u32 unsent = t.send_end - t.send_next;
    const bool fin_due = t.has(flag_fin_queued);
    if (unsent == 0 && !fin_due) break;
    const u32 flight = t.send_next - t.send_unacknowledged;
    const u32 offered = t.send_window > flight ? t.send_window - flight : 0;
    u32 pipe = flight;
    u32 window = t.congestion_window;
    if (t.has(flag_scoreboard)) {
      pipe = board(t).pipe();  // RFC 6675 section 5 (C)
    } else if (!t.has(flag_in_recovery)) {
      // RFC 3042: the first two duplicate ACKs each let one new segment out.
      window += std::min<u32>(t.duplicate_acks, 2) * t.mss;
    }
    const u32 allowed = window > pipe ? window - pipe : 0;
    u32 bytes = std::min({unsent, offered, allowed, u32{t.mss}});
    if (most > t.mss && bytes == t.mss) {  // whole segments, which the device cuts
      bytes = std::min({unsent, offered, allowed, most});
      bytes -= bytes % t.mss;
    }
    const bool last = bytes == unsent;
    const bool fin = last && fin_due && offered > bytes;  // a FIN needs a place in the window too
    if (allowed < std::min(unsent, u32{t.mss}) && offered > allowed) t.set(flag_congestion_limited);
    if (bytes == 0 && !fin) break;
    if (!may_send(t, bytes, last, fin)) break;
    if (!send_piece(t, bytes, fin)) return false;
    if (fin) break;
  }
  return true;
}

// Whether a segment of `bytes` goes now; `last`: nothing is announced behind it.
bool TcpStack::may_send(const Tcb& t, u32 bytes, bool last, bool fin) const {
  if (bytes >= t.mss || fin || t.has(flag_send_forced) || t.send_next < t.send_max) return true;
  if (!last) return bytes >= t.send_window_max / 2;  // limited by a window
  if ((t.flags & (flag_cork | flag_urgent)) != 0) [[unlikely]] {
    if (in_urgent_mode(t)) return true;  // Linux tcp_nagle_test
    if (t.has(flag_cork) && !t.has(flag_cork_expired)) return false;
  }
  if (t.has(flag_no_delay)) return true;
  // Nagle in Minshall's variant, as Linux: at most one small segment unacknowledged.
  return t.small_segment_end <= t.send_unacknowledged;
}

// Sends `bytes` at send_next, and the FIN behind them.
bool TcpStack::send_piece(Tcb& t, u32 bytes, bool fin) {
  const SequenceNumber at = t.send_next;
  const SequenceNumber end = at + bytes;
  const u8 push = bytes > 0 && end == t.send_end ? tcp_psh : u8{0};
  if (t.has(flag_ack_soft) || t.ack_deadline != 0) t.quick_acks = 0;  // a conversation: ACKs ride
  if (!emit(t, at, bytes, static_cast<u8>(tcp_ack | push | (fin ? tcp_fin : 0)))) return false;
  TcbCold& cold = table_.cold(t);
  t.flags &= ~u32{flag_send_forced | flag_cork_expired};
  t.send_next = end + (fin ? 1 : 0);
  if (fin) t.set(flag_fin_sent);
  if (at < t.send_max) {
    ++cold.retransmits;
    ++counters_.segments_retransmitted;
    if (t.has(flag_timing_rtt) && cold.rtt_sequence > at) t.clear(flag_timing_rtt);  // Karn
  } else {
    if (t.has(flag_sack) && at != t.send_unacknowledged) note_sent(t, at);
    if (bytes > 0 && bytes < t.mss) t.small_segment_end = end;
    // Behind a hole the cumulative ACK would time the hole's repair.
    if ((t.flags & (flag_timing_rtt | flag_in_recovery | flag_after_timeout | flag_scoreboard)) ==
        0) {
      t.set(flag_timing_rtt);
      cold.rtt_sequence = t.send_next;
      cold.rtt_start_us = static_cast<u32>(now_.ns / 1000);
    }
    cold.bytes_sent += bytes;
  }
  cold.last_send_ms = now_ms_;
  t.send_max = later_of(t.send_max, t.send_next);
  return true;
}

void TcpStack::arm_after_output(Tcb& t) {
  if (t.in_flight() > 0) {
    if (t.retransmit_deadline == 0 || t.timer != RetransmitTimer::retransmit) {
      table_.cold(t).stalled_since_ms = now_ms_;
      start_retransmit_timer(t, RetransmitTimer::retransmit);
    }
    if (t.has(flag_scoreboard)) arm_probe(t);
    return;
  }
  const bool waiting =
      t.send_next < t.send_end || (t.send_next == t.send_end && t.has(flag_fin_queued));
  if (!waiting) {
    t.retransmit_deadline = 0;
    return;
  }
  if (t.retransmit_deadline != 0) return;
  // Nothing in flight, so no ACK will call us: the window is closed, or a cork holds the last
  // bytes.
  const u32 held = t.send_end - t.send_next;
  const bool corked = t.has(flag_cork) && held > 0 && t.send_window >= held;
  table_.cold(t).stalled_since_ms = now_ms_;
  start_retransmit_timer(t, corked ? RetransmitTimer::cork : RetransmitTimer::persist);
}

}  // namespace cob::net
