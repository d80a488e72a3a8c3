// UdpTable: the datagram sockets of one stack by port, and who of them a datagram is for. RFC 768,
// RFC 1122 section 4.1; ip(7), udp(7), socket(7) SO_REUSEPORT.
// Model: a chain a port, the best match wins: a connected socket before one that is merely bound, a
// bound address before 0.0.0.0; of equals with reuse_port one by the hash of the source, else the
// latest. A group or broadcast address is everyone's who joined it. Owned by the Stack's loop.
#pragma once

#include <vector>

#include "net/stack/address_names.h"
#include "net/stack/keyed_hash.h"
#include "net/stack/lazy_array.h"
#include "net/stack/stack.h"

namespace cob::net {

struct UdpSocket {
  Endpoint local;
  Endpoint remote;  // port 0: not connected
  u64 cookie = 0;
  u32 generation = 0;
  u32 next_same_port = 0;  // slot + 1
  bool reuse_port = false;
  bool open = false;
  std::vector<Ipv4Address> groups;
};

class UdpTable {
 public:
  // `names` outlives this.
  UdpTable(HashKey key, const AddressNames& names)
      : first_of_port_(65'536), key_(key), names_(names) {}

  // ENOBUFS: max_sockets, or max_on_port on this port.
  Result<UdpId> open(Endpoint local, bool reuse_port, u64 cookie);
  void close(UdpId id);
  UdpSocket* at(UdpId id);

  // Who gets a datagram to one address of ours; nullptr: nobody.
  const UdpSocket* find(Endpoint local, Endpoint remote) const;
  // The connected socket that a quoted datagram came from; nullptr: none.
  const UdpSocket* find_connected(Endpoint local, Endpoint remote) const;
  // Calls f(cookie) for each that has joined the group, or for a broadcast each on the port.
  // REQUIRES: f opens and closes none.
  template <typename F>
  void each_of_group(Endpoint group, Endpoint remote, bool broadcast, F f) const;
  bool in_use(Port port) const { return first_of_port_[port.value] != 0; }
  u32 size() const { return used_; }
  // For f(const UdpSocket&) of each.
  template <typename F>
  void for_each(F f) const {
    for (const UdpSocket& s : sockets_)
      if (s.open) f(s);
  }

  static constexpr u32 max_sockets = 262'144;
  // A datagram looks at each socket of its port.
  static constexpr u32 max_on_port = 1'024;

 private:
  static u32 score(const UdpSocket& s, Endpoint local, Endpoint remote);
  u32 source_hash(Endpoint local, Endpoint remote) const;

  std::vector<UdpSocket> sockets_;
  std::vector<u32> free_;
  LazyArray<u32> first_of_port_;  // slot + 1
  HashKey key_;
  const AddressNames& names_;
  u32 used_ = 0;
};

template <typename F>
void UdpTable::each_of_group(Endpoint group, Endpoint remote, bool broadcast, F f) const {
  for (u32 at = first_of_port_[group.port.value]; at != 0; at = sockets_[at - 1].next_same_port) {
    const UdpSocket& s = sockets_[at - 1];
    if (!s.local.address.overlaps(group.address)) continue;
    if (s.remote.port.value != 0 && s.remote != remote) continue;
    bool wanted = broadcast;
    for (const Ipv4Address joined : s.groups) wanted = wanted || joined == group.address;
    if (wanted) f(s.cookie);
  }
}

}  // namespace cob::net
