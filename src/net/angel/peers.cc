// Peers: belief in other kernels' boards; peers.h.
#include "net/angel/peers.h"

#include <algorithm>

#include "base/result.h"

namespace cob::net::angel {

Peers::Peers(KernelId self, u16 kernels, const Settings& settings)
    : settings_(settings), self_(self), records_(kernels) {
  for (Record& r : records_) fresh(r);
}

Peers::Record* Peers::record(KernelId kernel) {
  return kernel.value < records_.size() && kernel != self_ ? &records_[kernel.value] : nullptr;
}

void Peers::fresh(Record& r) const {
  r = {};
  r.window = settings_.window;
  r.pause = settings_.pause;
}

void Peers::forget(KernelId peer) {
  answered(peer, 0, {});
  if (Record* r = record(peer)) fresh(*r);
}

void Peers::distrust(Record& r, Time now) const {
  r.window = std::max(r.window / 2, u32{1});
  r.outstanding = 0;
  r.served_in_row = 0;
  r.paused_until = now + r.pause;
  r.pause = std::min(r.pause * 2, settings_.pause_max);
}

// What its board cannot show yet is forgotten once it can. A false time of writing frees only the
// bookkeeping of this: window and share hold on.
u32 Peers::unseen(const Peer& peer, Time now) {
  Record* r = record(peer.kernel);
  if (r == nullptr) return 0;
  const Time written{static_cast<i64>(peer.load.published_ns)};
  if (written > r->last_sent + settings_.transit && written <= now) r->unseen = 0;
  return r->unseen;
}

u32 Peers::share(Time now) const {
  const auto number = static_cast<u64>(now.ns / settings_.share_period.ns);
  const u32 sent = number == share_number_ ? sent_in_period_ : 0;
  return std::max(settings_.share_burst, 2 * ((sent + listening_peers_) / listening_peers_));
}

bool Peers::eligible(const Peer& peer, Time now) {
  Record* r = record(peer.kernel);
  if (r == nullptr || !peer.listens || peer.load.draining != 0 || suspected(peer, now))
    return false;
  if (now < r->paused_until) return false;
  if (r->outstanding > 0 && now - r->progress > settings_.patience) {
    distrust(*r, now);
    return false;
  }
  if (r->outstanding >= r->window) return false;
  const auto number = static_cast<u64>(now.ns / settings_.share_period.ns);
  return r->share_number != number || r->sent_in_period < share(now);
}

bool Peers::suspected(const Peer& peer, Time now) {
  Record* r = record(peer.kernel);
  if (r == nullptr || !settings_.judge) return false;
  const auto older = [&](u64 since_ns) {
    const Time since{static_cast<i64>(since_ns)};
    return since.ns > 0 && since < now && now - since > settings_.hung_after;
  };
  if (older(peer.unconsumed_since_ns) || older(peer.load.input_since_ns)) {
    r->hung = true;
    r->well_since = Time::never();
  } else if (r->hung) {
    r->well_since = std::min(r->well_since, now);
    r->hung = now - r->well_since <= settings_.hung_after;
  }
  return r->hung;
}

i32 Peers::free_threads(const Peer& peer, Time now) {
  return angel::free_threads(peer.listener) - static_cast<i32>(unseen(peer, now));
}

u32 Peers::backlog(const Peer& peer, Time now) {
  return peer.listener.queued + peer.listener.coming + std::min(peer.load.runnable, u32{65'535}) +
         unseen(peer, now);
}

void Peers::sent(KernelId to, u32 listening_peers, Time now) {
  Record* r = record(to);
  VERIFY(r != nullptr);
  const auto number = static_cast<u64>(now.ns / settings_.share_period.ns);
  if (number != share_number_) sent_in_period_ = 0;
  if (number != r->share_number) r->sent_in_period = 0;
  share_number_ = r->share_number = number;
  ++sent_in_period_;
  ++r->sent_in_period;
  listening_peers_ = std::max(listening_peers, u32{1});
  if (r->outstanding++ == 0) r->progress = now;
  ++r->unseen;
  r->last_sent = now;
}

void Peers::settled(KernelId by, Outcome outcome, Time now) {
  Record* r = record(by);
  if (r == nullptr || r->outstanding == 0) return;  // written off before
  --r->outstanding;
  r->progress = now;
  if (outcome == Outcome::failed) return distrust(*r, now);
  r->window = std::min(r->window + 1, settings_.window_max);
  if (++r->served_in_row >= settings_.window_max) r->pause = settings_.pause;
}

bool Peers::may_ask(KernelId peer, Time now) {
  Record* r = record(peer);
  if (r != nullptr && r->asking && now - r->asked_at > settings_.patience) answered(peer, 0, now);
  return r != nullptr && !r->asking && now >= r->ask_after;
}

i32 Peers::awaited(Time now) {
  for (u16 k = 0; awaited_ > 0 && k < records_.size(); ++k) may_ask(KernelId(k), now);
  return awaited_;
}

void Peers::asked(KernelId peer, u32 connections, Time now) {
  if (Record* r = record(peer)) {
    r->asking = true;
    r->asked_at = now;
    r->asked_for = static_cast<i32>(connections);
    awaited_ += r->asked_for;
  }
}

void Peers::answered(KernelId peer, u32 got, Time now) {
  Record* r = record(peer);
  if (r == nullptr || !r->asking) return;
  r->asking = false;
  awaited_ -= r->asked_for;
  if (got > 0) {
    r->refusals = 0;
    return;
  }
  constexpr u32 most_doublings = 20;
  const u32 forgiven = std::min(++r->refusals, settings_.refusals_forgiven);
  const u32 doublings = std::min(r->refusals - forgiven, most_doublings);
  r->ask_after =
      now + std::min(settings_.refused_pause * (i64{1} << doublings), settings_.refused_pause_max);
}

}  // namespace cob::net::angel
