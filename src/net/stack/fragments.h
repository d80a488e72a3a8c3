// Fragments: datagrams that come in pieces, until they are whole. RFC 791 section 3.2, RFC 8200
// section 4.5; RFC 815, with a bit for each eight bytes in place of a list of holes; RFC 1122
// section 3.3.2. Model: 64 datagrams under way in a stack, 16 from one address, 30 s each; then
// their senders may be told, if the first piece came. A newer one takes the place of the oldest.
// Pieces that overlap end their datagram, as RFC 5722 has it for IPv6: nobody makes them but to
// deceive. One that came already is ignored. Owned by the Stack's loop.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "net/wire/ipv4.h"
#include "net/wire/ipv6.h"

namespace cob::net {

class Fragments {
 public:
  static constexpr std::size_t max_datagrams = 64, max_of_source = 16;
  static constexpr u32 life_ms = 30'000;  // Linux's ipfrag_time; RFC 1122 asks for 60 to 120 s

  // As Linux counts them: fragments; datagrams made whole; fragments and datagrams thrown away.
  struct Counters {
    u64 asked = 0, whole = 0, failed = 0, timed_out = 0;
  };

  // `fragment` with its place in the datagram, and what lay before it in its frame. If it was the
  // last that was missing: the datagram as a frame, good until the next call; else nothing.
  std::span<const std::byte> add(std::span<const std::byte> ethernet, const Ipv4Packet& fragment,
                                 u32 now_ms);
  std::span<const std::byte> add(std::span<const std::byte> ethernet, const Ipv6Packet& fragment,
                                 u32 now_ms);
  void expire(u32 now_ms);

  // What a datagram whose time was over began with, for its sender (time exceeded).
  struct Lost {
    Ipv6Address source, destination;  // IPv4's as ::ffff:a.b.c.d
    // Its first piece as a packet: of IPv4 with eight bytes behind the header (RFC 792), of IPv6 no
    // more than fits an error (RFC 4443 section 3.3).
    std::vector<std::byte> quote;
  };
  std::vector<Lost> take_lost() { return std::exchange(lost_, {}); }
  bool has_lost() const { return !lost_.empty(); }

  bool empty() const { return datagrams_.empty(); }
  u32 next_deadline_ms() const { return datagrams_.front().deadline_ms; }  // REQUIRES: !empty()
  const Counters& counters() const { return counters_; }

 private:
  struct Piece {
    Ipv6Address source, destination;  // IPv4's as ::ffff:a.b.c.d
    u32 identification = 0;
    u8 protocol = 0, type_of_service = 0, time_to_live = 0, ecn = 0;
    bool more = false;
    std::size_t offset = 0;
    std::span<const std::byte> payload;
  };
  struct Datagram {
    Ipv6Address source, destination;
    u32 identification = 0;
    u8 protocol = 0;
    u8 type_of_service = 0, time_to_live = 0;  // of the first fragment
    u16 first_bytes = 0;                       // of it; 0: it did not come
    bool congested = false;                    // a fragment was marked
    u32 deadline_ms = 0;
    std::size_t total = 0, received = 0;  // bytes of payload; total 0: the end is not here yet
    std::vector<std::byte> payload;       // up to the highest byte that came
    std::vector<bool> came;               // of each eight bytes
  };
  enum class Put : u8 { taken, duplicate, contradiction };

  void note_lost(const Datagram& d);
  std::span<const std::byte> add(std::span<const std::byte> ethernet, const Piece& piece,
                                 std::size_t max_payload, u32 now_ms);
  std::vector<Datagram>::iterator find(const Piece& piece);
  std::vector<Datagram>::iterator begin(const Piece& piece, u32 now_ms);
  static Put put(Datagram& d, const Piece& piece);
  std::span<const std::byte> finish(std::span<const std::byte> ethernet, const Datagram& d);

  std::vector<Datagram> datagrams_;  // oldest first
  std::vector<std::byte> frame_;
  std::vector<Lost> lost_;  // no more than max_datagrams
  Counters counters_;
};

}  // namespace cob::net
