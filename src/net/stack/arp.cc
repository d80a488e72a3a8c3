// The ARP cache. See arp.h; RFC 826 "Packet Reception", RFC 1122 sections 2.3.2.1 (timeout) and
// 2.3.2.2 (waiting packets).
// Model: an entry is free, incomplete (asked, silent so far) or resolved; a resolved one past
// fresh_ms is asked for again and stays in use until the answers fail to come.
// Owned by the Stack.
#include "net/stack/arp.h"

#include "net/wire/ethernet.h"

namespace cob::net {
namespace {

u32 group_of(Ipv4Address a) { return (a.value * 0x9e3779b1u >> 26) * 4; }

}  // namespace

std::optional<NeighbourInfo> ArpCache::at(u32 place, u32 now_ms) const {
  const Entry& e = entries_[place];
  if (e.state == State::free) return std::nullopt;
  const u32 ago = now_ms - e.heard_ms;
  const bool answered = e.state == State::resolved;
  return NeighbourInfo{.address = e.address,
                       .mac = e.mac,
                       .answered = answered,
                       .fresh = answered && ago < fresh_ms,
                       .heard_ms = ago};
}

ArpCache::Entry* ArpCache::find(Ipv4Address address) {
  for (u32 i = group_of(address), end = i + 4; i < end; ++i)
    if (entries_[i].state != State::free && entries_[i].address == address) return &entries_[i];
  return nullptr;
}

ArpCache::Entry& ArpCache::make_room(Ipv4Address address) {
  const u32 group = group_of(address);
  Entry* best = &entries_[group];
  for (u32 i = group; i < group + 4; ++i) {
    Entry& e = entries_[i];
    if (e.state == State::free) {
      best = &e;
      break;
    }
    if (static_cast<i32>(e.heard_ms - best->heard_ms) < 0) best = &e;
  }
  if (best->state == State::incomplete) {
    --incomplete_;
    parked_.drop(best->address, [](TcbId) {});
  }
  *best = {.address = address};
  return *best;
}

ArpCache::Lookup ArpCache::lookup(Ipv4Address next_hop, u32 now_ms) {
  Entry* e = find(next_hop);
  if (e == nullptr) {
    e = &make_room(next_hop);
    e->state = State::incomplete;
    e->heard_ms = e->requested_ms = now_ms;
    e->requests = 1;
    if (++incomplete_ == 1 || static_cast<i32>(now_ms + request_ms - next_deadline_ms_) < 0)
      next_deadline_ms_ = now_ms + request_ms;
    return {.request = true};
  }
  if (e->state == State::incomplete) return {};
  if (now_ms - e->heard_ms < fresh_ms) [[likely]]
    return {.resolved = true, .mac = e->mac};
  if (e->requests > 0 && now_ms - e->requested_ms < request_ms)
    return {.resolved = true, .mac = e->mac};
  if (e->requests >= max_requests) {
    e->state = State::free;
    return lookup(next_hop, now_ms);
  }
  ++e->requests;
  e->requested_ms = now_ms;
  return {.resolved = true, .request = true, .mac = e->mac};
}

std::span<std::byte> ArpCache::park(Ipv4Address next_hop, std::size_t bytes, TcbId tcb) {
  return parked_.park(next_hop, bytes, tcb);
}

void ArpCache::learn(Ipv4Address sender, MacAddress mac, bool may_create, u32 now_ms,
                     const std::function<void(std::span<std::byte>)>& send) {
  Entry* e = find(sender);
  if (e == nullptr) {
    if (!may_create) return;
    e = &make_room(sender);
  }
  const bool was_incomplete = e->state == State::incomplete;
  *e = {sender, mac, State::resolved, 0, now_ms, now_ms};
  if (!was_incomplete) return;
  --incomplete_;
  parked_.release(sender, mac, send);
}

void ArpCache::poll(u32 now_ms, const std::function<void(Ipv4Address)>& request,
                    const std::function<void(TcbId)>& failed) {
  if (incomplete_ == 0 || static_cast<i32>(now_ms - next_deadline_ms_) < 0) return;
  next_deadline_ms_ = now_ms + request_ms;
  for (Entry& e : entries_) {
    if (e.state != State::incomplete) continue;
    const u32 due = e.requested_ms + request_ms;
    if (static_cast<i32>(now_ms - due) < 0) {
      if (static_cast<i32>(due - next_deadline_ms_) < 0) next_deadline_ms_ = due;
      continue;
    }
    if (e.requests >= max_requests) {
      e.state = State::free;
      --incomplete_;
      parked_.drop(e.address, failed);
      continue;
    }
    ++e.requests;
    e.requested_ms = now_ms;
    request(e.address);
  }
}

}  // namespace cob::net
