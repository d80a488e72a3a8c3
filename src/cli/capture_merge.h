// CaptureMerge: frames of several rings, put in the order of their times. Model: a ring's frames
// come in order but late by up to a turn of its kernel, so what is young is held back; a kernel's
// times are its own word, and are brought within what is possible. One thread.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "net/snap_bean/capture_ring.h"

namespace cob::cli {

class CaptureMerge {
 public:
  static constexpr std::size_t most_bytes =
      std::size_t{64} * 1024 * 1024;  // held back; reaction when full: all are taken, as they are

  void add(std::size_t from, net::CaptureReader::Frame frame, Time earliest, Time latest) {
    const Time said{frame.record.time_ns};
    frame.record.time_ns = std::clamp(said, earliest, std::max(earliest, latest)).ns;
    bytes_ += frame.bytes.size() + sizeof frame;
    held_.push_back({from, next_++, std::move(frame)});
  }
  std::size_t bytes() const { return bytes_; }

  // Calls take(from, frame) in order for all up to `until`; false from it ends that.
  template <typename F>
  void take(Time until, F take) {
    std::ranges::sort(held_, {},
                      [](const Held& h) { return std::pair(h.frame.record.time_ns, h.order); });
    std::size_t taken = 0;
    while (taken < held_.size() && held_[taken].frame.record.time_ns <= until.ns) {
      Held& h = held_[taken++];
      bytes_ -= h.frame.bytes.size() + sizeof h.frame;
      if (!take(h.from, h.frame)) break;
    }
    held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(taken));
  }

 private:
  struct Held {
    std::size_t from;
    u64 order;  // of equal times
    net::CaptureReader::Frame frame;
  };
  std::vector<Held> held_;
  u64 next_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace cob::cli
