// The memory one kernel writes for another: header, state, message ring, frame ring, frame pool.
// Model: one writer per memory (decision 5); what its reader owes in return (credits, armed) lies
// in the memory of the opposite direction. Written by `from`'s thread only.
#pragma once

#include <array>
#include <cstddef>

#include "base/types.h"
#include "message/flat.h"

namespace cob::message {

inline constexpr u32 message_slots = 1'024;  // further sends give EAGAIN
inline constexpr u32 frame_entries = 4'096;  // further frames are dropped and counted
inline constexpr u32 pool_bytes = 4U << 20;  // likewise
inline constexpr u32 max_frame_bytes = 65'536 + 128;

//   0        4        8    10   12   14   16                                64
//   +--------+--------+----+----+----+----+---------------------------------+
//   |sequence|  tag   |type|len |kind|err |  payload, first 48 bytes        |
//   +--------+--------+----+----+----+----+---------------------------------+
//   |sequence|  payload, 60 bytes more in every further line of the run     |
//   +--------+--------------------------------------------------------------+
// The line at ring index i (counted from 0, modulo 2^32) is published by sequence = i + 1. At
// creation it holds i + 1 - slots, so that a line is at any time either published, or exactly one
// lap old, or forged.
struct alignas(cache_line_bytes) Slot {
  static constexpr std::size_t first_payload = 48;
  static constexpr std::size_t more_payload = 60;

  u32 sequence;
  u32 tag;  // of a request and its reply; chosen by the requester
  u16 type;
  u16 length;  // of the message, without this head
  u16 kind;    // MessageKind
  u16 error;   // of a MessageKind::error: an errno
  std::byte payload[first_payload];
};
static_assert(sizeof(Slot) == 64 && offsetof(Slot, payload) == 16);

enum class MessageKind : u16 { one_way = 0, request = 1, reply = 2, error = 3 };

constexpr u32 lines_for(std::size_t length) {
  if (length <= Slot::first_payload) return 1;
  return 1 + static_cast<u32>((length - Slot::first_payload + Slot::more_payload - 1) /
                              Slot::more_payload);
}
inline constexpr u32 max_lines = lines_for(max_message_bytes);

// The same sequence rule over `frame_entries`.
struct FrameEntry {
  u32 sequence;
  u32 offset;  // into the pool
  u32 length;  // bytes, 1 to max_frame_bytes
  u32 flags;   // frame_* below
};
static_assert(sizeof(FrameEntry) == 16);
inline constexpr u32 frame_checksum_not_computed = 1;

struct LinkHeader {
  static constexpr u32 magic_value = 0x6c626f63;  // "cobl"
  static constexpr u32 layout_version = 1;

  u32 magic;
  u32 version;
  u16 from;
  u16 to;
  u32 from_epoch;
  u32 to_epoch;
  u32 slots;
  u32 entries;
  u32 pool;
  std::array<u64, message_types>
      schema;  // schema_hash() of the types that `from` knows, 0 for others
};

// `starved` beside `armed` asks the peer to ring also when it has freed room for messages.
inline constexpr u32 armed_bit = 1;
inline constexpr u32 starved_bit = 2;

struct LinkState {
  alignas(cache_line_bytes) u32 armed;  // `from` sleeps: ring its doorbell after publishing
  alignas(cache_line_bytes) u32 messages_consumed;  // lines that `from` has taken from `to`'s ring
  alignas(cache_line_bytes) u32 frames_consumed;    // entries, likewise
};

struct LinkMemory {
  alignas(4'096) LinkHeader header;
  alignas(4'096) LinkState state;
  alignas(4'096) Slot slot[message_slots];
  alignas(4'096) FrameEntry entry[frame_entries];
  alignas(4'096) std::byte pool_area[pool_bytes];
};
static_assert(sizeof(LinkMemory) % 4'096 == 0);
static_assert((message_slots & (message_slots - 1)) == 0);
static_assert((frame_entries & (frame_entries - 1)) == 0);

}  // namespace cob::message
