// NeighbourCache: who of the uplink's link has which MAC address, by IPv6: RFC 4861 sections 5.1,
// 7.2 and 7.3 (neighbour unreachability detection).
// Model: an entry is incomplete, reachable, stale, in delay or probed, as the RFC names them;
// reachable is only who has answered a solicitation lately. 256 entries in groups of four by
// address; full group: the one used longest ago gives way. Frames to an incomplete one wait.
// Owned by the Stack, which sends the solicitations.
#pragma once

#include <array>
#include <functional>
#include <optional>

#include "net/stack/parked_frames.h"
#include "net/wire/icmpv6.h"

namespace cob::net {

class NeighbourCache {
 public:
  // RFC 4861 section 10.
  static constexpr u32 reachable_ms = 30'000, retransmit_ms = 1'000, delay_ms = 5'000;
  static constexpr u32 max_solicitations = 3;  // multicast, and unicast, unanswered

  enum class State : u8 { free, incomplete, reachable, stale, delay, probe };
  // Sends a solicitation: to `to`, or to the target's group without it.
  using Solicit = std::function<void(const Ipv6Address& target, const MacAddress* to)>;
  using Send = std::function<void(std::span<std::byte>)>;

  struct Lookup {
    bool resolved = false;
    bool solicit = false;  // the caller shall send one now
    MacAddress mac{};
  };
  Lookup lookup(const Ipv6Address& next_hop, u32 now_ms);
  // Room for a frame that waits for `next_hop`, or empty. REQUIRES: lookup() just now, not
  // resolved.
  std::span<std::byte> park(const Ipv6Address& next_hop, std::size_t bytes, TcbId tcb) {
    return parked_.park(next_hop, bytes, tcb);
  }

  // The source of a solicitation or of a router's message has this MAC address: section 7.2.3.
  void heard(const Ipv6Address& address, const MacAddress& mac, bool may_create, u32 now_ms,
             const Send& send);
  // Section 7.2.5.
  void advertised(const NeighborAdvertisement& advertisement, u32 now_ms, const Send& send);

  // Repeats solicitations and gives up who stays silent: `failed` gets the TCB of each frame that
  // waited, `silent` the neighbour.
  void poll(u32 now_ms, const Solicit& solicit, const std::function<void(TcbId)>& failed,
            const std::function<void(const Ipv6Address&)>& silent);
  bool waiting() const { return timed_ > 0; }
  u32 next_deadline_ms() const { return next_deadline_ms_; }
  // Of a router's advertisement, section 6.3.4; 0: as it was.
  void set_times(u32 reachable, u32 retransmit);

  static constexpr u32 places = 256;
  struct Info {
    Ipv6Address address;
    MacAddress mac{};
    State state = State::free;
    u32 heard_ms = 0;  // ago
  };
  std::optional<Info> at(u32 place, u32 now_ms) const;

 private:
  struct Entry {
    Ipv6Address address;
    MacAddress mac{};
    State state = State::free;
    u8 solicitations = 0;
    u32 heard_ms = 0;  // confirmed, or changed
    u32 used_ms = 0;
    u32 due_ms = 0;  // of incomplete, delay and probe
  };
  static bool timed(State s) {
    return s == State::incomplete || s == State::delay || s == State::probe;
  }
  Entry* find(const Ipv6Address& address);
  Entry& make_room(const Ipv6Address& address);
  void set_state(Entry& e, State state);
  void arm(Entry& e, u32 due_ms);

  std::array<Entry, places> entries_;
  ParkedFrames<Ipv6Address> parked_;
  u32 reachable_ms_ = reachable_ms, retransmit_ms_ = retransmit_ms;
  u32 timed_ = 0;  // entries with a deadline
  u32 next_deadline_ms_ = 0;
};

}  // namespace cob::net
