// The image of programs that move to another kernel of their island together: how it is written and
// read. Model: first each program and then the descriptions that they hold; flat parts one behind
// the other, and bytes behind the part that counts them; kernels of an island are of one build (the
// head says so). It is written into memory that both kernels map, and read from a private copy:
// what it says is the other kernel's word, checked before it is used. Values; a Writer and a Reader
// belong to who made them.
#pragma once

#include <cstring>
#include <span>
#include <type_traits>

#include "call/layout.h"
#include "kernel/description.h"

namespace cob::kernel {

inline constexpr u32 image_magic = 0x6d626f63;  // "cobm"
inline constexpr u32 image_version = 3;
// What a program may have and still move: images are not larger.
inline constexpr std::size_t most_image_bytes = std::size_t{128} << 20;
inline constexpr u32 no_description = 0xffff'ffff, no_program = 0xffff'ffff;
// Programs that share descriptions move together; reaction beyond: refused.
inline constexpr u32 max_moved_programs = 64;

struct ImageHead {
  u32 magic, version, bytes_of_parts;
  u32 programs, descriptions;
};

// `attached` 0: a forked child that has made no call yet: nothing but what it will take over.
struct ProgramPart {
  u32 attached, unadopted;  // behind all else: UnadoptedPart
  u32 threads;
  u32 low_slots, high_slots, open_slots;
  u32 epoch;  // that the program attached to: it goes on believing in that one
  u32 freed_head, freed_entries;
  u32 ready_rings, offer_rings, unused_offer_ring;
  u32 lent;
  u32 posix_locks;
};

struct UnadoptedPart {
  u32 description;
  u32 known_as;  // the handle by which the child will ask for it
};

struct ThreadPart {
  u32 position, active;
  call::ThreadReply reply;
};

struct ReadyRingPart {
  u32 ring, head, entries;  // the entries follow, the last of them before `head`
};

struct OfferRingPart {
  u32 ring, head;
  Offers offers;
  call::OfferRingEntries entries;
};

struct SlotPart {
  u32 number, generation, ready_position, description;
  u64 posted;
  u32 ready_ring;
  u32 offer_ring;
  u32 wants_accept;
  u32 reserved;
};

struct EndpointPart {
  u32 address;
  u32 port;
  u64 ipv6[2];
};

struct DescriptionPart {
  call::SocketState state;
  u8 flags;
  u16 error;
  u16 last_fill;
  u16 switches;  // of the bools, in order
  EndpointPart local, remote;
  u32 seat_program, seat_slot;  // who has the seat; no_program: the kernel
  u32 receive_chunks;           // behind: each its number and its bytes
  u64 first_position, consumed;
  u32 window_limit, receive_limit, send_limit, send_limit_shown;
  u64 kept_bytes;    // behind
  u32 send_pieces;   // behind
  u64 sent_bytes;    // behind, in place of pieces: of one that goes alone
  u32 tcp_bytes;     // behind; 0: no connection
  u32 route_kernel;  // net::Route of that
  u32 offered_by;    // a description, or none
  u32 queue_of;      // likewise
  u32 has_settings, has_datagram, is_listener, has_memory;
  u64 token;
  u32 former_handle;
  u32 holders;
};

struct PiecePart {
  u32 program, chunk;
  u16 begin, end;
};

struct DatagramPart {
  EndpointPart bound;
  u64 dropped;
  u32 groups;  // behind
  u32 is_bound;
};

struct ListenerPart {
  u32 backlog, next_holder;
  u32 pending, deferred;  // behind: descriptions; and DeferredPart
  u32 handshakes;         // behind: HandshakePart and its bytes
  u32 in_group;           // others listen with it (SO_REUSEPORT)
  EndpointPart local;
};
struct DeferredPart {
  u32 description, reserved;
  i64 until_ns;
};
struct HandshakePart {
  EndpointPart local, remote;
  u32 route_kernel, bytes;
};

// Appends; `full()` once there was no room.
class ImageWriter {
 public:
  explicit ImageWriter(std::span<std::byte> room) : room_(room) {}
  template <typename T>
  void put(const T& part) {
    static_assert(std::is_trivially_copyable_v<T>);
    put_bytes(std::as_bytes(std::span(&part, 1)));
  }
  void put_bytes(std::span<const std::byte> bytes) {
    if (full_ || bytes.size() > room_.size() - at_) {
      full_ = true;
      return;
    }
    if (!bytes.empty()) std::memcpy(room_.data() + at_, bytes.data(), bytes.size());
    at_ += bytes.size();
  }
  std::size_t bytes() const { return at_; }
  bool full() const { return full_; }

 private:
  std::span<std::byte> room_;
  std::size_t at_ = 0;
  bool full_ = false;
};

// Takes what was put, in order; `failed()` once there was less than asked for: then all are zeros.
class ImageReader {
 public:
  explicit ImageReader(std::span<const std::byte> bytes) : left_(bytes) {}
  template <typename T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T part{};
    const auto bytes = take_bytes(sizeof part);
    if (!bytes.empty()) std::memcpy(static_cast<void*>(&part), bytes.data(), sizeof part);
    return part;
  }
  std::span<const std::byte> take_bytes(u64 bytes) {
    if (failed_ || bytes > left_.size()) {
      failed_ = true;
      return {};
    }
    const auto taken = left_.first(bytes);
    left_ = left_.subspan(bytes);
    return taken;
  }
  bool failed() const { return failed_; }
  std::size_t left() const { return left_.size(); }

 private:
  std::span<const std::byte> left_;
  bool failed_ = false;
};

}  // namespace cob::kernel
