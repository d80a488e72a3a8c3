// Congestion control, CUBIC (RFC 9438) or NewReno: RFC 5681 (windows), RFC 6582 (fast recovery),
// RFC 6928 (initial window), RFC 3465 (growth by bytes acknowledged, as ACKs here are coalesced by
// the turn), RFC 4015 (undoing). Model: arithmetic on a TCB's congestion fields; who retransmits
// what is tcp_ack.cc's and tcp_timer.cc's. Values; no owner.
#pragma once

#include <algorithm>

#include "net/stack/tcb.h"

namespace cob::net::congestion {

inline constexpr u32 max_window = 1u << 30;

// RFC 6928: min(10 MSS, max(2 MSS, 14600)).
inline u32 initial_window(u32 mss) { return std::min(10 * mss, std::max(2 * mss, 14'600u)); }

inline void start(Tcb& t, TcbCold& cold) {
  t.congestion_window = initial_window(t.mss);
  cold.slow_start_threshold = max_window;
}

// What was in flight before the loss is acted on. What arrived behind a hole is so by the sequence
// numbers only.
inline u32 flight_size(const Tcb& t) {
  return t.has(flag_scoreboard) ? std::min(t.in_flight(), t.congestion_window) : t.in_flight();
}

// RFC 5681 equation (4), RFC 9438 section 4.6.
inline void lower_threshold(Tcb& t, TcbCold& cold, u32 window) {
  if (cold.congestion == CongestionControl::cubic) {
    cubic::on_reduction(cold.cubic, window);
    window = cubic::reduced(window);
  } else {
    window /= 2;
  }
  cold.slow_start_threshold = std::max(window, 2u * t.mss);
}

// The window before a loss or mark that recovery does not act on: a probe repaired it (RFC 8985
// section 7.4), or it was CE (RFC 3168 section 6.1.2).
inline void reduce_at_once(Tcb& t, TcbCold& cold) {
  lower_threshold(t, cold, t.congestion_window);
  t.congestion_window = std::min(t.congestion_window, cold.slow_start_threshold);
}

// RFC 5681 section 3.1: slow start below the threshold, one MSS a round trip above. A window that
// did not limit the sender does not grow (RFC 7661 explains why).
inline void grow(Tcb& t, TcbCold& cold, u32 acked, u32 flight_before, u32 now_ms) {
  const bool slow_start = t.congestion_window < cold.slow_start_threshold;
  const bool used =
      t.has(flag_congestion_limited) || (slow_start && t.congestion_window / 2 < flight_before);
  if (!used || t.congestion_window >= max_window) return;
  if (slow_start) {
    t.congestion_window = std::min(t.congestion_window + acked, max_window);
    return;
  }
  if (cold.congestion == CongestionControl::cubic) {
    const u32 more = cubic::growth(cold.cubic, cold.window_growth, t.congestion_window, acked,
                                   t.mss, now_ms, cold.smoothed_rtt_us / 1'000);
    t.congestion_window = std::min(t.congestion_window + more, max_window);
    return;
  }
  cold.window_growth += acked;
  if (cold.window_growth >= t.congestion_window) {
    cold.window_growth -= t.congestion_window;
    t.congestion_window += t.mss;
  }
}

// RFC 6582 section 3.2 step 2, RFC 6675 section 5 (4.2): fast recovery begins.
inline void enter_recovery(Tcb& t, TcbCold& cold) {
  // RFC 4015 section 3.2 step 0; below the threshold slow start had not found the limit yet.
  cold.undo_threshold = std::max(t.in_flight(), cold.slow_start_threshold);
  if (t.has(flag_ecn) && t.send_unacknowledged < cold.ecn_recover) {
    cold.slow_start_threshold = std::max<u32>(t.congestion_window, 2u * t.mss);  // CE did it
  } else {
    lower_threshold(t, cold, flight_size(t));
  }
  cold.recover = t.send_max;
  t.congestion_window = cold.slow_start_threshold;
  t.set(flag_in_recovery);
}

// Step 3, partial acknowledgment: deflate by what left, less one segment for the one sent again.
inline void partial_ack(Tcb& t, u32 acked) {
  t.congestion_window -= std::min(acked, t.congestion_window - t.mss);
  if (acked >= t.mss) t.congestion_window += t.mss;
}

// Step 3, full acknowledgment, option (1): no burst after recovery.
inline void leave_recovery(Tcb& t, const TcbCold& cold) {
  t.congestion_window = cold.slow_start_threshold;  // PRR has led there (RFC 9937)
  if (!t.has(flag_scoreboard))
    t.congestion_window =
        std::min(cold.slow_start_threshold, std::max<u32>(t.in_flight(), t.mss) + t.mss);
  t.clear(flag_in_recovery);
}

// RFC 4015 section 3.2 step 8, after recovery that nothing lost had called for: slow start leads
// back to where the window was, without a burst.
inline void undo_recovery(Tcb& t, TcbCold& cold, u32 acked) {
  t.congestion_window = t.in_flight() + std::min(acked, initial_window(t.mss));
  cold.slow_start_threshold = cold.undo_threshold;
  cold.cubic.window_max = std::max(cold.cubic.window_max, cold.cubic.window_prior);
  cold.recover = t.send_unacknowledged;
  t.duplicate_acks = 0;
  t.clear(flag_in_recovery);
}

// RFC 5681 section 3.1: loss window after a timeout; the threshold is held when the same segment
// times out again.
inline void timeout(Tcb& t, TcbCold& cold) {
  if (t.retries == 0) lower_threshold(t, cold, flight_size(t));
  t.congestion_window = t.mss;
  cold.recover = t.send_max;
  cold.window_growth = 0;
  t.clear(flag_in_recovery);
  t.set(flag_after_timeout);
}

// RFC 5681 section 4.1: nothing sent for longer than RTO.
inline void restart_after_idle(Tcb& t, TcbCold& cold) {
  cold.cubic.epoch_ms = 0;  // time without data is none of its growth (RFC 9438 section 5.8)
  t.congestion_window = std::min(t.congestion_window, initial_window(t.mss));
}

}  // namespace cob::net::congestion
