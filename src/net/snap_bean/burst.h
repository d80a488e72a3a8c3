// Handing frames over in bursts: the lines that they lie in, and then what their receiver will look
// up, are fetched while frames before them are handled.
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

// The lines of a frame's headers.
inline void fetch_headers(std::span<const std::byte> frame) {
  constexpr std::size_t line = 64;  // bytes
  __builtin_prefetch(frame.data());
  if (frame.size() > line) __builtin_prefetch(frame.data() + line);
}

// `bytes(i)`: frame i of `frames` <= max_burst; `give(i)` hands it to `sink`. False from it: the
// rest is dropped.
template <typename Bytes, typename Give>
void in_turn(std::size_t frames, const FrameSink& sink, Bytes bytes, Give give) {
  constexpr std::size_t looked_up_ahead = 4, fetched_ahead = 2;  // frames
  std::array<FramePlace, max_burst> place;
  const auto look_up = [&](std::size_t i) {
    if (i > 0 && i < frames) place[i] = sink.look_up(bytes(i));
  };
  const auto fetch = [&](std::size_t i) {
    if (i > 0 && i < frames) sink.fetch(place[i]);
  };
  for (std::size_t i = 0; i < looked_up_ahead; ++i) look_up(i);
  for (std::size_t i = 0; i < fetched_ahead; ++i) fetch(i);
  for (std::size_t i = 0; i < frames; ++i) {
    look_up(i + looked_up_ahead);
    fetch(i + fetched_ahead);
    if (!give(i)) return;
  }
}

// `up()`: whether the link still is; what was taken is dropped when a frame's handling ends it.
template <typename Up>
Burst hand_over(message::FrameReader& ring, std::size_t most, Route from, FrameSink& sink, Up up) {
  std::array<message::Frame, max_burst> frame;
  Burst burst;
  while (burst.frames < std::min(most, max_burst)) {
    message::Frame& next = frame[burst.frames];
    const message::Taken taken = ring.take(next);
    if (taken == message::Taken::nothing) break;
    if (taken == message::Taken::fault) {
      burst.fault = true;
      break;
    }
    fetch_headers(next.bytes);
    ++burst.frames;
    burst.bytes += next.bytes.size();
  }
  in_turn(
      burst.frames, sink, [&](std::size_t i) { return frame[i].bytes; },
      [&](std::size_t i) {
        if (!up()) return false;
        const u32 flags = frame[i].flags;
        sink.on_frame(
            frame[i].bytes, from,
            {.checksum_not_computed = (flags & message::frame_checksum_not_computed) != 0,
             .hops = static_cast<u8>(flags >> message::frame_hops_shift & message::frame_hops_mask),
             .outward = (flags & message::frame_outward) != 0});
        return true;
      });
  if (burst.frames > 0) ring.release();
  return burst;
}

}  // namespace cob::net
