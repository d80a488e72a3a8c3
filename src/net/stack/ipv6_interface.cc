// Addresses, routers and prefixes. See ipv6_interface.h; RFC 4862 section 5, RFC 4861 section 6.3.
// Owned by the Stack.
#include "net/stack/ipv6_interface.h"

#include <algorithm>
#include <utility>

namespace cob::net {
namespace {

constexpr u64 two_hours_ms = 7'200'000;
constexpr u32 link_local_place = 0, configured_place = 1, first_automatic_place = 2;
constexpr u32 infinite_s = 0xffff'ffff;
constexpr Ipv6Address link_local_prefix{{0xfe, 0x80}};

u64 after(u64 now_ms, u32 seconds) {
  return seconds == infinite_s ? Ipv6Interface::forever : now_ms + u64{seconds} * 1'000;
}

u32 common_bits(const Ipv6Address& a, const Ipv6Address& b) {
  u32 bits = 0;
  while (bits < 128 && a.shares_prefix(b, bits + 1)) ++bits;
  return bits;
}

}  // namespace

Ipv6Interface::Ipv6Interface(const Ipv6Options& options, const MacAddress& mac, AddressNames& names,
                             HashKey key, Actions actions)
    : options_(options),
      mac_(mac),
      names_(names),
      actions_(std::move(actions)),
      identifiers_({options.identifier_key[0], options.identifier_key[1]}),
      groups_(key, actions_.tell_groups) {
  // Known from the beginning, so that programs can bind to it.
  if (options_.on && options_.prefix_bits != 0) {
    addresses_[configured_place] = {.address = options_.address,
                                    .prefix_bits = options_.prefix_bits,
                                    .state = State::preferred};
    names_.set_own(configured_place, options_.address);
  }
}

// RFC 7217, or RFC 4291 appendix A.
std::optional<Ipv6Address> Ipv6Interface::from_prefix(const Ipv6Address& prefix) {
  if (identifiers_.on()) return identifiers_.address_in(prefix);
  Ipv6Address out = Ipv6Address::link_local(mac_);
  std::copy_n(prefix.bytes.begin(), 8, out.bytes.begin());
  return out;
}

void Ipv6Interface::start(bool link, u64 now_ms) {
  started_ = true;
  link_ = link;
  if (!options_.on || !link) return;
  if (options_.link_local)
    add(*from_prefix(link_local_prefix), 64, false, forever, forever, now_ms);
  Address& configured = addresses_[configured_place];
  if (configured.state != State::free) {
    configured.state = State::tentative;
    configured.decided_ms = now_ms + retransmit_ms;
    begin_detection(configured.address, now_ms);
  }
  if (options_.gateway.is_any()) solicit_at_ms_ = now_ms + retransmit_ms;
  find_deadline();
}

// RFC 4862 section 5.4.2: its group is joined first. Where Linux has the link-local address
// (AF_XDP) it tells the groups too.
void Ipv6Interface::begin_detection(const Ipv6Address& address, u64 now_ms) {
  if (options_.link_local) groups_.join(address.solicited_node(), now_ms);
  actions_.detect_duplicate(address);
}

void Ipv6Interface::add(const Ipv6Address& address, u8 prefix_bits, bool automatic,
                        u64 valid_until_ms, u64 preferred_until_ms, u64 now_ms) {
  u32 place = automatic ? first_automatic_place : link_local_place;
  while (automatic && place < max_own_addresses && addresses_[place].state != State::free) ++place;
  if (place == max_own_addresses) return;
  addresses_[place] = {.address = address,
                       .prefix_bits = prefix_bits,
                       .state = State::tentative,
                       .automatic = automatic,
                       .decided_ms = now_ms + retransmit_ms,
                       .preferred_until_ms = preferred_until_ms,
                       .valid_until_ms = valid_until_ms};
  names_.set_own(place, address);
  begin_detection(address, now_ms);
}

void Ipv6Interface::remove(u32 place, u64 now_ms) {
  const Ipv6Address group = addresses_[place].address.solicited_node();
  addresses_[place] = {};
  names_.clear_own(place);
  if (!listens_to(group)) groups_.leave(group, now_ms);
  actions_.gone(place);
}

void Ipv6Interface::poll(u64 now_ms) {
  if (now_ms < next_deadline_ms_) return;
  for (Address& a : addresses_)
    if (a.state == State::tentative && now_ms >= a.decided_ms) a.state = State::preferred;
  const Address& link_local = addresses_[link_local_place];
  groups_.set_source(link_local.state == State::preferred ? link_local.address : Ipv6Address{},
                     now_ms);
  groups_.poll(now_ms);
  if (now_ms >= solicit_at_ms_) {
    actions_.solicit_routers();
    solicit_at_ms_ =
        ++solicitations_ < max_router_solicitations ? now_ms + router_solicitation_ms : forever;
  }
  retry(now_ms);
  expire(now_ms);
  find_deadline();
}

void Ipv6Interface::expire(u64 now_ms) {
  for (u32 place = 0; place < max_own_addresses; ++place) {
    Address& a = addresses_[place];
    if (a.state == State::free) continue;
    if (now_ms >= a.valid_until_ms) {
      remove(place, now_ms);
    } else if (a.state == State::preferred && now_ms >= a.preferred_until_ms) {
      a.state = State::deprecated;
    }
  }
  for (Retry& r : retries_)
    if (now_ms >= r.valid_until_ms) r = {};
  routers_.expire(now_ms);
  for (Prefix& p : prefixes_)
    if (now_ms >= p.until_ms) p = {};
  for (Redirected& r : redirects_)
    if (now_ms >= r.until_ms) r = {};
}

void Ipv6Interface::find_deadline() {
  next_deadline_ms_ =
      std::min({solicit_at_ms_, groups_.next_deadline_ms(), routers_.next_deadline_ms()});
  const auto at = [this](u64 ms) { next_deadline_ms_ = std::min(next_deadline_ms_, ms); };
  for (const Address& a : addresses_) {
    if (a.state == State::free) continue;
    at(a.valid_until_ms);
    if (a.state == State::preferred) at(a.preferred_until_ms);
    if (a.state == State::tentative) at(a.decided_ms);
  }
  for (const Retry& r : retries_) at(std::min(r.at_ms, r.valid_until_ms));
  for (const Prefix& p : prefixes_)
    if (p.bits != 0) at(p.until_ms);
  for (const Redirected& r : redirects_)
    if (!r.destination.is_any()) at(r.until_ms);
}

std::optional<u32> Ipv6Interface::place_of(const Ipv6Address& address) const {
  for (u32 place = 0; place < max_own_addresses; ++place)
    if (addresses_[place].state != State::free && addresses_[place].address == address)
      return place;
  return std::nullopt;
}

bool Ipv6Interface::is_tentative(const Ipv6Address& address) const {
  const auto place = place_of(address);
  return place && addresses_[*place].state == State::tentative;
}

bool Ipv6Interface::listens_to(const Ipv6Address& group) const {
  if (group == ipv6_all_nodes) return true;
  return std::ranges::any_of(addresses_, [&](const Address& a) {
    return a.state != State::free && a.address.solicited_node() == group;
  });
}

std::optional<Ipv6Address> Ipv6Interface::next_hop(const Ipv6Address& destination) const {
  if (!options_.on || destination.is_any() || destination.is_loopback() ||
      destination.is_multicast() || destination.is_mapped())
    return std::nullopt;
  if (destination.is_link_local()) return destination;
  const Address& configured = addresses_[configured_place];
  if (configured.state != State::free &&
      destination.shares_prefix(configured.address, configured.prefix_bits))
    return destination;
  for (const Prefix& p : prefixes_)
    if (p.bits != 0 && destination.shares_prefix(p.prefix, p.bits)) return destination;
  if (const Redirected* r = redirected(destination)) return r->target;
  if (!options_.gateway.is_any()) return options_.gateway;
  return routers_.next_hop(destination);
}

std::optional<Ipv6Address> Ipv6Interface::source_for(const Ipv6Address& destination) const {
  const Address* best = nullptr;
  const auto score = [&](const Address& a) {
    const bool scope = a.address.is_link_local() == destination.is_link_local();
    const bool fresh = a.state != State::deprecated;
    return (scope ? 1'024u : 0u) + (fresh ? 512u : 0u) + common_bits(a.address, destination);
  };
  for (const Address& a : addresses_) {
    if (a.state == State::free) continue;
    // What a router passes on needs a source that does not end with the link.
    if (a.address.is_link_local() && !destination.is_link_local()) continue;
    if (best == nullptr || score(a) > score(*best)) best = &a;
  }
  return best == nullptr ? std::nullopt : std::optional(best->address);
}

std::optional<Ipv6Address> Ipv6Interface::settled_source() const {
  for (const Address& a : addresses_)
    if (a.state == State::preferred || a.state == State::deprecated) return a.address;
  return std::nullopt;
}

// RFC 4862 section 5.4.4 and 5.4.5. One that is in use stays: whoever answers for it is wrong.
void Ipv6Interface::on_conflict(const Ipv6Address& address, u64 now_ms) {
  const auto place = place_of(address);
  if (!place || addresses_[*place].state != State::tentative) return;
  const Address lost = addresses_[*place];
  remove(*place, now_ms);
  if (identifiers_.on() && *place != configured_place) retry_later(lost, now_ms);
  poll(now_ms);
  find_deadline();
}

// RFC 7217 section 6. No place is free only where more prefixes than addresses failed at a time.
void Ipv6Interface::retry_later(const Address& lost, u64 now_ms) {
  const u32 delay_ms = identifiers_.on_conflict(lost.address);
  const auto free = std::ranges::find(retries_, Ipv6Address{}, &Retry::prefix);
  if (free == retries_.end()) return;
  *free = {.prefix = lost.address,
           .at_ms = now_ms + delay_ms,
           .preferred_until_ms = lost.preferred_until_ms,
           .valid_until_ms = lost.valid_until_ms};
}

void Ipv6Interface::retry(u64 now_ms) {
  for (Retry& r : retries_) {
    if (r.prefix.is_any() || now_ms < r.at_ms) continue;
    const Retry due = std::exchange(r, {});
    const auto next = from_prefix(due.prefix);
    if (next && !place_of(*next))
      add(*next, 64, !due.prefix.is_link_local(), due.valid_until_ms, due.preferred_until_ms,
          now_ms);
  }
}

void Ipv6Interface::on_router(const Ipv6Address& router, const RouterAdvertisement& ra,
                              u64 now_ms) {
  if (!started_ || !link_) return;
  if (ra.hop_limit != 0) hop_limit_ = ra.hop_limit;
  if (ra.mtu >= least_mtu && ra.mtu <= 0xffff) mtu_ = static_cast<u16>(ra.mtu);
  routers_.on_advertisement(router, ra, now_ms);
  if (ra.lifetime_s != 0) solicit_at_ms_ = forever;  // RFC 4861 section 6.3.7
  for (u32 i = 0; i < ra.prefixes; ++i) {
    if (ra.prefix[i].on_link) take_prefix(ra.prefix[i], now_ms);
    if (ra.prefix[i].autonomous && options_.autoconfigure) take_autonomous(ra.prefix[i], now_ms);
  }
  expire(now_ms);
  find_deadline();
}

// RFC 4861 section 6.3.4.
void Ipv6Interface::take_prefix(const PrefixInformation& p, u64 now_ms) {
  if (p.prefix_bits == 0) return;
  auto known = std::ranges::find_if(prefixes_, [&](const Prefix& o) {
    return o.bits == p.prefix_bits && o.prefix.shares_prefix(p.prefix, p.prefix_bits);
  });
  if (known == prefixes_.end()) {
    if (p.valid_s == 0) return;
    known = std::ranges::find(prefixes_, u8{0}, &Prefix::bits);
    if (known == prefixes_.end()) return;
  }
  *known = {p.prefix, p.prefix_bits, after(now_ms, p.valid_s)};
}

// RFC 4862 section 5.5.3.
void Ipv6Interface::take_autonomous(const PrefixInformation& p, u64 now_ms) {
  if (p.prefix_bits != 64) return;  // prefix and identifier must make 128 bits
  const u64 valid = after(now_ms, p.valid_s), preferred = after(now_ms, p.preferred_s);
  for (Address& a : addresses_) {
    if (a.state == State::free || !a.automatic || !a.address.shares_prefix(p.prefix, 64)) continue;
    // e): whoever forges an advertisement cannot end an address within two hours.
    if (p.valid_s > two_hours_ms / 1'000 || valid > a.valid_until_ms) {
      a.valid_until_ms = valid;
    } else if (a.valid_until_ms > now_ms + two_hours_ms) {
      a.valid_until_ms = now_ms + two_hours_ms;
    }
    a.preferred_until_ms = preferred;
    if (a.state == State::deprecated && now_ms < preferred) a.state = State::preferred;
    return;
  }
  for (Retry& r : retries_) {
    if (r.prefix.is_any() || !r.prefix.shares_prefix(p.prefix, 64)) continue;
    r.valid_until_ms = valid, r.preferred_until_ms = preferred;
    return;
  }
  if (p.valid_s == 0) return;
  const auto made = from_prefix(p.prefix);
  if (made && !place_of(*made)) add(*made, 64, true, valid, preferred, now_ms);
}

// ---- RFC 4861 section 8

u32 Ipv6Interface::redirect_place(const Ipv6Address& destination) {
  u32 sum = 0;
  for (const u8 b : destination.bytes) sum = sum * 31 + b;
  return sum % max_redirects;
}

const Ipv6Interface::Redirected* Ipv6Interface::redirected(const Ipv6Address& destination) const {
  const Redirected& r = redirects_[redirect_place(destination)];
  return r.destination == destination ? &r : nullptr;
}

bool Ipv6Interface::on_redirect(const Ipv6Address& router, const Redirect& redirect, u64 now_ms) {
  if (!link_ || place_of(redirect.destination) || place_of(redirect.target) ||
      redirect.destination.is_loopback() || next_hop(redirect.destination) != router)
    return false;
  redirects_[redirect_place(redirect.destination)] = {redirect.destination, redirect.target,
                                                      now_ms + redirect_ms};
  find_deadline();
  return true;
}

void Ipv6Interface::on_silent_neighbour(const Ipv6Address& neighbour) {
  for (Redirected& r : redirects_)
    if (r.target == neighbour) r = {};
  routers_.on_silent(neighbour);
}

// ---- MLD

void Ipv6Interface::on_group_query(const MldQuery& query, bool answers, u64 now_ms) {
  if (!link_ || !options_.link_local) return;
  groups_.on_query(query, answers, now_ms);
  find_deadline();
}

void Ipv6Interface::on_group_report(const Ipv6Address& group, u64 now_ms) {
  groups_.on_report_v1(group, now_ms);
  find_deadline();
}

std::optional<Ipv6Interface::PrefixInfo> Ipv6Interface::prefix(u32 place) const {
  if (place >= max_prefixes || prefixes_[place].bits == 0) return std::nullopt;
  const Prefix& p = prefixes_[place];
  return PrefixInfo{p.prefix, p.bits, p.until_ms};
}

}  // namespace cob::net
