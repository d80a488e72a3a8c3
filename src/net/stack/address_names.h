// AddressNames: the IPv6 addresses that a kernel deals with, each under a name of 32 bits in the
// place of an IPv4 address (wire/address.h), so that connections, sockets and tables hold four
// bytes whatever the family. docs/decisions/0006-addresses.md. Model: own addresses have fixed
// names, by their place at the interface. Others get one when they are first met, and keep it as
// long as it is marked at each sweep: who holds names marks them. 2^20 names; full: addresses
// without a name are not talked to until a sweep finds room. Owned by the Stack; names do not leave
// their kernel.
#pragma once

#include <array>

#include "net/stack/flat_index.h"
#include "net/stack/keyed_hash.h"
#include "net/stack/lazy_array.h"
#include "net/wire/ipv6.h"

namespace cob::net {

class AddressNames {
 public:
  static constexpr u32 capacity = 1u << 20;

  // `key`: the cob's; word() is the same in all its kernels.
  explicit AddressNames(HashKey key) : key_(key), entries_(capacity) {}

  // ipv6_elsewhere: no room. :: is ipv6_any; ::ffff:a.b.c.d is nobody's here.
  Ipv4Address name(const Ipv6Address& address);
  // ipv6_elsewhere: it has none.
  Ipv4Address find(const Ipv6Address& address) const;
  // All zeros for what names none, ::ffff:a.b.c.d for an IPv4 address.
  Ipv6Address address(Ipv4Address name) const;
  // What keyed hashes take: the address itself, or 64 bits that stand for it.
  u64 word(Ipv4Address name) const;

  void set_own(u32 place, const Ipv6Address& address) { own_[place] = address; }
  void clear_own(u32 place) { own_[place] = {}; }
  bool is_own(Ipv4Address name) const {
    const u32 place = name.value - first_own_name;
    return place < max_own_addresses && !own_[place].is_any();
  }

  u32 size() const { return used_; }
  // Time for begin_marks(), mark() of every name held anywhere, sweep().
  bool crowded() const { return used_ >= sweep_at_; }
  void begin_marks();
  void mark(Ipv4Address name);
  void sweep();

 private:
  static constexpr u32 least_sweep = 4'096;

  struct Entry {
    Ipv6Address address;
    u32 hash;
    u32 next_free;  // slot + 1
    bool used, marked;
  };
  u64 hash_of(const Ipv6Address& address) const;
  bool known(Ipv4Address name) const {
    const u32 slot = name.value - first_other_name;
    return slot < touched_ && entries_[slot].used;
  }

  HashKey key_;
  std::array<Ipv6Address, max_own_addresses> own_{};
  LazyArray<Entry> entries_;
  FlatIndex index_;
  u32 touched_ = 0, used_ = 0;
  u32 free_ = 0;  // slot + 1
  u32 sweep_at_ = least_sweep;
};

}  // namespace cob::net
