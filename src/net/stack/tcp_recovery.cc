// Loss recovery by the scoreboard: RFC 2018 and 2883 (what the peer says), RFC 6675 (pipe, what
// goes next), RFC 8985 (what is lost), RFC 9937 (how fast it goes again), RFC 3522 and 3708 (was it
// needed).
// Model: an ACK updates the board, the board says what is lost, output sends that before new data
// while the congestion window is above the pipe. Of RFC 6675, IsLost() is RACK's, which knows the
// times; NextSeg()'s rule 3 has nothing left to find then.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/congestion.h"
#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr u32 duplicate_threshold = 3;
constexpr u8 reorder_persist_recoveries = 16;  // RFC 8985 section 6.2 step 4
constexpr u8 max_reorder_multiplier = 64;      // the window is an RTT at most anyway
constexpr u32 max_echo_age_ms = 60'000;

// RFC 2883 section 4: the first block says what arrived twice if it lies below the ACK or inside
// the second. False as well for numbers that were never sent, or too long ago.
bool names_duplicate(const TcpSegment& s, SequenceNumber send_max, u32 window) {
  if (s.sack_blocks == 0) return false;
  const SackBlock& b = s.sack[0];
  if (b.start >= b.end || b.end > send_max || b.start < s.acknowledgment - window) return false;
  return b.end <= s.acknowledgment ||
         (s.sack_blocks > 1 && b.start >= s.sack[1].start && b.end <= s.sack[1].end);
}

}  // namespace

// process_ack of a connection with a scoreboard. False if the segment ends here or the connection
// is gone.
bool TcpStack::process_sack(Tcb& t, const TcpSegment& s) {
  TcbCold& cold = table_.cold(t);
  Scoreboard& b = board(t);
  const SequenceNumber ack = s.acknowledgment;
  const bool advanced = ack > t.send_unacknowledged;
  const u32 acked = advanced ? ack - t.send_unacknowledged : 0;
  const u32 flight_before = t.in_flight();
  const u32 lost_before = b.lost_bytes();
  update_send_window(t, s);

  Delivery d{.now_us = now_us_, .min_rtt_us = cold.min_rtt_us, .highest_before = b.highest()};
  const u32 echo_age_ms = timestamp_now(t) - s.timestamp_echo;
  if (t.has(flag_timestamps) && echo_age_ms < max_echo_age_ms) {
    d.has_echo = true;
    d.echo_age_us = echo_age_ms * 1'000;
  }
  if (advanced) b.acknowledge(ack, d);
  for (const SackBlock& block : s.blocks())
    if (block.start < block.end && block.end <= t.send_max) b.sack(block, d);
  if (d.found) {
    b.rack_rtt_us = now_us_ - d.sent_us;
    if (static_cast<i32>(d.sent_us - b.rack_sent_us) > 0 ||
        (d.sent_us == b.rack_sent_us && d.end > b.rack_end)) {
      b.rack_sent_us = d.sent_us;
      b.rack_end = d.end;
    }
  }
  if (d.rtt_us != 0) {
    if (cold.min_rtt_us == 0 || d.rtt_us < cold.min_rtt_us) cold.min_rtt_us = d.rtt_us;
    if (d.end >= cold.rtt_sequence) {  // one sample a round trip
      measure_rtt(t, d.rtt_us);
      cold.rtt_sequence = t.send_max;
    }
  }
  if (d.reordered) cold.reordering_seen = 1;

  const u32 fin = t.has(flag_fin_sent) && ack == t.send_end + 1 ? 1 : 0;
  if (advanced) {
    t.clear(flag_timing_rtt);
    t.send_unacknowledged = ack;
    t.send_next = t.send_max;
    t.retries = 0;  // progress ends the backoff, as in Linux
    cold.stalled_since_ms = now_ms_;
  } else if (d.sacked > 0 && t.duplicate_acks < UINT8_MAX) {
    ++t.duplicate_acks;
  }
  if (d.bytes > 0) {
    cold.silent_probes = 0;
    if (cold.fine_timer == FineTimer::probe) cold.fine_deadline_us = 0;
  }
  if (names_duplicate(s, t.send_max, 2 * t.send_window_max))
    on_needless_retransmission(t, s.sack[0]);
  if (cold.probe != Probe::none) judge_probe(t, s, !advanced);
  if (t.has(flag_in_recovery) && advanced) {
    if (t.has(flag_may_undo) && s.timestamp_echo != 0 &&
        timestamp_before(s.timestamp_echo, cold.undo_timestamp)) {
      congestion::undo_recovery(t, cold, acked);
    } else if (ack >= cold.recover) {
      congestion::leave_recovery(t, cold);
      if (cold.reorder_persist > 0) {
        --cold.reorder_persist;
        if (cold.reorder_persist == 0) cold.reorder_multiplier = 1;
      }
    }
    t.clear(flag_may_undo);
    if (!t.has(flag_in_recovery)) t.duplicate_acks = 0;
  } else if (advanced) {
    t.duplicate_acks = 0;
    if (t.has(flag_after_timeout) && ack >= cold.recover) t.clear(flag_after_timeout);
    if (!t.has(flag_ecn) || !s.has(tcp_ece))
      congestion::grow(t, cold, slow_start_growth(t, acked, d.rtt_us), flight_before, now_ms_);
  }
  // RFC 2018 section 8: what a block named and the ACK passed by was given up by the peer.
  if (b.front_sacked()) b.all_lost(true);
  detect_losses(t);
  if (t.has(flag_in_recovery) && d.bytes > 0)
    apply_prr(t, d.bytes, advanced && b.lost_bytes() <= lost_before);
  if (t.in_flight() == 0) {
    t.retransmit_deadline = 0;
    release_scoreboard(t);
  } else if (advanced) {
    start_retransmit_timer(t, RetransmitTimer::retransmit);  // RFC 6298 (5.3)
  }
  if (!advanced) return true;
  const TcbId id = t.id;
  if (acked > fin) layer_.on_acked(t.id, t.cookie, acked - fin);
  if (!alive(t, id)) return false;
  return fin == 0 || on_fin_acked(t);
}

// By HyStart++ (RFC 9406 section 4.2), which is for a connection's first slow start.
u32 TcpStack::slow_start_growth(Tcb& t, u32 acked, u32 rtt_us) {
  TcbCold& cold = table_.cold(t);
  if (cold.slow_start_threshold != congestion::max_window) return acked;
  HyStart& hystart = board(t).hystart;
  const u32 growth = hystart.on_ack(t.send_unacknowledged, t.send_max, rtt_us, acked);
  if (hystart.over()) cold.slow_start_threshold = t.congestion_window;
  return growth;
}

// A D-SACK: RFC 8985 section 6.2 step 4 widens the reordering window, once a round trip; and when
// all that recovery sent again had arrived before, nothing was lost (RFC 3708 section 2: D-SACKs of
// anything else, such as what the network doubled, do not count).
void TcpStack::on_needless_retransmission(Tcb& t, const SackBlock& named) {
  TcbCold& cold = table_.cold(t);
  Scoreboard& b = board(t);
  if (b.in_dsack_round && t.send_unacknowledged >= b.dsack_round) b.in_dsack_round = false;
  if (!b.in_dsack_round) {
    b.in_dsack_round = true;
    b.dsack_round = t.send_max;
    cold.reorder_multiplier = static_cast<u8>(
        std::min<u32>(std::max<u32>(cold.reorder_multiplier, 1) + 1, max_reorder_multiplier));
    cold.reorder_persist = reorder_persist_recoveries;
  }
  if (b.undo_retransmits == 0 || !t.has(flag_in_recovery)) return;
  if (named.start < b.undo_start || named.end > b.undo_end) return;
  if (--b.undo_retransmits == 0) congestion::undo_recovery(t, cold, 0);
}

// RFC 8985 section 6.2 step 4.
u32 TcpStack::reorder_window_us(const Tcb& t) const {
  const TcbCold& cold = table_.cold(t);
  if (cold.reordering_seen == 0 &&
      (t.has(flag_in_recovery) || t.duplicate_acks >= duplicate_threshold ||
       board(t).sacked_bytes() > (duplicate_threshold - 1) * t.mss))
    return 0;
  const u32 quarter = cold.min_rtt_us / 4;
  return std::min(std::max<u32>(cold.reorder_multiplier, 1) * quarter, cold.smoothed_rtt_us);
}

// After hours of silence a round trip may be longer than what deadlines can say; then it is looked
// at more than once.
constexpr u32 longest_wait_us = 1'000'000'000;

// RFC 8985 section 6.2 step 5.
void TcpStack::detect_losses(Tcb& t) {
  Scoreboard& b = board(t);
  TcbCold& cold = table_.cold(t);
  bool lost_more = false;
  u32 wait_us = 0;
  if (b.highest() > t.send_unacknowledged || t.has(flag_in_recovery) || b.lost_bytes() > 0)
    wait_us = b.detect_losses(now_us_, b.rack_rtt_us + reorder_window_us(t), lost_more);
  if (wait_us != 0) {
    cold.fine_timer = FineTimer::reorder;
    cold.fine_deadline_us = std::max(now_us_ + std::min(wait_us, longest_wait_us), 1u);
  } else if (cold.fine_timer == FineTimer::reorder) {
    cold.fine_deadline_us = 0;
  }
  if (!lost_more) return;
  touch(t);
  if (t.has(flag_in_recovery) || t.has(flag_after_timeout)) return;
  const u32 flight = b.pipe() + b.lost_bytes();
  start_recovery(t);
  cold.probe = Probe::none;
  cold.silent_probes = 0;
  b.prr_delivered = b.prr_out = b.undo_retransmits = 0;
  b.recover_flight = std::max<u32>(flight, t.mss);
  b.rescued = false;
}

// RFC 9937 section 6: the window follows what is delivered, down to the threshold.
void TcpStack::apply_prr(Tcb& t, u32 delivered, bool safe) {
  Scoreboard& b = board(t);
  const u32 pipe = b.pipe();
  const u32 threshold = table_.cold(t).slow_start_threshold;
  b.prr_delivered += delivered;
  u32 send = 0;
  if (pipe > threshold) {
    const u64 share = u64{b.prr_delivered} * threshold;
    const u64 due = (share + b.recover_flight - 1) / b.recover_flight;
    send = due > b.prr_out ? static_cast<u32>(due - b.prr_out) : 0;
  } else {
    const u32 owed = b.prr_delivered > b.prr_out ? b.prr_delivered - b.prr_out : 0;
    send = std::max(owed, delivered) + (safe ? t.mss : 0u);
    send = std::min(send, threshold - pipe);
  }
  if (b.prr_out == 0) send = std::max<u32>(send, t.mss);  // the first goes at once
  t.congestion_window = pipe + send;
}

// RFC 6675 section 5 (C), NextSeg() rules 1 and 4. False if the device had no room.
bool TcpStack::resend_lost(Tcb& t) {
  Scoreboard& b = board(t);
  while (b.lost_bytes() > 0) {
    const Scoreboard::Piece piece = b.next_lost(t.mss);
    if (b.pipe() + (piece.end - piece.start) > t.congestion_window) {
      t.set(flag_congestion_limited);
      return true;
    }
    // The first goes even into a window that was taken back, as Linux's.
    if (piece.start != t.send_unacknowledged && piece.end - t.send_unacknowledged > t.send_window)
      return true;
    if (!send_again(t, piece)) return false;
  }
  const bool all_sent = t.send_next == t.send_end + (t.has(flag_fin_sent) ? 1 : 0);
  if (!t.has(flag_in_recovery) || !all_sent || b.rescued) return true;
  const Scoreboard::Piece piece = b.last(t.mss);
  if (piece.empty() || b.pipe() + t.mss > t.congestion_window) return true;
  b.rescued = true;
  return send_again(t, piece);
}

bool TcpStack::send_again(Tcb& t, const Scoreboard::Piece& piece) {
  const bool fin = t.has(flag_fin_sent) && piece.end == t.send_end + 1;
  const u32 bytes = piece.end - piece.start - (fin ? 1 : 0);
  const u8 push = bytes > 0 && piece.start + bytes == t.send_end ? tcp_psh : u8{0};
  if (!emit(t, piece.start, bytes, static_cast<u8>(tcp_ack | push | (fin ? tcp_fin : 0))))
    return false;
  Scoreboard& b = board(t);
  TcbCold& cold = table_.cold(t);
  b.sent_again(piece, now_us_);
  if (t.has(flag_in_recovery)) {
    b.prr_out += piece.end - piece.start;
    const bool first = b.undo_retransmits++ == 0;
    b.undo_start = first ? piece.start : earlier_of(b.undo_start, piece.start);
    b.undo_end = first ? piece.end : later_of(b.undo_end, piece.end);
    if (cold.fine_timer == FineTimer::probe) cold.fine_deadline_us = 0;
  }
  ++cold.retransmits;
  ++counters_.segments_retransmitted;
  cold.last_send_ms = now_ms_;
  return true;
}

// New data [at, send_next) left behind data in flight. REQUIRES: flag_sack.
void TcpStack::note_sent(Tcb& t, SequenceNumber at) {
  TcbCold& cold = table_.cold(t);
  if (!t.has(flag_scoreboard)) {
    if ((t.flags & (flag_in_recovery | flag_after_timeout)) != 0) return;
    const u32 number = boards_.take();
    if (number == no_slot) return;
    cold.scoreboard = number;
    t.set(flag_scoreboard);
    t.duplicate_acks = 0;
    t.clear(flag_retransmit_due);
    cold.fine_deadline_us = 0;
    boards_[number].begin(t.send_unacknowledged, at,
                          t.has(flag_timing_rtt) ? cold.rtt_start_us : now_us_);
    t.clear(flag_timing_rtt);
    cold.rtt_sequence = t.send_unacknowledged;
  }
  Scoreboard& b = board(t);
  if (cold.fine_timer == FineTimer::probe) cold.fine_deadline_us = 0;
  // Times are kept to an eighth of the smallest reordering window.
  b.sent(t.send_next, now_us_, cold.min_rtt_us / 32);
  if (t.has(flag_in_recovery)) b.prr_out += t.send_next - at;
}

// Everything in flight counts as lost. A second timeout running, or a peer that gave up what it had
// told of, voids its blocks (RFC 2018 section 8).
void TcpStack::send_all_again(Tcb& t) {
  if (!t.has(flag_scoreboard)) {
    t.send_next = t.send_unacknowledged;
    return;
  }
  Scoreboard& b = board(t);
  b.all_lost(t.retries > 1 || b.front_sacked());
}

void TcpStack::release_scoreboard(Tcb& t) {
  boards_.give_back(table_.cold(t).scoreboard);
  t.clear(flag_scoreboard);
}

}  // namespace cob::net
