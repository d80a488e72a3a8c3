// Ipv6Interface: the cob's IPv6 addresses, and what routers say: RFC 4862 (a link-local address,
// duplicate address detection, addresses from prefixes), RFC 7217 (their identifiers, where there
// is a key for them), RFC 4861 section 6.3 (router discovery), section 8 (redirects), RFC 4429 (a
// tentative address is used already, and does not insist).
// Model: at most max_own_addresses addresses, places of AddressNames; 8 prefixes on the link; more
// are not learned; routers: router_table.h. 64 redirected destinations, a newer one in an older's
// place, for ten minutes or until the neighbour is silent. The groups of the addresses are told to
// the link (multicast_listener.h) where the link-local address is the cob's. Each kernel of a cob
// has one; all hear the same and do the same. Owned by the Stack, which sends what the callbacks
// say.
#pragma once

#include <array>
#include <functional>
#include <optional>

#include "net/stack/address_names.h"
#include "net/stack/multicast_listener.h"
#include "net/stack/router_table.h"
#include "net/stack/stable_identifiers.h"
#include "net/stack/stack.h"
#include "net/wire/icmpv6.h"

namespace cob::net {

class Ipv6Interface {
 public:
  static constexpr u32 max_prefixes = 8, max_redirects = 64;
  static constexpr u64 redirect_ms = 600'000;
  static constexpr u32 retransmit_ms = 1'000;  // one solicitation decides: DupAddrDetectTransmits
  static constexpr u32 max_router_solicitations = 3, router_solicitation_ms = 4'000;
  static constexpr u16 least_mtu = 1'280;  // RFC 8200 section 5

  enum class State : u8 { free, tentative, preferred, deprecated };
  struct Address {
    Ipv6Address address;
    u8 prefix_bits = 64;
    State state = State::free;
    bool automatic = false;  // from a router's prefix
    u64 decided_ms = 0;      // of a tentative one
    u64 preferred_until_ms = forever, valid_until_ms = forever;
  };
  static constexpr u64 forever = ~u64{0};

  struct Actions {
    std::function<void(const Ipv6Address& target)> detect_duplicate;
    std::function<void()> solicit_routers;
    std::function<void(u32 place)> gone;  // that address is the cob's no more
    MulticastListener::Send tell_groups;
  };

  Ipv6Interface(const Ipv6Options& options, const MacAddress& mac, AddressNames& names, HashKey key,
                Actions actions);

  bool on() const { return options_.on; }
  // Begins, at the stack's first turn. `link`: there is an uplink.
  void start(bool link, u64 now_ms);
  bool started() const { return started_; }
  void poll(u64 now_ms);
  u64 next_deadline_ms() const { return next_deadline_ms_; }  // forever: none

  std::span<const Address, max_own_addresses> addresses() const { return addresses_; }
  // Place of it; nullopt: not ours.
  std::optional<u32> place_of(const Ipv6Address& address) const;
  bool is_tentative(const Ipv6Address& address) const;
  bool listens_to(const Ipv6Address& group) const;

  // To whom a packet goes next; nullopt: no route.
  std::optional<Ipv6Address> next_hop(const Ipv6Address& destination) const;
  // RFC 6724 section 5, of what differs here: scope, then not deprecated, then the longest common
  // prefix. nullopt: none fits.
  std::optional<Ipv6Address> source_for(const Ipv6Address& destination) const;
  // What a solicitation may come from: no tentative address (RFC 4429 section 3.2).
  std::optional<Ipv6Address> settled_source() const;
  u16 mtu() const { return mtu_; }  // of a router's MTU option; 0: the link's own
  u8 hop_limit() const { return hop_limit_; }

  // Another has, or wants, this address.
  void on_conflict(const Ipv6Address& address, u64 now_ms);
  void on_router(const Ipv6Address& router, const RouterAdvertisement& advertisement, u64 now_ms);

  // False: not of the router that the destination goes by.
  bool on_redirect(const Ipv6Address& router, const Redirect& redirect, u64 now_ms);
  // It does not answer any more: nothing is redirected to it, nor goes by it if there is another
  // router.
  void on_silent_neighbour(const Ipv6Address& neighbour);
  // Of MLD. `answers`: false: another kernel of the cob answers.
  void on_group_query(const MldQuery& query, bool answers, u64 now_ms);
  void on_group_report(const Ipv6Address& group, u64 now_ms);

  const RouterTable& routers() const { return routers_; }
  struct PrefixInfo {
    Ipv6Address prefix;
    u8 bits;
    u64 until_ms;
  };
  std::optional<PrefixInfo> prefix(u32 place) const;

 private:
  struct Prefix {
    Ipv6Address prefix;
    u8 bits = 0;  // 0: the place is free
    u64 until_ms = 0;
  };

  struct Redirected {
    Ipv6Address destination;  // any: the place is free
    Ipv6Address target;
    u64 until_ms = 0;
  };
  // An address that another had: the next one of the same prefix is due.
  struct Retry {
    Ipv6Address prefix;  // any: the place is free
    u64 at_ms = forever;
    u64 preferred_until_ms = forever, valid_until_ms = forever;
  };
  static u32 redirect_place(const Ipv6Address& destination);
  const Redirected* redirected(const Ipv6Address& destination) const;

  void begin_detection(const Ipv6Address& address, u64 now_ms);
  void add(const Ipv6Address& address, u8 prefix_bits, bool automatic, u64 valid_until_ms,
           u64 preferred_until_ms, u64 now_ms);
  void remove(u32 place, u64 now_ms);
  // nullopt: there is none that nobody else has.
  std::optional<Ipv6Address> from_prefix(const Ipv6Address& prefix);
  void retry_later(const Address& lost, u64 now_ms);
  void retry(u64 now_ms);
  void take_prefix(const PrefixInformation& p, u64 now_ms);
  void take_autonomous(const PrefixInformation& p, u64 now_ms);
  void expire(u64 now_ms);
  void find_deadline();

  Ipv6Options options_;
  MacAddress mac_;
  AddressNames& names_;
  Actions actions_;
  std::array<Address, max_own_addresses> addresses_{};
  std::array<Retry, max_own_addresses> retries_{};
  StableIdentifiers identifiers_;
  RouterTable routers_;
  std::array<Prefix, max_prefixes> prefixes_{};
  std::array<Redirected, max_redirects> redirects_{};
  MulticastListener groups_;
  bool started_ = false, link_ = false;
  u32 solicitations_ = 0;  // of routers, sent
  u64 solicit_at_ms_ = forever;
  u64 next_deadline_ms_ = forever;
  u16 mtu_ = 0;
  u8 hop_limit_ = 64;
};

}  // namespace cob::net
