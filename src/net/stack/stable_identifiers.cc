// See stable_identifiers.h; RFC 7217 sections 5 and 6. Owned by the Ipv6Interface.
#include "net/stack/stable_identifiers.h"

#include <algorithm>

namespace cob::net {
namespace {

constexpr u64 delay_domain = u64{1} << 32;  // of the key's uses, beside DAD_Counter

u64 word_of(const Ipv6Address& prefix) {
  u64 word = 0;
  for (std::size_t i = 0; i < 8; ++i) word = word << 8 | prefix.bytes[i];
  return word;
}

}  // namespace

StableIdentifiers::Counter& StableIdentifiers::counter_of(const Ipv6Address& prefix) {
  Ipv6Address first;
  std::copy_n(prefix.bytes.begin(), 8, first.bytes.begin());
  auto found = std::ranges::find(counters_, first, &Counter::prefix);
  if (found == counters_.end()) {
    found = std::ranges::min_element(counters_, {}, &Counter::used);
    *found = {.prefix = first};
  }
  found->used = ++uses_;
  return *found;
}

std::optional<Ipv6Address> StableIdentifiers::address_in(const Ipv6Address& prefix) {
  Counter& counter = counter_of(prefix);
  if (counter.conflicts > idgen_retries) return std::nullopt;
  u64 identifier = siphash(key_, word_of(prefix), counter.dad_counter);
  while (is_reserved_identifier(identifier))
    identifier = siphash(key_, word_of(prefix), ++counter.dad_counter);
  Ipv6Address out = counter.prefix;
  for (std::size_t i = 16; i-- > 8; identifier >>= 8) out.bytes[i] = static_cast<u8>(identifier);
  return out;
}

u32 StableIdentifiers::on_conflict(const Ipv6Address& address) {
  Counter& counter = counter_of(address);
  ++counter.dad_counter, ++counter.conflicts;
  return static_cast<u32>(siphash(key_, word_of(address), delay_domain | counter.dad_counter) %
                          (idgen_delay_ms + 1));
}

}  // namespace cob::net
