// Timers: retransmission by RFC 6298, zero-window probes by RFC 9293 section 3.8.6.1, keep-alive by
// RFC 1122 section 4.2.3.6, FIN_WAIT_2 bounded as Linux bounds its orphans.
// Model: a TCB keeps three deadlines in milliseconds, and with a scoreboard one in microseconds;
// the wheel holds the earliest, and is not told when a deadline moves later. Owned by the Stack's
// loop.
#include <algorithm>

#include "net/stack/congestion.h"
#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr u32 cork_ms = 200;       // tcp(7), TCP_CORK
constexpr u8 syn_retries = 6;      // Linux tcp_syn_retries
constexpr u8 syn_ack_retries = 5;  // Linux tcp_synack_retries
constexpr u8 data_retries = 15;    // Linux tcp_retries2
constexpr u8 orphan_retries = 8;   // Linux tcp_orphan_retries of a closed socket

}  // namespace

void TcpStack::sync_timer(Tcb& t) {
  i32 earliest = INT32_MAX;
  // One by one: read together, the deadlines just written would stall on store forwarding.
  const auto consider = [&](const u32& deadline) {
    const u32 d = *const_cast<const volatile u32*>(&deadline);
    if (d != 0) earliest = std::min(earliest, static_cast<i32>(d - now_ms_));
  };
  consider(t.retransmit_deadline);
  consider(t.ack_deadline);
  consider(t.idle_deadline);
  u64 tick = earliest == INT32_MAX
                 ? TimerWheel::never
                 : (now_tick_ + static_cast<u64>(std::max(earliest, 1))) * wheel_ticks_per_ms;
  if (t.has(flag_scoreboard) && table_.cold(t).fine_deadline_us != 0) {
    const i32 left_us = static_cast<i32>(table_.cold(t).fine_deadline_us - now_us_);
    const u64 due_ns = static_cast<u64>(now_.ns) + static_cast<u64>(std::max(left_us, 1)) * 1'000;
    tick = std::min(tick, (due_ns + wheel_tick_ns - 1) / wheel_tick_ns);
  }
  if (tick == TimerWheel::never) return;
  const u32 slot = table_.slot_of(t);
  if (!wheel_.armed(slot) || tick < wheel_.due(slot)) wheel_.arm(slot, tick);
}

void TcpStack::on_timer(u32 slot) {
  Tcb& t = table_.at(slot);
  if (t.id == no_tcb) return;
  const auto due = [this](u32 deadline) {
    return deadline != 0 && static_cast<i32>(now_ms_ - deadline) >= 0;
  };
  if (due(t.ack_deadline)) {
    t.ack_deadline = 0;
    t.set(flag_ack_now);
    touch(t);
  }
  if (t.has(flag_scoreboard)) on_fine_timer(t);
  if (due(t.retransmit_deadline) && !on_retransmit_timer(t)) return;
  if (due(t.idle_deadline) && !on_idle_timer(t)) return;
  sync_timer(t);
}

u32 TcpStack::retransmit_interval_ms(const Tcb& t) const {
  const TcbCold& cold = table_.cold(t);
  const u32 shift = t.timer == RetransmitTimer::persist ? cold.persist_shift : t.retries;
  return std::min(cold.retransmit_timeout_ms << std::min(shift, 12u), max_rto_ms);
}

bool TcpStack::user_timeout_over(const TcbCold& cold) const {
  return cold.user_timeout_ms != 0 && now_ms_ - cold.stalled_since_ms >= cold.user_timeout_ms;
}

void TcpStack::start_retransmit_timer(Tcb& t, RetransmitTimer kind) {
  TcbCold& cold = table_.cold(t);
  t.timer = kind;
  u32 interval_ms = kind == RetransmitTimer::cork ? cork_ms : retransmit_interval_ms(t);
  if (cold.user_timeout_ms != 0 && kind != RetransmitTimer::cork) {
    // As Linux: the last interval is cut short (tcp_clamp_rto_to_user_timeout).
    const u32 stalled_ms = now_ms_ - cold.stalled_since_ms;
    const u32 left_ms = cold.user_timeout_ms > stalled_ms ? cold.user_timeout_ms - stalled_ms : 1;
    interval_ms = std::min(interval_ms, left_ms);
  }
  t.retransmit_deadline = deadline_in(interval_ms);
}

// False if the connection is gone.
bool TcpStack::on_retransmit_timer(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  t.retransmit_deadline = 0;
  touch(t);
  if (t.timer == RetransmitTimer::cork) {
    t.set(flag_cork_expired);
    t.timer = RetransmitTimer::retransmit;
    return true;
  }
  const bool handshake = t.state == TcpState::syn_sent || t.state == TcpState::syn_received;
  const u8 own_syn_retries = cold.syn_retries != 0 ? cold.syn_retries : syn_retries;
  const u8 limit = t.state == TcpState::syn_sent       ? own_syn_retries
                   : t.state == TcpState::syn_received ? syn_ack_retries
                   : t.has(flag_closed)                ? orphan_retries
                                                       : data_retries;
  // A user timeout takes the place of the count, but for a handshake, which both bound.
  const bool counted = handshake || cold.user_timeout_ms == 0;
  if ((counted && t.retries >= limit) || user_timeout_over(cold)) {
    fail(t, cold.soft_error != 0 ? cold.soft_error : ETIMEDOUT);
    return false;
  }
  if (t.retries < UINT8_MAX) ++t.retries;
  if (t.timer == RetransmitTimer::persist) {
    if (t.send_window > 0) {
      t.set(flag_send_forced);
      t.timer = RetransmitTimer::retransmit;
      return true;
    }
    // As Linux: an empty segment one below the window is answered with the receiver's window, and
    // changes nothing here.
    if (cold.persist_shift < 12) ++cold.persist_shift;
    start_retransmit_timer(t, RetransmitTimer::persist);
    // One that is acceptable takes the news of urgent data past the closed window (RFC 9293 section
    // 3.8.5).
    if (in_urgent_mode(t)) emit(t, t.send_max, 0, tcp_ack);
    emit(t, t.send_max - 1, 0, tcp_ack);
    return true;
  }
  t.clear(flag_timing_rtt);
  if (handshake) {
    repeat_syn(t);
  } else {
    --t.retries;  // timeout() asks whether this is the first
    congestion::timeout(t, cold);
    if (t.has(flag_ecn)) t.set(flag_cwr_due);
    cold.probe = Probe::none;
    cold.fine_deadline_us = 0;
    ++t.retries;
    t.duplicate_acks = 0;
    t.clear(flag_retransmit_due);
    send_all_again(t);  // RFC 5681: what was in flight counts as lost
  }
  start_retransmit_timer(t, RetransmitTimer::retransmit);
  return true;
}

// False if the connection is gone.
bool TcpStack::on_idle_timer(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  t.idle_deadline = 0;
  if (t.state == TcpState::fin_wait_2 && t.has(flag_closed)) {
    finish(t);
    return false;
  }
  if (!t.has(flag_keep_alive) || t.state < TcpState::established) return true;
  const u32 silent = now_ms_ - cold.last_receive_ms;
  if (silent < cold.keep_alive_idle_ms) {
    t.idle_deadline = deadline_in(cold.keep_alive_idle_ms - silent);
    return true;
  }
  t.idle_deadline = deadline_in(cold.keep_alive_interval_ms);
  if (t.in_flight() > 0) return true;  // the retransmission timer watches the peer
  const bool given_up = cold.user_timeout_ms == 0
                            ? cold.keep_alive_sent >= cold.keep_alive_probes
                            : cold.keep_alive_sent > 0 && silent >= cold.user_timeout_ms;
  if (given_up) {
    emit_reset(t);
    fail(t, cold.soft_error != 0 ? cold.soft_error : ETIMEDOUT);
    return false;
  }
  if (cold.keep_alive_sent < UINT8_MAX) ++cold.keep_alive_sent;
  emit(t, t.send_max - 1, 0, tcp_ack);
  return true;
}

// RFC 6298 section 2, with Linux's floor: the variance term is at least 200 ms.
void TcpStack::measure_rtt(Tcb& t, u32 rtt_us) {
  TcbCold& cold = table_.cold(t);
  if (rtt_us > max_rto_ms * 1000) return;
  rtt_us = std::max(rtt_us, 1u);
  if (cold.smoothed_rtt_us == 0) {
    cold.smoothed_rtt_us = rtt_us;
    cold.rtt_variance_us = rtt_us / 2;
  } else {
    const u32 difference = rtt_us > cold.smoothed_rtt_us ? rtt_us - cold.smoothed_rtt_us
                                                         : cold.smoothed_rtt_us - rtt_us;
    cold.rtt_variance_us = (3 * cold.rtt_variance_us + difference) / 4;
    cold.smoothed_rtt_us = std::max((7 * cold.smoothed_rtt_us + rtt_us) / 8, 1u);
  }
  cold.retransmit_timeout_ms = retransmit_timeout_ms(cold.smoothed_rtt_us, cold.rtt_variance_us);
}

}  // namespace cob::net
