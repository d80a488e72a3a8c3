// Birth and death of connections, and the calls of the socket layer: RFC 9293 section 3.10.1 to
// 3.10.6; ISN by RFC 6528.
// Model: a call changes the TCB and marks it; segments leave at the next poll, but for the RST of
// abort(). Calls with a stale id do nothing.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr u16 min_mss = 88;  // Linux TCP_MIN_MSS

}  // namespace

Tcb* TcpStack::create_tcb(const FlowKey& key, Route route, u16 max_segment_bytes) {
  Tcb* t = table_.allocate(key);
  if (t == nullptr) return nullptr;
  TcbCold& cold = table_.cold(*t);
  t->route = route;
  t->receive_buffer = options_.receive_window_bytes;
  cold.retransmit_timeout_ms = first_rto_ms;
  cold.reassembly_head = no_slot;
  cold.listener = no_slot;
  cold.advertised_mss = own_mss(route, key.remote().address.is_ipv6(), max_segment_bytes);
  cold.last_send_ms = now_ms_;
  cold.congestion = options_.congestion;
  if (others_ != nullptr && route.is_uplink()) others_->on_flow(key.local(), key.remote(), true);
  t->mss = t->receive_mss = std::min<u16>(536, cold.advertised_mss);
  return t;
}

// What a SYN announces; `most` is the user's bound, 0: none.
u16 TcpStack::own_mss(Route route, bool ipv6, u16 most) const {
  const u16 fits = route_mss(route, ipv6);
  return most == 0 ? fits : std::min(fits, std::max(most, min_mss));
}

// RFC 6528: a clock (64 ns a step, as Linux) plus a keyed hash of the 4-tuple. Its other half
// offsets the timestamps (RFC 7323 section 7.1), so that they too go on rising over incarnations of
// one 4-tuple.
void TcpStack::choose_initial_sequence(Tcb& t) {
  const u64 hash = siphash(secret_, address_words(t.key), t.key.ports());
  t.timestamp_offset = static_cast<u32>(hash >> 32);
  start_sequence(t, {static_cast<u32>(hash) + static_cast<u32>(now_.ns >> 6)});
}

void TcpStack::start_sequence(Tcb& t, SequenceNumber initial) {
  TcbCold& cold = table_.cold(t);
  cold.initial_send = cold.recover = initial;
  t.send_unacknowledged = t.send_next = t.send_max = initial;
  t.send_end = t.small_segment_end = initial + 1;
}

void TcpStack::forget(Tcb& t) {
  wheel_.disarm(table_.slot_of(t));
  TcbCold& cold = table_.cold(t);
  if (!ReassemblyPool::empty(cold)) reassembly_.clear(cold);
  if (t.has(flag_scoreboard)) release_scoreboard(t);
  if ((cold.fast_open & fast_open_early) != 0) [[unlikely]]
    end_early(t, false);
  unlink_child(t);
  if (others_ != nullptr && t.route.is_uplink())
    others_->on_flow(t.key.local(), t.key.remote(), false);
  table_.release(t);
}

void TcpStack::tell_flows() {
  cookies_end_ = latest_ + syn_cookie_life;  // groups moved here with what others promised
  if (others_ == nullptr) return;
  for (u32 slot = 0; slot < table_.slots_touched(); ++slot) {
    const Tcb& t = table_.at(slot);
    if (t.id != no_tcb && t.route.is_uplink())
      others_->on_flow(t.key.local(), t.key.remote(), true);
  }
}

bool TcpStack::any_flow(Port local, const FlowPredicate& wanted) const {
  for (u32 slot = 0; slot < table_.slots_touched(); ++slot) {
    const Tcb& t = table_.at(slot);
    if (t.id != no_tcb && t.key.local_port == local.value && t.route.is_uplink() &&
        wanted(t.key.local(), t.key.remote()))
      return true;
  }
  return false;
}

void TcpStack::fail(Tcb& t, int error) {
  const TcbId id = t.id;
  const u64 cookie = t.cookie;
  const bool announced = t.has(flag_announced);
  forget(t);
  if (announced) layer_.on_error(id, cookie, error);
}

void TcpStack::finish(Tcb& t) {
  const TcbId id = t.id;
  const u64 cookie = t.cookie;
  const bool announced = t.has(flag_announced);
  forget(t);
  if (announced) layer_.on_closed(id, cookie);
}

Result<TcbId> TcpStack::connect(const ConnectOptions& o) {
  set_now(latest_);
  if (o.local.port.value == 0 || o.remote.port.value == 0)
    return Error::of(EADDRNOTAVAIL, "connect: port 0");
  if (!is_local(o.local.address, o.route) ||
      o.local.address.is_ipv6() != o.remote.address.is_ipv6())
    return Error::of(EADDRNOTAVAIL, "connect: local");
  if (o.route.is_uplink() ? !has_route(o.remote.address) : !is_local(o.remote.address, o.route))
    return Error::of(ENETUNREACH, "connect");
  const FlowKey key = FlowKey::of(o.local, o.remote);
  const u32 hash = table_.hash(key);
  if (table_.find(key, hash) != nullptr) return Error::of(EADDRINUSE, "connect");
  TimeWaitEntry* old = time_wait_.find(key, hash);
  if (old != nullptr && !reusable(*old, now_ms_))
    return Error::of(EADDRINUSE, "connect: TIME_WAIT");
  Tcb* t = create_tcb(key, o.route, o.max_segment_bytes);
  if (t == nullptr) return Error::of(ENOBUFS, "connect: connection table full");
  choose_initial_sequence(*t);
  if (old != nullptr) {
    const SequenceNumber beyond = old->send_next + 65'537;
    if (table_.cold(*t).initial_send < beyond) start_sequence(*t, beyond);
    time_wait_.erase(*old);
  }
  t->state = TcpState::syn_sent;
  t->cookie = o.cookie;
  if (o.fast_open) table_.cold(*t).fast_open = fast_open_asked;
  t->set(flag_announced);
  ++counters_.active_opens;
  touch(*t);
  return t->id;
}

void TcpStack::set_cookie(TcbId id, u64 cookie) {
  if (Tcb* t = table_.get(id)) t->cookie = cookie;
}

void TcpStack::send_available(TcbId id, std::size_t bytes) {
  Tcb* t = table_.get(id);
  if (t == nullptr || t->has(flag_fin_queued)) return;
  VERIFY(bytes <= max_send_buffer &&
         t->send_end - t->send_unacknowledged + bytes <= max_send_buffer);
  t->send_end += static_cast<u32>(bytes);
  touch(*t);
}

void TcpStack::receive_consumed(TcbId id, std::size_t bytes) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  t->unread -= static_cast<u32>(std::min<std::size_t>(bytes, t->unread));
  t->set(flag_consumed);
  touch(*t);
}

void TcpStack::set_receive_buffer(TcbId id, u32 bytes) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  t->receive_buffer = std::clamp<u32>(bytes, 1, most_receive_window);
  t->set(flag_consumed);
  touch(*t);
}

void TcpStack::set_no_delay(TcbId id, bool on) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  t->assign(flag_no_delay, on);
  if (on) touch(*t);
}

void TcpStack::set_cork(TcbId id, bool on) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  t->assign(flag_cork, on);
  t->clear(flag_cork_expired);
  if (t->timer == RetransmitTimer::cork) {
    t->timer = RetransmitTimer::retransmit;
    t->retransmit_deadline = 0;
  }
  touch(*t);
}

void TcpStack::set_keep_alive(TcbId id, bool on, Duration idle, Duration interval, u32 probes) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  set_now(latest_);
  TcbCold& cold = table_.cold(*t);
  const auto ms = [](Duration d) {
    return static_cast<u32>(std::clamp<i64>(d.to_ms(), 1, 32'767'000));  // Linux MAX_TCP_KEEPIDLE
  };
  t->assign(flag_keep_alive, on);
  cold.keep_alive_idle_ms = ms(idle);
  cold.keep_alive_interval_ms = ms(interval);
  cold.keep_alive_probes = static_cast<u8>(std::min(probes, 127u));
  cold.keep_alive_sent = 0;
  cold.last_receive_ms = now_ms_;
  const bool lingering = t->state == TcpState::fin_wait_2 && t->has(flag_closed);
  if (lingering || t->state < TcpState::established) return;
  t->idle_deadline = on ? deadline_in(cold.keep_alive_idle_ms) : 0;
  touch(*t);
}

void TcpStack::set_limits(TcbId id, const TcbLimits& limits) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  set_now(latest_);
  TcbCold& cold = table_.cold(*t);
  cold.syn_retries = limits.syn_retries;
  cold.fin_wait_2_s =
      limits.no_fin_wait_2 ? no_fin_wait_2 : std::min<u8>(limits.fin_wait_2_s, no_fin_wait_2 - 1);
  cold.user_timeout_ms =
      static_cast<u32>(std::clamp<i64>(limits.user_timeout.to_ms(), 0, INT32_MAX));
  // A deadline that is set may be too late now.
  if (t->retransmit_deadline == 0 || t->timer == RetransmitTimer::cork) return;
  const u32 was = t->retransmit_deadline;
  start_retransmit_timer(*t, t->timer);
  if (static_cast<i32>(was - t->retransmit_deadline) < 0) t->retransmit_deadline = was;
  touch(*t);
}

void TcpStack::set_congestion_control(TcbId id, CongestionControl control) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  TcbCold& cold = table_.cold(*t);
  if (cold.congestion == control) return;
  cold.congestion = control;
  cold.cubic = {};
  cold.window_growth = 0;
}

void TcpStack::shutdown_send(TcbId id) {
  Tcb* t = table_.get(id);
  if (t == nullptr || t->has(flag_fin_queued)) return;
  t->set(flag_fin_queued);
  if (t->state == TcpState::established) t->state = TcpState::fin_wait_1;
  if (t->state == TcpState::close_wait) t->state = TcpState::last_ack;
  touch(*t);
}

void TcpStack::shutdown_receive(TcbId id) {
  if (Tcb* t = table_.get(id)) t->set(flag_receive_shut);
}

void TcpStack::close(TcbId id) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  set_now(latest_);
  t->set(flag_closed);
  if (t->state == TcpState::syn_sent) return finish(*t);
  if (t->state == TcpState::fin_wait_2 && !wait_for_fin(*t)) return;
  shutdown_send(id);
}

// FIN_WAIT_2 of a closed connection; false: it is not borne, and the connection is gone.
bool TcpStack::wait_for_fin(Tcb& t) {
  const u8 seconds = table_.cold(t).fin_wait_2_s;
  if (seconds == no_fin_wait_2) {
    finish(t);
    return false;
  }
  t.idle_deadline = deadline_in(seconds == 0 ? fin_wait_2_ms : seconds * 1'000u);
  return true;
}

void TcpStack::abort(TcbId id) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  if (t->state != TcpState::syn_sent) emit_reset(*t);
  forget(*t);
}

void TcpStack::route_lost(Route route) {
  for (u32 slot = 0; slot < table_.slots_touched(); ++slot) {
    Tcb& t = table_.at(slot);
    if (t.id != no_tcb && t.route == route) fail(t, ECONNRESET);
  }
}

}  // namespace cob::net
