// When to acknowledge: delayed ACKs (RFC 1122 section 4.2.3.2, RFC 5681 section 4.2), answers to
// what is not acceptable (RFC 9293 section 3.10.7.4) and challenges (RFC 5961), each at a bounded
// rate.
// Model: flag_ack_now leaves at the next flush; flag_ack_soft after soft_ack_delay, flag-less
// ack_deadline after 40 ms, unless a segment carries it before.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr u32 challenge_acks_per_second = 1000;  // of the whole stack (RFC 5961 section 7)
constexpr u32 delayed_ack_ms = 40;
// While quick_acks last, a segment this large is acknowledged at once.
constexpr u32 quick_ack_segment_bytes = 1'400;

}  // namespace

void TcpStack::answer_unacceptable(Tcb& t, const TcpSegment& s) {
  if (s.has(tcp_rst)) return;
  TcbCold& cold = table_.cold(t);
  // RFC 7413 section 4.2.2: the SYN again, without the data that was taken from the first.
  if ((cold.fast_open & fast_open_early) != 0 && (s.flags & (tcp_syn | tcp_ack)) == tcp_syn &&
      s.sequence == cold.initial_receive)
    return repeat_syn(t);
  // What fills no sequence space may be the other end of an ACK loop; data and FIN are sent again.
  if (s.length() == 0 || s.has(tcp_syn)) {
    if (cold.last_answer_ms != 0 && now_ms_ - cold.last_answer_ms < answer_interval_ms) return;
    cold.last_answer_ms = deadline_in(0);
  }
  report_duplicate(t, s);
}

// RFC 2883 section 4: a duplicate is told of once, and at once, so that each is.
void TcpStack::report_duplicate(Tcb& t, const TcpSegment& s) {
  t.set(flag_ack_now);
  const SackBlock duplicate{s.sequence, s.sequence + static_cast<u32>(s.payload.size())};
  if (!t.has(flag_sack) || s.has(tcp_syn) || duplicate.start >= duplicate.end ||
      duplicate.end > t.receive_next)
    return;
  const TcbCold& cold = table_.cold(t);
  if (cold.bytes_received < u32{1} << 31 && duplicate.start <= cold.initial_receive)
    return;  // of another connection: here nothing came before the SYN
  emit_ack(t, &duplicate);
}

// RFC 5961 section 7: bounded over all connections, and the bound not guessable.
bool TcpStack::take_challenge_token() {
  const u32 second = static_cast<u32>(now_tick_ / 1000);
  if (second != challenge_second_) {
    challenge_second_ = second;
    random_ = siphash(secret_, second, random_);
    challenge_tokens_ =
        challenge_acks_per_second / 2 + static_cast<u32>(random_ % challenge_acks_per_second);
  }
  if (challenge_tokens_ == 0) return false;
  --challenge_tokens_;
  return true;
}

void TcpStack::challenge_ack(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  if (cold.last_answer_ms != 0 && now_ms_ - cold.last_answer_ms < answer_interval_ms) return;
  if (!take_challenge_token()) return;
  cold.last_answer_ms = deadline_in(0);
  ++counters_.challenge_acks;
  emit(t, t.send_max, 0, tcp_ack);
}

void TcpStack::ack_soon(Tcb& t) {
  if (t.has(flag_ack_soft)) return;
  if (soft_ack_tail_ - soft_ack_head_ == soft_ack_capacity) return t.set(flag_ack_now);
  t.set(flag_ack_soft);
  soft_acks_[soft_ack_tail_++ % soft_ack_capacity] = {t.id, now_ + soft_ack_delay};
}

void TcpStack::poll_soft_acks() {
  for (; soft_ack_head_ != soft_ack_tail_; ++soft_ack_head_) {
    const SoftAck& a = soft_acks_[soft_ack_head_ % soft_ack_capacity];
    Tcb* t = table_.get(a.tcb);
    if (t == nullptr || !t->has(flag_ack_soft)) continue;  // it rode on another segment
    if (a.deadline > now_) return;
    t->set(flag_ack_now);
    touch(*t);
  }
}

// RFC 1122 section 4.2.3.2, RFC 5681 section 4.2: at least every second full segment, at most 40 ms
// late; and before a peer whose segments are as large as the window waits for it.
void TcpStack::schedule_ack(Tcb& t, u32 payload_bytes) {
  if (payload_bytes > t.receive_mss) t.receive_mss = static_cast<u16>(payload_bytes);
  const u32 unanswered = t.receive_next - t.last_ack_sent;
  if (unanswered > t.receive_mss || unanswered >= t.receive_buffer / 2) return t.set(flag_ack_now);
  if (t.quick_acks > 0) {
    --t.quick_acks;
    if (payload_bytes >= std::min<u32>(quick_ack_segment_bytes, t.mss)) return t.set(flag_ack_now);
    return ack_soon(t);
  }
  if (t.ack_deadline == 0) t.ack_deadline = deadline_in(delayed_ack_ms);
}

}  // namespace cob::net
