// The fault device. See fault.h.
// Model: splitmix64 from the seed; held frames in a binary heap by (due, order), so equal delays
// keep their order.
// Owned like the device inside.
#include "net/snap_bean/fault.h"

#include <algorithm>
#include <cstring>

namespace cob::net {
namespace {

constexpr std::size_t ethernet_header_bytes = 14;

}  // namespace

FaultDevice::FaultDevice(Device& inner, const Clock& clock, const FaultOptions& options)
    : inner_(inner), clock_(clock), options_(options), random_state_(options.seed) {}

u64 FaultDevice::random() {
  u64 z = (random_state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

std::span<std::byte> FaultDevice::reserve(Route to, std::size_t bytes) {
  open_ = {};
  open_.to = to;
  open_.bytes.resize(bytes);
  return open_.bytes;
}

bool FaultDevice::commit(std::size_t bytes, FrameFlags flags) {
  open_.bytes.resize(bytes);
  open_.flags = flags;
  open_.flags.checksum_not_computed = false;
  if (happens(options_.loss_ppm)) {
    ++counters_.lost;
    return true;
  }
  if (happens(options_.duplicate_ppm)) {
    ++counters_.duplicated;
    submit(open_);
  }
  if (bytes > ethernet_header_bytes && happens(options_.corrupt_ppm)) {
    ++counters_.corrupted;
    const u64 bit = random() % ((bytes - ethernet_header_bytes) * 8);
    open_.bytes[ethernet_header_bytes + bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
  }
  submit(std::move(open_));
  open_ = {};
  return true;
}

void FaultDevice::submit(Held frame) {
  Duration wait = options_.delay;
  if (options_.bytes_per_second != 0) {
    if (options_.queue.ns > 0 && wire_free_ > clock_.now() + options_.queue) {
      ++counters_.queue_full;
      return;
    }
    const u64 wire_ns = frame.bytes.size() * 1'000'000'000 / options_.bytes_per_second;
    wire_free_ = std::max(wire_free_, clock_.now()) + Duration{static_cast<i64>(wire_ns)};
    wait = wait + (wire_free_ - clock_.now());
  }
  if (options_.jitter.ns > 0)
    wait.ns += static_cast<i64>(random() % static_cast<u64>(options_.jitter.ns));
  if (options_.reorder_window.ns > 0 && happens(options_.reorder_ppm)) {
    ++counters_.reordered;
    wait.ns += static_cast<i64>(random() % static_cast<u64>(options_.reorder_window.ns));
  }
  if (wait.ns == 0 || held_.size() >= max_held_frames) return send(frame);
  frame.due = clock_.now() + wait;
  frame.order = next_order_++;
  held_.push_back(std::move(frame));
  std::push_heap(held_.begin(), held_.end(), [](const Held& a, const Held& b) {
    return a.due != b.due ? a.due > b.due : a.order > b.order;
  });
}

void FaultDevice::send(const Held& frame) {
  const auto room = inner_.reserve(frame.to, frame.bytes.size());
  if (room.empty()) {
    ++counters_.inner_full;
    return;
  }
  std::memcpy(room.data(), frame.bytes.data(), frame.bytes.size());
  inner_.commit(frame.bytes.size(), frame.flags);
  ++counters_.sent;
}

void FaultDevice::release_due() {
  const Time now = clock_.now();
  while (!held_.empty() && held_.front().due <= now) {
    std::pop_heap(held_.begin(), held_.end(), [](const Held& a, const Held& b) {
      return a.due != b.due ? a.due > b.due : a.order > b.order;
    });
    send(held_.back());
    held_.pop_back();
  }
}

void FaultDevice::flush() {
  release_due();
  inner_.flush();
}

std::size_t FaultDevice::poll(std::size_t budget, FrameSink& sink) {
  if (!held_.empty()) flush();
  return inner_.poll(budget, sink);
}

Time FaultDevice::next_release() const { return held_.empty() ? Time::never() : held_.front().due; }

}  // namespace cob::net
