// Names of IPv6 addresses. See address_names.h.
// Owned by the Stack.
#include "net/stack/address_names.h"

#include <algorithm>

namespace cob::net {
namespace {

u64 half(const Ipv6Address& a, std::size_t at) {
  u64 word;
  std::memcpy(&word, a.bytes.data() + at, sizeof word);
  return word;
}

}  // namespace

u64 AddressNames::hash_of(const Ipv6Address& a) const {
  return siphash(key_, half(a, 0), half(a, 8));
}

Ipv4Address AddressNames::find(const Ipv6Address& a) const {
  if (a.is_any()) return ipv6_any;
  if (a.is_loopback()) return ipv6_loopback;
  for (u32 i = 0; i < max_own_addresses; ++i)
    if (own_[i] == a) return {first_own_name + i};
  const u32 slot =
      index_.find(static_cast<u32>(hash_of(a)), [&](u32 s) { return entries_[s].address == a; });
  return slot == FlatIndex::none ? ipv6_elsewhere : Ipv4Address{first_other_name + slot};
}

Ipv4Address AddressNames::name(const Ipv6Address& a) {
  if (const Ipv4Address known = find(a); known != ipv6_elsewhere || a.is_mapped()) return known;
  u32 slot;
  if (free_ != 0) {
    slot = free_ - 1;
    free_ = entries_[slot].next_free;
  } else {
    if (touched_ == capacity) return ipv6_elsewhere;
    slot = touched_++;
  }
  const auto hash = static_cast<u32>(hash_of(a));
  entries_[slot] = {.address = a, .hash = hash, .next_free = 0, .used = true, .marked = false};
  index_.insert(hash, slot);
  ++used_;
  return {first_other_name + slot};
}

Ipv6Address AddressNames::address(Ipv4Address name) const {
  if (!name.is_ipv6()) return Ipv6Address::mapped(name.value);
  Ipv6Address out;
  if (name.is_ipv6_loopback()) out.bytes[15] = 1;
  if (is_own(name)) out = own_[name.value - first_own_name];
  if (known(name)) out = entries_[name.value - first_other_name].address;
  return out;
}

u64 AddressNames::word(Ipv4Address name) const {
  return name.is_ipv6() ? hash_of(address(name)) : name.value;
}

void AddressNames::begin_marks() {
  for (u32 i = 0; i < touched_; ++i) entries_[i].marked = false;
}

void AddressNames::mark(Ipv4Address name) {
  if (known(name)) entries_[name.value - first_other_name].marked = true;
}

void AddressNames::sweep() {
  for (u32 i = 0; i < touched_; ++i) {
    Entry& e = entries_[i];
    if (!e.used || e.marked) continue;
    index_.erase(e.hash, i);
    e = {.address = {}, .hash = 0, .next_free = free_, .used = false, .marked = false};
    free_ = i + 1;
    --used_;
  }
  // Each name is swept over at most twice a sweep on average.
  sweep_at_ = std::clamp(2 * used_, least_sweep, capacity - capacity / 8);
}

}  // namespace cob::net
