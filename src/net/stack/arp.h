// ArpCache: next hops of the uplink, RFC 826 and RFC 1122 section 2.3.2: entries time out,
// unanswered requests are repeated at most once a second, and the first packets to an unresolved
// address wait here.
// Model: 256 entries in groups of four by address; full group: the entry heard of longest ago gives
// way. At most parked_frames frames wait in all and parked_per_entry each; more are dropped, TCP
// sends them again.
// Owned by the Stack, which sends the requests.
#pragma once

#include <array>
#include <functional>
#include <optional>

#include "net/stack/parked_frames.h"
#include "net/stack/stack.h"
#include "net/wire/arp.h"

namespace cob::net {

class ArpCache {
 public:
  static constexpr u32 parked_frames = most_parked_frames;
  static constexpr u32 parked_per_entry = most_parked_for_one;
  static constexpr u32 parked_frame_bytes = most_parked_bytes;
  // An entry in use that is older is asked for again.
  static constexpr u32 fresh_ms = 60'000;
  static constexpr u32 request_ms = 1'000;  // between two requests
  static constexpr u32 max_requests = 3;    // unanswered: the address is unreachable

  struct Lookup {
    bool resolved = false;
    bool request = false;  // the caller shall send a request now
    MacAddress mac{};
  };
  Lookup lookup(Ipv4Address next_hop, u32 now_ms);

  // Room for a frame that waits for `next_hop`, or empty. The TCB is told if the address does not
  // answer. REQUIRES: lookup(next_hop) just now, not resolved.
  std::span<std::byte> park(Ipv4Address next_hop, std::size_t bytes, TcbId tcb);

  // What a packet says about its sender: a known entry is updated; `may_create` (a request to us)
  // adds one. Frames that waited are handed to `send`, their destination address filled in.
  void learn(Ipv4Address sender, MacAddress mac, bool may_create, u32 now_ms,
             const std::function<void(std::span<std::byte>)>& send);

  // Repeats requests and gives up addresses that stay silent: `failed` gets the TCB of each frame
  // that waited.
  void poll(u32 now_ms, const std::function<void(Ipv4Address)>& request,
            const std::function<void(TcbId)>& failed);
  // Anything for poll() to do, and when.
  bool waiting() const { return incomplete_ > 0; }
  u32 next_deadline_ms() const { return next_deadline_ms_; }

  static constexpr u32 places = 256;
  // The entry at `place` < places; nothing: it is free.
  std::optional<NeighbourInfo> at(u32 place, u32 now_ms) const;

 private:
  enum class State : u8 { free, incomplete, resolved };
  struct Entry {
    Ipv4Address address;
    MacAddress mac{};
    State state = State::free;
    u8 requests = 0;
    u32 heard_ms = 0;
    u32 requested_ms = 0;
  };

  Entry* find(Ipv4Address address);
  Entry& make_room(Ipv4Address address);

  std::array<Entry, places> entries_;
  ParkedFrames<Ipv4Address> parked_;
  u32 incomplete_ = 0;
  u32 next_deadline_ms_ = 0;
};

}  // namespace cob::net
