// TIME_WAIT: RFC 9293 sections 3.6.1 and 3.10.7.4, reuse from both ends by RFC 6191.
// Model: the TCB becomes a TimeWaitEntry; segments to it are answered from the entry alone.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/tcp_stack.h"

namespace cob::net {

void TcpStack::enter_time_wait(Tcb& t) {
  if (t.has(flag_ack_now) || t.has(flag_ack_soft)) emit(t, t.send_max, 0, tcp_ack);
  TimeWaitEntry e{.key = t.key,
                  .hash = table_.hash(t.key),
                  .send_next = t.send_max,
                  .receive_next = t.receive_next,
                  .receive_window = t.receive_edge - t.receive_next,
                  .timestamp_recent = t.timestamp_recent,
                  .timestamp_sent = timestamp_now(t),
                  .timestamp_offset = t.timestamp_offset,
                  .route = t.route,
                  .timestamps = t.has(flag_timestamps),
                  .window_scale = t.has(flag_window_scaling) ? receive_window_scale : u8{0}};
  finish(t);
  // The layer may have opened the 4-tuple anew from its callback; then the past is not waited for.
  if (table_.find(e.key, e.hash) != nullptr) return;
  time_wait_.insert(e, now_ms_);
  quiet_until_ = std::min(quiet_until_, now_ + Duration::milliseconds(time_wait_ms + 1'000));
}

// RFC 6191 from the side that connects: a SYN whose timestamp is newer than all we sent is accepted
// by the peer's TIME_WAIT, and its acknowledgments cannot be mistaken for the old incarnation's.
bool TcpStack::reusable(const TimeWaitEntry& e, u32 now_ms) const {
  return e.timestamps && static_cast<i32>(now_ms + e.timestamp_offset - e.timestamp_sent) > 0;
}

// RFC 6191 section 2, steps 1 to 3.
bool TcpStack::may_replace(const TimeWaitEntry& old, const TcpSegment& s) const {
  if ((s.flags & (tcp_syn | tcp_ack | tcp_rst)) != tcp_syn) return false;
  if (old.timestamps && s.has_timestamps && s.timestamp_value != old.timestamp_recent)
    return timestamp_before(old.timestamp_recent, s.timestamp_value);
  return s.sequence > old.receive_next;
}

// RFC 9293 section 3.10.7.4 for TIME_WAIT: the only thing that should come is the peer's FIN again.
void TcpStack::on_time_wait_segment(TimeWaitEntry& e, const TcpSegment& s) {
  if (s.has(tcp_rst)) {
    if (s.sequence == e.receive_next) time_wait_.erase(e);
    return;
  }
  const bool paws =
      e.timestamps && s.has_timestamps && timestamp_before(s.timestamp_value, e.timestamp_recent);
  if (!paws && s.length() == 0 && s.sequence == e.receive_next) return;
  if (s.has(tcp_fin) && !paws && s.sequence + s.length() == e.receive_next)
    time_wait_.restart(e, now_ms_);
  if (s.length() == 0 || s.has(tcp_syn)) {
    if (e.last_answer_ms != 0 && now_ms_ - e.last_answer_ms < answer_interval_ms) return;
    e.last_answer_ms = deadline_in(0);
  }
  if (e.timestamps) e.timestamp_sent = now_ms_ + e.timestamp_offset;
  transmit({.key = e.key,
            .route = e.route,
            .sequence = e.send_next,
            .acknowledgment = e.receive_next,
            .window = static_cast<u16>(std::min<u32>(e.receive_window >> e.window_scale, 0xffff)),
            .flags = tcp_ack,
            .timestamps = e.timestamps,
            .timestamp_value = now_ms_ + e.timestamp_offset,
            .timestamp_echo = e.timestamp_recent},
           nullptr, 0, 0);
}

}  // namespace cob::net
