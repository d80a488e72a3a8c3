// TIME_WAIT: RFC 9293 sections 3.6.1 and 3.10.7.4, reuse from both ends by RFC 6191.
// Model: the TCB becomes a TimeWaitEntry; segments to it are answered from the entry alone. One of
// the uplink goes to another kernel with its flow group (docs/network.md), as a MovedTimeWait: all
// kernels behind an uplink read one clock, so its timestamps stay what they are.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/table_walk.h"
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

std::size_t TcpStack::take_time_wait(u32& cursor, u32 places, const FlowPredicate& leaves,
                                     std::span<MovedTimeWait> out) {
  set_now(latest_);
  std::size_t taken = 0;
  walk(cursor, places, time_wait_.slots_touched(), [&](u32 place) {
    TimeWaitEntry& e = time_wait_.at(place);
    const i32 left_ms = static_cast<i32>(e.expires_ms - now_ms_);
    if (!TimeWaitTable::in_use(e) || !e.route.is_uplink() || left_ms <= 0) return true;
    if (!leaves(e.key.local(), e.key.remote())) return true;
    if (taken == out.size()) return false;
    out[taken++] = {.local = e.key.local(),
                    .remote = e.key.remote(),
                    .send_next = e.send_next.value,
                    .receive_next = e.receive_next.value,
                    .receive_window_bytes = e.receive_window,
                    .timestamp_recent = e.timestamp_recent,
                    .timestamp_sent = e.timestamp_sent,
                    .timestamp_offset = e.timestamp_offset,
                    .left_ms = static_cast<u32>(left_ms),
                    .timestamps = e.timestamps,
                    .window_scale = e.window_scale};
    time_wait_.erase(e);
    return true;
  });
  return taken;
}

Result<void> TcpStack::put_time_wait(const MovedTimeWait& m) {
  set_now(latest_);
  const Ipv4Address from = m.remote.address;
  const bool ipv6 = from.is_ipv6();
  if (m.local.port.value == 0 || m.remote.port.value == 0 || from.is_any() || from.is_multicast() ||
      from == ipv6_elsewhere || (!ipv6 && is_broadcast(from)) ||
      m.local.address.is_ipv6() != ipv6 || !is_local(m.local.address, Route::uplink()))
    return Error::of(EPROTO, "a TIME_WAIT entry: its ends");
  if (m.left_ms == 0 || m.left_ms > time_wait_ms || m.window_scale > max_window_scale ||
      m.receive_window_bytes > most_receive_window + 0xffff)
    return Error::of(EPROTO, "a TIME_WAIT entry: its numbers");
  const FlowKey key = FlowKey::of(m.local, m.remote);
  const u32 hash = table_.hash(key);
  if (table_.find(key, hash) != nullptr || time_wait_.find(key, hash) != nullptr)
    return Error::of(EADDRINUSE, "a TIME_WAIT entry: a connection between the same ends");
  if (time_wait_.size() >= time_wait_.capacity()) return Error::of(ENOBUFS, "TIME_WAIT entries");
  time_wait_.insert({.key = key,
                     .hash = hash,
                     .send_next = {m.send_next},
                     .receive_next = {m.receive_next},
                     .receive_window = m.receive_window_bytes,
                     .timestamp_recent = m.timestamp_recent,
                     .timestamp_sent = m.timestamp_sent,
                     .timestamp_offset = m.timestamp_offset,
                     .route = Route::uplink(),
                     .timestamps = m.timestamps,
                     .window_scale = m.window_scale},
                    now_ms_, m.left_ms);
  quiet_until_ = std::min(quiet_until_, now_ + Duration::milliseconds(m.left_ms + 1'000));
  return {};
}

void TcpStack::drop_time_wait(Endpoint local, Endpoint remote) {
  const FlowKey key = FlowKey::of(local, remote);
  if (TimeWaitEntry* e = time_wait_.find(key, table_.hash(key))) time_wait_.erase(*e);
}

}  // namespace cob::net
