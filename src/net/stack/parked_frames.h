// ParkedFrames: frames that wait for the MAC address of their next hop (RFC 1122 section 2.3.2.2,
// RFC 4861 section 7.2.2). Model: so many in all and a few for one address; more are dropped, TCP
// sends them again. Owned by the table of neighbours.
#pragma once

#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "net/stack/stack.h"

namespace cob::net {

inline constexpr u32 most_parked_frames = 32, most_parked_for_one = 4;
inline constexpr u32 most_parked_bytes = 1'600;  // of one frame

// An `Address` of its default value is nobody's.
template <typename Address>
class ParkedFrames {
 public:
  // Room for a frame, or empty.
  std::span<std::byte> park(const Address& next_hop, std::size_t bytes, TcbId tcb) {
    if (bytes > most_parked_bytes) return {};
    if (bytes_.empty()) bytes_.resize(std::size_t{most_parked_frames} * most_parked_bytes);
    u32 same = 0;
    u32 place = most_parked_frames;
    for (u32 i = 0; i < most_parked_frames; ++i) {
      if (frames_[i].next_hop == Address{}) place = i;
      if (frames_[i].next_hop == next_hop) ++same;
    }
    if (place == most_parked_frames || same >= most_parked_for_one) return {};
    frames_[place] = {next_hop, tcb, static_cast<u32>(bytes)};
    return {bytes_.data() + std::size_t{place} * most_parked_bytes, bytes};
  }

  // Gives each frame for `next_hop` to `send`, its destination filled in.
  template <typename Send>
  void release(const Address& next_hop, const MacAddress& mac, const Send& send) {
    for (u32 i = 0; i < most_parked_frames; ++i) {
      if (frames_[i].next_hop != next_hop) continue;
      const std::span frame{bytes_.data() + std::size_t{i} * most_parked_bytes, frames_[i].bytes};
      std::memcpy(frame.data(), mac.bytes.data(), mac.bytes.size());
      send(frame);
      frames_[i] = {};
    }
  }

  // Drops them; `failed` gets the TCB of each that has one.
  template <typename Failed>
  void drop(const Address& next_hop, const Failed& failed) {
    for (Parked& p : frames_) {
      if (p.next_hop != next_hop || next_hop == Address{}) continue;
      const TcbId tcb = p.tcb;
      p = {};
      if (tcb != no_tcb) failed(tcb);
    }
  }

 private:
  struct Parked {
    Address next_hop{};
    TcbId tcb;
    u32 bytes = 0;
  };
  std::array<Parked, most_parked_frames> frames_;
  std::vector<std::byte> bytes_;  // allocated at the first
};

}  // namespace cob::net
