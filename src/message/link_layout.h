// LinkMemory: what one kernel writes for another: header, state, returned loans, the urgent and the
// normal message ring, the frame ring and its pool, the bulk area. docs/messaging.md, 2.
// Model: one writer per memory (decision 5); what its reader owes in return (credits, armed) lies
// in the memory of the opposite direction. Written by `from`'s thread only.
#pragma once

#include <array>
#include <cstddef>

#include "base/types.h"
#include "message/schema.h"

namespace cob::message {

inline constexpr u32 message_slots = 1'024;  // a line each; further sends give EAGAIN
inline constexpr u32 urgent_slots = 128;     // likewise
inline constexpr u32 frame_entries = 4'096;  // further frames are dropped and counted
inline constexpr u32 pool_bytes = 4U << 20;  // likewise
inline constexpr u32 max_frame_bytes = 65'536 + 128;
inline constexpr u64 max_bulk_bytes = u64{1} << 40;
inline constexpr u32 max_loans = 1'024;  // lent and not returned, a direction; further give EAGAIN

//   0        4        8    10   12 13 14   16                                64
//   +--------+--------+----+----+--+--+----+---------------------------------+
//   |sequence|  tag   |type|len |k |fl|detl|  payload, first 48 bytes        |
//   +--------+--------+----+----+--+--+----+---------------------------------+
//   |  payload, 64 bytes more in every further line of the run               |
//   +------------------------------------------------------------------------+
// The run that begins with the line at ring index i (counted from 0, modulo 2^32) is published by
// sequence = i + 1. Before that the line holds i + 1 - slots, so that where a run may begin there
// is at any time either one, or exactly one lap's age, or a forgery.
struct alignas(cache_line_bytes) Slot {
  static constexpr std::size_t first_payload = 48;
  static constexpr std::size_t more_payload = 64;

  le<u32> sequence;
  le<u32> tag;  // of a request and what answers it; chosen by the requester
  le<u16> type;
  le<u16> length;  // of the payload: message, tail and loan together
  u8 kind;         // MessageKind
  u8 flags;        // flag_* below
  le<u16> detail;  // request: lines reserved for its reply; error: an errno
  std::byte payload[first_payload];
};
static_assert(sizeof(Slot) == 64 && offsetof(Slot, payload) == 16);

enum class MessageKind : u8 { one_way = 0, request = 1, reply = 2, error = 3, cancel = 4 };
inline constexpr u8 last_message_kind = 4;

// Its last bytes are a LoanReference.
inline constexpr u8 flag_loan = 1;

struct LoanReference {
  le<u32> id;  // < max_loans
  le<u32> reserved;
  le<u64> offset;  // into the lender's bulk area
  le<u64> bytes;
};
static_assert(sizeof(LoanReference) == 24);

constexpr u32 lines_for(std::size_t length) {
  if (length <= Slot::first_payload) return 1;
  return 1 + static_cast<u32>((length - Slot::first_payload + Slot::more_payload - 1) /
                              Slot::more_payload);
}
// Bytes of payload, of a run that begins at place `at`, that lie before the ring's end; the rest
// goes on at its beginning.
template <u32 slots>
constexpr std::size_t payload_before_end(u32 at) {
  return std::size_t{slots - at} * sizeof(Slot) - offsetof(Slot, payload);
}

// With tail and loan.
inline constexpr std::size_t max_payload_bytes = max_message_bytes + sizeof(LoanReference);
inline constexpr u32 max_lines = lines_for(max_payload_bytes);
// An urgent one, its tail included: 16 lines.
inline constexpr std::size_t max_urgent_bytes = Slot::first_payload + 15 * Slot::more_payload;

// The same sequence rule over `frame_entries`. Only on coherent links.
struct FrameEntry {
  u32 sequence;
  u32 offset;  // into the pool
  u32 length;  // bytes, 1 to max_frame_bytes
  u32 flags;   // frame_* below
};
static_assert(sizeof(FrameEntry) == 16);
inline constexpr u32 frame_checksum_not_computed = 1;
inline constexpr u32 frame_hops_shift = 1;  // 2 bits: how often it was handed on between kernels
inline constexpr u32 frame_hops_mask = 3;
inline constexpr u32 frame_outward = 8;  // the receiver shall send it by its uplink

struct LinkHeader {
  static constexpr u32 magic_value = 0x6c626f63;  // "cobl"
  static constexpr u32 layout_version = 3;

  le<u32> magic;
  le<u32> version;
  le<u16> from;
  le<u16> to;
  le<u32> from_epoch;
  le<u32> to_epoch;
  le<u32> points;      // how many of `point` count
  le<u64> bulk_bytes;  // of the bulk area that follows the LinkMemory; whole pages
  std::array<SchemaPoint, max_schema_points> point;  // what `from` knows
};

// `starved` beside `armed` asks the peer to ring also when it has freed room for messages.
inline constexpr u32 armed_bit = 1;
inline constexpr u32 starved_bit = 2;

struct LinkState {
  // `from` sleeps: ring its doorbell after publishing.
  alignas(cache_line_bytes) le<u32> armed;
  // Lines that `from` has taken from `to`'s rings.
  alignas(cache_line_bytes) le<u32> normal_consumed;
  alignas(cache_line_bytes) le<u32> urgent_consumed;
  // Entries, likewise.
  alignas(cache_line_bytes) u32 frames_consumed;
  // How many ids of returned loans have been written to `returned`, modulo 2^32.
  alignas(cache_line_bytes) le<u32> loans_returned;
  // Counted up by `from` while it lives; what it means is the transport's business.
  alignas(cache_line_bytes) le<u32> heartbeat;
};

struct LinkMemory {
  alignas(4'096) LinkHeader header;
  alignas(4'096) LinkState state;
  alignas(4'096) le<u32> returned[max_loans];  // the i-th returned loan's id at i mod max_loans
  alignas(4'096) Slot urgent[urgent_slots];
  alignas(4'096) Slot slot[message_slots];
  alignas(4'096) FrameEntry entry[frame_entries];
  alignas(4'096) std::byte pool_area[pool_bytes];

  // The bulk area begins where this struct ends.
  std::byte* bulk() { return reinterpret_cast<std::byte*>(this) + sizeof(LinkMemory); }
  const std::byte* bulk() const {
    return reinterpret_cast<const std::byte*>(this) + sizeof(LinkMemory);
  }
};
static_assert(sizeof(LinkMemory) % 4'096 == 0);
static_assert((message_slots & (message_slots - 1)) == 0);
static_assert((urgent_slots & (urgent_slots - 1)) == 0);
static_assert((frame_entries & (frame_entries - 1)) == 0);

}  // namespace cob::message
