// Handing a ring's frames over in bursts: the lines that the frames lie in, and then what their
// receiver will look up, are fetched while frames before them are handled.
// Model: all frames of a burst are taken from the ring first, and given back together afterwards.
// One reader's thread.
#pragma once

#include <algorithm>
#include <array>

#include "message/frame_ring.h"
#include "net/snap_bean/device.h"

namespace cob::net {

inline constexpr std::size_t max_burst = 32;  // frames of one peer before the next one's turn

struct Burst {
  std::size_t frames = 0;  // taken
  std::size_t bytes = 0;
  bool fault = false;  // the ring broke the protocol, after these
};

// `up()`: whether the link still is; what was taken is dropped when a frame's handling ends it.
template <typename Up>
Burst hand_over(message::FrameReader& ring, std::size_t most, Route from, FrameSink& sink, Up up) {
  constexpr std::size_t looked_up_ahead = 4, fetched_ahead = 2;  // frames
  constexpr std::size_t line = 64;                               // bytes
  std::array<message::Frame, max_burst> frame;
  std::array<FramePlace, max_burst> place;
  Burst burst;
  while (burst.frames < std::min(most, max_burst)) {
    message::Frame& next = frame[burst.frames];
    const message::Taken taken = ring.take(next);
    if (taken == message::Taken::nothing) break;
    if (taken == message::Taken::fault) {
      burst.fault = true;
      break;
    }
    __builtin_prefetch(next.bytes.data());
    if (next.bytes.size() > line) __builtin_prefetch(next.bytes.data() + line);
    ++burst.frames;
    burst.bytes += next.bytes.size();
  }
  const auto look_up = [&](std::size_t i) {
    if (i > 0 && i < burst.frames) place[i] = sink.look_up(frame[i].bytes);
  };
  const auto fetch = [&](std::size_t i) {
    if (i > 0 && i < burst.frames) sink.fetch(place[i]);
  };
  for (std::size_t i = 0; i < looked_up_ahead; ++i) look_up(i);
  for (std::size_t i = 0; i < fetched_ahead; ++i) fetch(i);
  for (std::size_t i = 0; i < burst.frames && up(); ++i) {
    look_up(i + looked_up_ahead);
    fetch(i + fetched_ahead);
    const u32 flags = frame[i].flags;
    sink.on_frame(
        frame[i].bytes, from,
        {.checksum_not_computed = (flags & message::frame_checksum_not_computed) != 0,
         .hops = static_cast<u8>(flags >> message::frame_hops_shift & message::frame_hops_mask)});
  }
  if (burst.frames > 0) ring.release();
  return burst;
}

}  // namespace cob::net
