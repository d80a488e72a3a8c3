// The rings of an AF_XDP socket, two ends: fill and transmit are written here and read by Linux,
// receive and completion the reverse. Linux Documentation/networking/af_xdp.rst, <linux/if_xdp.h>.
// Model: SPSC, free-running 32-bit indices over a power of two of entries; own progress is kept
// here and published by burst. Linux is trusted with its indices, as with everything else. One
// thread an end.
#pragma once

#include <linux/if_xdp.h>

#include "base/types.h"
#include "message/shared_word.h"

namespace cob::net {

// Where in a mapping the parts of a ring lie; `entries`: a power of two.
template <typename Entry>
struct XdpRingPlace {
  XdpRingPlace(std::byte* memory, const xdp_ring_offset& at, u32 entries)
      : producer(reinterpret_cast<u32*>(memory + at.producer)),
        consumer(reinterpret_cast<u32*>(memory + at.consumer)),
        flags(reinterpret_cast<const u32*>(memory + at.flags)),
        first(reinterpret_cast<Entry*>(memory + at.desc)),
        mask(entries - 1) {}
  static std::size_t bytes(const xdp_ring_offset& at, u32 entries) {
    return static_cast<std::size_t>(at.desc) + std::size_t{entries} * sizeof(Entry);
  }

  u32* producer;
  u32* consumer;
  const u32* flags;
  Entry* first;
  u32 mask;
};

template <typename Entry>
class XdpProducer {
 public:
  explicit XdpProducer(XdpRingPlace<Entry> place)
      : place_(place), next_(message::load_relaxed(*place.producer)) {}

  u32 room() const { return place_.mask + 1 - unread(); }
  // REQUIRES: room() > 0.
  void put(const Entry& entry) { place_.first[next_++ & place_.mask] = entry; }
  void publish() { message::store_release(*place_.producer, next_); }
  // Of those put: what Linux has not taken.
  u32 unread() const { return next_ - message::load_acquire(*place_.consumer); }
  // Linux looks only when it is called.
  bool needs_wakeup() const {
    return (message::load_relaxed(*place_.flags) & XDP_RING_NEED_WAKEUP) != 0;
  }

 private:
  XdpRingPlace<Entry> place_;
  u32 next_;
};

template <typename Entry>
class XdpConsumer {
 public:
  explicit XdpConsumer(XdpRingPlace<Entry> place)
      : place_(place), next_(message::load_relaxed(*place.consumer)) {}

  u32 waiting() const { return message::load_acquire(*place_.producer) - next_; }
  // REQUIRES: waiting() > 0. Linux may not write it again before release().
  Entry take() { return place_.first[next_++ & place_.mask]; }
  void release() { message::store_release(*place_.consumer, next_); }

 private:
  XdpRingPlace<Entry> place_;
  u32 next_;
};

}  // namespace cob::net
