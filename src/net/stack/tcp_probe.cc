// Tail loss probes, RFC 8985 section 7, and the timer they share with RACK (section 8).
// Model: two round trips after the last news a segment goes out of turn, so that an ACK tells of
// the tail what no later segment does. In recovery, where RFC 8985 leaves it to the retransmission
// timer, the first hole goes again when nothing was heard for two round trips, then four, and so
// on: a receiver with a hole acknowledges at once, so silence is loss, and the timer's floor of 200
// ms is thousands of a cob's round trips. A flight that the peer may hold its ACK of for a while
// (one full segment) is left to the retransmission timer, which is about as soon as RFC 8985's
// max_ack_delay would allow.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/congestion.h"
#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr u32 least_probe_timeout_us = 150;  // a receiver of ours may wait 100 us
constexpr u32 first_probe_timeout_us = 1'000'000;
constexpr u8 max_silent_probes = 4;

}  // namespace

// REQUIRES: flag_scoreboard.
void TcpStack::on_fine_timer(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  if (cold.fine_deadline_us == 0 || static_cast<i32>(now_us_ - cold.fine_deadline_us) < 0) return;
  cold.fine_deadline_us = 0;
  touch(t);
  if (cold.fine_timer == FineTimer::probe) return send_probe(t);
  detect_losses(t);
  if (t.has(flag_in_recovery)) apply_prr(t, 0, false);
}

// Section 7.2. REQUIRES: flag_scoreboard.
void TcpStack::arm_probe(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  if (cold.fine_deadline_us != 0 || t.has(flag_after_timeout)) return;
  const bool recovering = t.has(flag_in_recovery);
  if (recovering
          ? cold.silent_probes >= max_silent_probes
          : cold.probe != Probe::none || board(t).sacked_bytes() > 0 || t.in_flight() <= t.mss)
    return;
  const u32 wait_us = cold.smoothed_rtt_us != 0
                          ? std::max(2 * cold.smoothed_rtt_us, least_probe_timeout_us)
                          : first_probe_timeout_us;
  cold.fine_timer = FineTimer::probe;
  cold.fine_deadline_us =
      std::max(now_us_ + (recovering ? wait_us << cold.silent_probes : wait_us), 1u);
}

// Section 7.3.
void TcpStack::send_probe(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  if (t.has(flag_after_timeout)) return;
  if (t.has(flag_in_recovery)) {
    const Scoreboard::Piece hole = board(t).front(t.mss);
    ++cold.silent_probes;
    if (!hole.empty()) static_cast<void>(send_again(t, hole));
    return;
  }
  if (cold.probe != Probe::none) return;
  const u32 flight = t.in_flight();
  const u32 offered = t.send_window > flight ? t.send_window - flight : 0;
  const u32 unsent = t.send_next < t.send_end ? t.send_end - t.send_next : 0;
  const u32 fresh = std::min<u32>({unsent, offered, u32{t.mss}});
  if (fresh > 0) {
    if (!send_piece(t, fresh, false)) return;
    cold.probe = Probe::new_data;
  } else {
    const Scoreboard::Piece piece = board(t).last(t.mss);
    if (piece.empty() || !send_again(t, piece)) return;
    cold.probe = Probe::again;
  }
  cold.probe_end = t.send_max;
  start_retransmit_timer(t, RetransmitTimer::retransmit);
}

// Section 7.4: what an ACK says of the probe. `duplicate`: it acknowledges nothing new.
void TcpStack::judge_probe(Tcb& t, const TcpSegment& s, bool duplicate) {
  TcbCold& cold = table_.cold(t);
  if (cold.probe == Probe::none || s.acknowledgment < cold.probe_end) return;
  const bool twice = s.sack_blocks > 0 && s.sack[0].end == cold.probe_end;  // both copies arrived
  const bool repaired = cold.probe == Probe::again && !twice && s.acknowledgment > cold.probe_end;
  const bool plain_duplicate = duplicate && s.sack_blocks == 0 && s.length() == 0;
  if (cold.probe == Probe::again && !twice && !repaired && !plain_duplicate) return;
  cold.probe = Probe::none;
  if (repaired && !t.has(flag_in_recovery)) congestion::reduce_at_once(t, cold);
}

}  // namespace cob::net
