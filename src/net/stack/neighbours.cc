// The neighbour cache. See neighbours.h; RFC 4861 sections 7.2 and 7.3.
// Owned by the Stack.
#include "net/stack/neighbours.h"

#include <algorithm>

namespace cob::net {
namespace {

u32 group_of(const Ipv6Address& a) {
  u32 sum = 0;
  for (std::size_t i = 0; i < 16; i += 4) {
    u32 word;
    std::memcpy(&word, a.bytes.data() + i, sizeof word);
    sum = (sum ^ word) * 0x9e3779b1u;
  }
  return (sum >> 26) * 4;
}

bool before(u32 a, u32 b) { return static_cast<i32>(a - b) < 0; }

}  // namespace

std::optional<NeighbourCache::Info> NeighbourCache::at(u32 place, u32 now_ms) const {
  const Entry& e = entries_[place];
  if (e.state == State::free) return std::nullopt;
  const bool old = e.state == State::reachable && now_ms - e.heard_ms >= reachable_ms_;
  return Info{e.address, e.mac, old ? State::stale : e.state, now_ms - e.heard_ms};
}

NeighbourCache::Entry* NeighbourCache::find(const Ipv6Address& address) {
  for (u32 i = group_of(address), end = i + 4; i < end; ++i)
    if (entries_[i].state != State::free && entries_[i].address == address) return &entries_[i];
  return nullptr;
}

void NeighbourCache::set_state(Entry& e, State state) {
  timed_ += (timed(state) ? 1u : 0u) - (timed(e.state) ? 1u : 0u);
  e.state = state;
}

// REQUIRES: its state is set, and is one that is timed.
void NeighbourCache::arm(Entry& e, u32 due_ms) {
  e.due_ms = due_ms;
  if (timed_ == 1 || before(due_ms, next_deadline_ms_)) next_deadline_ms_ = due_ms;
}

NeighbourCache::Entry& NeighbourCache::make_room(const Ipv6Address& address) {
  const u32 group = group_of(address);
  Entry* best = &entries_[group];
  for (u32 i = group; i < group + 4; ++i) {
    Entry& e = entries_[i];
    if (e.state == State::free) {
      best = &e;
      break;
    }
    if (before(e.used_ms, best->used_ms)) best = &e;
  }
  if (best->state == State::incomplete) parked_.drop(best->address, [](TcbId) {});
  set_state(*best, State::free);
  *best = {.address = address};
  return *best;
}

NeighbourCache::Lookup NeighbourCache::lookup(const Ipv6Address& next_hop, u32 now_ms) {
  Entry* e = find(next_hop);
  if (e == nullptr) {
    e = &make_room(next_hop);
    set_state(*e, State::incomplete);
    e->solicitations = 1;
    e->heard_ms = e->used_ms = now_ms;
    arm(*e, now_ms + retransmit_ms_);
    return {.solicit = true};
  }
  e->used_ms = now_ms;
  if (e->state == State::incomplete) return {};
  if (e->state == State::reachable && now_ms - e->heard_ms >= reachable_ms_)
    e->state = State::stale;
  if (e->state == State::stale) {
    set_state(*e, State::delay);
    e->solicitations = 0;
    arm(*e, now_ms + delay_ms);
  }
  return {.resolved = true, .mac = e->mac};
}

void NeighbourCache::heard(const Ipv6Address& address, const MacAddress& mac, bool may_create,
                           u32 now_ms, const Send& send) {
  Entry* e = find(address);
  if (e == nullptr) {
    if (!may_create) return;
    e = &make_room(address);
    e->used_ms = now_ms;
  } else if (e->state != State::incomplete && e->mac == mac) {
    return;
  }
  const bool waited = e->state == State::incomplete;
  e->mac = mac;
  e->heard_ms = now_ms;
  set_state(*e, State::stale);
  if (waited) parked_.release(address, mac, send);
}

void NeighbourCache::advertised(const NeighborAdvertisement& a, u32 now_ms, const Send& send) {
  Entry* e = find(a.target);
  if (e == nullptr) return;
  if (e->state == State::incomplete) {
    if (!a.target_mac) return;
    e->mac = *a.target_mac;
    e->heard_ms = now_ms;
    set_state(*e, a.solicited ? State::reachable : State::stale);
    return parked_.release(a.target, e->mac, send);
  }
  const bool other = a.target_mac && *a.target_mac != e->mac;
  if (other && !a.override_cache) {
    if (e->state == State::reachable) set_state(*e, State::stale);
    return;
  }
  if (other) e->mac = *a.target_mac;
  if (a.solicited) {
    set_state(*e, State::reachable);
    e->heard_ms = now_ms;
  } else if (other) {
    set_state(*e, State::stale);
    e->heard_ms = now_ms;
  }
}

void NeighbourCache::poll(u32 now_ms, const Solicit& solicit,
                          const std::function<void(TcbId)>& failed,
                          const std::function<void(const Ipv6Address&)>& silent) {
  if (timed_ == 0 || before(now_ms, next_deadline_ms_)) return;
  next_deadline_ms_ = now_ms + delay_ms;
  for (Entry& e : entries_) {
    if (!timed(e.state)) continue;
    if (!before(now_ms, e.due_ms)) {
      if (e.solicitations >= max_solicitations) {
        const bool waited = e.state == State::incomplete;
        const Ipv6Address address = e.address;
        set_state(e, State::free);
        silent(address);
        if (waited) parked_.drop(address, failed);
        continue;
      }
      const bool probes = e.state != State::incomplete;
      if (probes) set_state(e, State::probe);
      ++e.solicitations;
      e.due_ms = now_ms + retransmit_ms_;
      solicit(e.address, probes ? &e.mac : nullptr);
    }
    if (before(e.due_ms, next_deadline_ms_)) next_deadline_ms_ = e.due_ms;
  }
}

// Bounded: a router that says an hour makes nobody wait an hour, nor one that says 1 ms flood.
void NeighbourCache::set_times(u32 reachable, u32 retransmit) {
  if (reachable != 0) reachable_ms_ = std::clamp(reachable, 1'000u, 3'600'000u);
  if (retransmit != 0) retransmit_ms_ = std::clamp(retransmit, 100u, 10'000u);
}

}  // namespace cob::net
