// What tools see of the stack: one connection as numbers, and its tables piece by piece.
// Model: a table is walked by place, so a piece costs what it looks at and no more, and nothing is
// held between two pieces. tcp(7) TCP_INFO, ss(8).
// Owned by one kernel's loop.
#include <algorithm>

#include "net/stack/table_walk.h"
#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

WaitKind wait_kind(const Tcb& t, bool idle_first) {
  if (idle_first)
    return t.state == TcpState::fin_wait_2 ? WaitKind::fin_wait_2 : WaitKind::keep_alive;
  switch (t.timer) {
    case RetransmitTimer::persist:
      return WaitKind::persist;
    case RetransmitTimer::cork:
      return WaitKind::cork;
    case RetransmitTimer::retransmit:
      break;
  }
  return WaitKind::retransmit;
}

// An idle stack's own clock stands still; the latest instant that it heard of does not.
u32 ms_of(Time now) { return static_cast<u32>(now.ns / 1'000'000); }
u32 ms_left(u32 deadline, Time now) {
  return static_cast<u32>(std::max(static_cast<i32>(deadline - ms_of(now)), 0));
}

}  // namespace

TcbInfo TcpStack::describe(const Tcb& t) const {
  const TcbCold& cold = table_.cold(t);
  const SequenceNumber data_start = later_of(t.send_unacknowledged, cold.initial_send + 1);
  const SequenceNumber sent = std::min(later_of(t.send_max, data_start), t.send_end);
  TcbInfo info{.state = t.state,
               .local = t.key.local(),
               .remote = t.key.remote(),
               .route = t.route,
               .congestion_control = cold.congestion,
               .sack = t.has(flag_sack),
               .ecn = t.has(flag_ecn),
               .syn_data = (cold.fast_open & fast_open_data_taken) != 0,
               .mss = t.mss,
               .congestion_window_bytes = t.congestion_window,
               .slow_start_threshold_bytes = cold.slow_start_threshold,
               .smoothed_rtt_us = cold.smoothed_rtt_us,
               .rtt_variance_us = cold.rtt_variance_us,
               .retransmit_timeout_us = retransmit_interval_ms(t) * 1'000,
               .send_window_bytes = t.send_window,
               .receive_window_bytes = t.receive_edge - t.receive_next,
               .retransmits = cold.retransmits,
               .bytes_sent = cold.bytes_sent,
               .bytes_received = cold.bytes_received,
               .unacked_bytes = data_start < sent ? sent - data_start : 0,
               .unsent_bytes = t.send_end - sent,
               .retries = t.retries,
               .congestion_state = t.has(flag_in_recovery)     ? CongestionState::recovery
                                   : t.has(flag_after_timeout) ? CongestionState::loss
                                                               : CongestionState::open,
               .timestamps = t.has(flag_timestamps),
               .window_scaling = t.has(flag_window_scaling),
               .send_scale = t.send_scale};
  const auto left = [this](u32 deadline) { return ms_left(deadline, latest_); };
  const bool idle_first =
      t.idle_deadline != 0 &&
      (t.retransmit_deadline == 0 || left(t.idle_deadline) < left(t.retransmit_deadline));
  if (idle_first || t.retransmit_deadline != 0) {
    info.waits_for = wait_kind(t, idle_first);
    info.wait_ms = left(idle_first ? t.idle_deadline : t.retransmit_deadline);
  }
  return info;
}

Result<TcbInfo> TcpStack::info(TcbId id) const {
  const Tcb* t = table_.get(id);
  if (t == nullptr) return Error::of(EINVAL, "info: no such connection");
  return describe(*t);
}

u32 TcpStack::congestion_window(TcbId id) const {
  const Tcb* t = table_.get(id);
  return t == nullptr ? 0 : t->congestion_window;
}

std::size_t TcpStack::list_connections(u32& cursor, u32 places, std::span<TcbEntry> out) const {
  std::size_t filled = 0;
  walk(cursor, places, table_.slots_touched(), [&](u32 place) {
    const Tcb& t = table_.at(place);
    if (t.id == no_tcb) return true;
    if (filled == out.size()) return false;
    out[filled++] = {.id = t.id, .cookie = t.cookie, .info = describe(t)};
    return true;
  });
  return filled;
}

std::size_t TcpStack::list_time_wait(u32& cursor, u32 places, std::span<TimeWaitInfo> out) const {
  std::size_t filled = 0;
  walk(cursor, places, time_wait_.slots_touched(), [&](u32 place) {
    const TimeWaitEntry& e = time_wait_.at(place);
    if (!TimeWaitTable::in_use(e)) return true;
    if (filled == out.size()) return false;
    out[filled++] = {.local = e.key.local(),
                     .remote = e.key.remote(),
                     .route = e.route,
                     .left_ms = ms_left(e.expires_ms, latest_)};
    return true;
  });
  return filled;
}

// IPv4's, and behind them IPv6's.
std::optional<NeighbourInfo> TcpStack::neighbour_at(u32 place) const {
  if (place < ArpCache::places) return arp_.at(place, ms_of(latest_));
  const auto entry = neighbours_.at(place - ArpCache::places, ms_of(latest_));
  if (!entry) return std::nullopt;
  return NeighbourInfo{.address = {},
                       .ipv6 = entry->address,
                       .mac = entry->mac,
                       .answered = entry->state != NeighbourCache::State::incomplete,
                       .fresh = entry->state == NeighbourCache::State::reachable,
                       .heard_ms = entry->heard_ms};
}

std::size_t TcpStack::list_neighbours(u32& cursor, u32 places, std::span<NeighbourInfo> out) const {
  std::size_t filled = 0;
  walk(cursor, places, ArpCache::places + NeighbourCache::places, [&](u32 place) {
    const auto entry = neighbour_at(place);
    if (!entry) return true;
    if (filled == out.size()) return false;
    out[filled++] = *entry;
    return true;
  });
  return filled;
}

}  // namespace cob::net
