// TCP Fast Open: RFC 7413. Data in the SYN, for a client that shows by a cookie that it receives
// what is sent to its address. Model: a cookie is a keyed hash of both addresses and the day, good
// on that day and the next, at every kernel of the cob. A server's connection with early data is
// established for its layer, and in SYN_RECEIVED for the stack; SND.UNA lies behind the SYN then,
// so that the layer's bytes count from it. A client's SYN that carries data waits for it; only the
// first SYN has the option. Owned by the Stack's loop.
#include <algorithm>
#include <cstring>

#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr u64 value_domain = u64{1} << 63;  // of the secret's uses, beside ISNs and SYN cookies
constexpr u64 period_ms = 24ull * 3600 * 1000;
constexpr u32 reset_counts_ms = 60'000;  // as Linux
constexpr u32 options_beside = sizeof(TcpSynOptions) + sizeof(TcpTimestampsOption);

}  // namespace

u64 TcpStack::fast_open_value(const FlowKey& key, u64 period) const {
  return siphash(secret_, address_words(key), value_domain | period);
}

// A SYN with the option for a listener that takes early data; its connection is
// in SYN_RECEIVED.
void TcpStack::take_fast_open(Tcb& t, u32 slot, const TcpSegment& syn) {
  TcbCold& cold = table_.cold(t);
  Listener& l = listeners_[slot];
  const auto cookie = syn.fast_open_cookie();
  u64 value = 0;
  if (cookie.size() == sizeof value) std::memcpy(&value, cookie.data(), sizeof value);
  const u64 period = now_tick_ / period_ms;
  const bool current = cookie.size() == sizeof value && value == fast_open_value(t.key, period);
  const bool good = current || (period > 0 && cookie.size() == sizeof value &&
                                value == fast_open_value(t.key, period - 1));
  if (!current) cold.fast_open |= fast_open_give;
  if (!good) {
    ++(cookie.empty() ? counters_.fast_open_asked : counters_.fast_open_passive_failed);
    return;
  }
  if (now_ms_ - l.reset_early_ms >= reset_counts_ms) l.reset_early = 0;
  if (l.early + l.reset_early >= l.most_early) {
    ++counters_.fast_open_overflows;
    return;
  }
  if (!admit(t)) return;
  const ListenerId id{(l.generation << 12) | slot};
  ++l.early;
  ++counters_.fast_open_passive;
  ++counters_.passive_opens;
  cold.fast_open |= fast_open_early;
  cold.fast_open_listener = id;
  t.set(flag_announced);
  t.receive_edge = t.receive_next + std::min<u32>(t.receive_buffer, 0xffff);
  const TcbId tcb = t.id;
  layer_.on_incoming(id, tcb);
  if (!alive(t, tcb) || syn.payload.empty()) return;
  cold.fast_open |= fast_open_data_taken;
  const u32 room = t.receive_edge - t.receive_next;
  deliver(t, syn.payload.first(std::min<std::size_t>(syn.payload.size(), room)));
}

// The handshake ended, or the connection does. `reset`: by the peer, or by
// somebody who has its name.
void TcpStack::end_early(Tcb& t, bool reset) {
  TcbCold& cold = table_.cold(t);
  cold.fast_open &= static_cast<u8>(~fast_open_early);
  Listener* l = listener(cold.fast_open_listener);
  if (l == nullptr) return;
  --l->early;
  if (!reset) return;
  if (l->reset_early++ == 0) l->reset_early_ms = now_ms_;
}

// The SYN or SYN-ACK goes again, and what followed a SYN-ACK behind it.
void TcpStack::repeat_syn(Tcb& t) {
  if (t.has(flag_scoreboard)) release_scoreboard(t);
  t.send_next = table_.cold(t).initial_send;
  if (t.state == TcpState::syn_sent && t.retries == 1 &&
      (table_.cold(t).fast_open & fast_open_carried) != 0)
    fast_open_.lost({t.key.remote_address}, now_ms_);
}

// Section 4.2.2: what the layer answers need not wait for the handshake's end.
// What went with a SYN-ACK that was lost does.
bool TcpStack::output_early(Tcb& t) {
  t.send_unacknowledged = later_of(t.send_unacknowledged, table_.cold(t).initial_send + 1);
  if (t.retries == 0 && !output_data(t)) return false;
  return !t.has(flag_ack_now) || emit(t, t.send_max, 0, tcp_ack);
}

void TcpStack::answer_fast_open(const Tcb& t, SynOptions& options) {
  if ((table_.cold(t).fast_open & fast_open_give) == 0 || t.retries > 0) return;
  const u64 value = fast_open_value(t.key, now_tick_ / period_ms);
  u8 cookie[sizeof value];
  std::memcpy(cookie, &value, sizeof value);
  options.fast_open_bytes = options.fast_open.fill(cookie);
}

// ---- the client

bool TcpStack::must_wait_for_data(const Tcb& t, const TcbCold& cold) const {
  if (t.state != TcpState::syn_sent || t.retries > 0 || t.has(flag_fin_queued) ||
      t.send_end != cold.initial_send + 1)
    return false;
  const auto* server = fast_open_.find({t.key.remote_address});
  return server != nullptr && server->cookie_bytes > 0 && FastOpenCache::may_try(server, now_ms_);
}

bool TcpStack::waits_for_data(TcbId id) const {
  const Tcb* t = table_.get(id);
  if (t == nullptr) return false;
  const TcbCold& cold = table_.cold(*t);
  return (cold.fast_open & fast_open_asked) != 0 && must_wait_for_data(*t, cold);
}

// Section 4.1.3: the option of a SYN, and how many bytes it carries.
u32 TcpStack::ask_fast_open(Tcb& t, SynOptions& options) {
  TcbCold& cold = table_.cold(t);
  const auto* server = fast_open_.find({t.key.remote_address});
  if (t.retries > 0 || !FastOpenCache::may_try(server, now_ms_)) return 0;
  cold.fast_open |= fast_open_carried;
  if (server == nullptr || server->cookie_bytes == 0) {
    options.fast_open_bytes = options.fast_open.fill({});
    return 0;
  }
  options.fast_open_bytes = options.fast_open.fill(server->value());
  const u32 used = options_beside + options.fast_open_bytes;
  const u32 most = std::min(server->mss, cold.advertised_mss);
  const u32 announced = t.send_end - (cold.initial_send + 1);
  return most > used ? std::min(announced, most - used) : 0;
}

void TcpStack::on_syn_data_sent(Tcb& t, u32 bytes) {
  TcbCold& cold = table_.cold(t);
  cold.fast_open |= fast_open_with_data;
  cold.bytes_sent += bytes;
  t.send_max = cold.initial_send + 1 + bytes;
}

// A SYN-ACK for a client that asked; it is established. What the SYN carried
// and is not acknowledged goes again: send_next lies behind the SYN. False: the
// connection is gone.
bool TcpStack::on_fast_open_answer(Tcb& t, const TcpSegment& s) {
  TcbCold& cold = table_.cold(t);
  if (!s.fast_open_cookie().empty()) {
    const u32 mss = std::min<u32>(s.mss == 0 ? 536 : s.mss, cold.advertised_mss);
    fast_open_.learn({t.key.remote_address}, static_cast<u16>(mss), s.fast_open_cookie());
  }
  if ((cold.fast_open & fast_open_with_data) == 0) return true;
  const u32 taken = s.acknowledgment - t.send_unacknowledged;
  if (taken == 0) {
    ++counters_.fast_open_active_failed;
    return true;
  }
  ++counters_.fast_open_active;
  cold.fast_open |= fast_open_data_taken;
  t.send_unacknowledged = s.acknowledgment;
  t.send_next = later_of(t.send_next, s.acknowledgment);
  const TcbId id = t.id;
  layer_.on_acked(id, t.cookie, taken);
  return alive(t, id);
}

}  // namespace cob::net
