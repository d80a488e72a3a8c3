// FastOpenCache: what servers gave for the next connection to them: RFC 7413 section 4.1.3.
// Model: a place an address, as in path_mtu.h; who comes to a taken one replaces it, as what is
// lost is soon learned again. An address whose SYN with the option was lost is left alone for a
// while, each time longer (section 4.1.3.1: a path may drop such SYNs). Owned by the Stack.
#pragma once

#include <array>
#include <memory>
#include <span>

#include "net/stack/keyed_hash.h"
#include "net/wire/address.h"
#include "net/wire/tcp.h"

namespace cob::net {

class FastOpenCache {
 public:
  struct Server {
    Ipv4Address address;
    u16 mss = 0;  // of its SYN-ACK: how much a SYN may carry, options included
    u8 losses = 0;
    u8 cookie_bytes = 0;  // 0: none
    u8 cookie[TcpFastOpenOption::most_cookie] = {};
    u32 lost_ms = 0;
    std::span<const u8> value() const { return {cookie, cookie_bytes}; }
  };

  explicit FastOpenCache(HashKey key) : key_(key) {}

  // Null: nothing is known, so a cookie may be asked for.
  const Server* find(Ipv4Address address) const;
  // Whether a SYN to it may carry the option.
  static bool may_try(const Server* server, u32 now_ms);
  void learn(Ipv4Address address, u16 mss, std::span<const u8> cookie);
  void lost(Ipv4Address address, u32 now_ms);
  // For f(Ipv4Address) of each.
  template <typename F>
  void for_each(F f) const {
    if (servers_ == nullptr) return;
    for (const Server& s : *servers_) f(s.address);
  }

 private:
  static constexpr u32 places = 256;
  static constexpr u32 first_pause_ms = 60'000;
  static constexpr u8 most_losses = 6;  // an hour
  Server& at(Ipv4Address address);

  std::unique_ptr<std::array<Server, places>> servers_;  // made at the first use
  HashKey key_;
};

}  // namespace cob::net
