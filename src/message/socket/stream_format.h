// What two kernels say on a byte stream: hellos, then records. docs/messaging.md, 8.
// Model: flat little-endian structs; parsing judges the form alone, its result is a value that can
// only be legal. Pure; any thread.
#pragma once

#include <array>
#include <cstring>
#include <span>

#include "message/link_layout.h"
#include "message/stats.h"

namespace cob::message {

using CobId = std::array<u8, 16>;

inline constexpr u32 stream_magic = 0x73626f63;  // "cobs"
inline constexpr u32 stream_version = 1;
inline constexpr std::size_t max_body_bytes = std::size_t{16} * 1024;   // but of bulk
inline constexpr std::size_t max_piece_bytes = std::size_t{64} * 1024;  // of bulk in one record

enum class RecordKind : u8 {
  lines = 1,
  credits = 2,
  bulk = 3,
  heartbeat = 4,
  bye = 5,
  hello = 6,
  open = 7,
};

enum class RingName : u8 { normal = 0, urgent = 1 };

//   0    1    2        4                8
//   +----+----+--------+----------------+------
//   |kind|ring| count  |     bytes      | body, `bytes` long
//   +----+----+--------+----------------+------
struct RecordHead {
  u8 kind;
  u8 ring;        // of lines, else 0
  le<u16> count;  // runs in lines, ids in credits, else 0
  le<u32> bytes;
};
static_assert(sizeof(RecordHead) == 8);

// What one side has of the other's, since the session began.
struct Received {
  le<u32> normal;   // lines
  le<u32> urgent;   // lines
  le<u32> returns;  // loans' ids
  le<u32> reserved;
  le<u64> bulk;  // bytes, in the order in which they were lent
};
static_assert(sizeof(Received) == 24);

struct Hello {
  le<u32> magic;
  le<u32> version;
  CobId cob;
  le<u16> from;
  le<u16> to;
  le<u32> from_epoch;
  le<u32> to_epoch;  // 0: not known
  le<u32> reserved;
  le<u64> instance;   // drawn by chance at each start: tells two that claim the same epoch apart
  le<u64> attempt;    // of the dialer in this epoch, from 1; the listener repeats it
  le<u64> session;    // dialer: that it has, or 0; listener: that this connection carries
  le<u64> nonce;      // listener: to be repeated in the dialer's `open`
  Received received;  // in that session
};
static_assert(sizeof(Hello) == 96);

// Followed by the sender's LinkHeader if the session is new.
struct Open {
  le<u64> nonce;  // listener: 0
};

// Followed by the ids of the last `count` returns.
struct Credits {
  le<u32> normal;  // lines consumed
  le<u32> urgent;
  le<u64> bulk;     // bytes received
  le<u32> returns;  // made, these included
  le<u32> reserved;
};
static_assert(sizeof(Credits) == 24);

struct Bye {
  le<u32> error;    // an errno, or
  le<u32> refusal;  // a StreamRefusal
};

// Followed by the bytes.
struct Piece {
  le<u64> offset;  // into the bulk area
};

// The head of a record that may follow; `greeting`: hello, open and bye alone, else all but the
// first two.
StreamRefusal check_head(const RecordHead& head, bool greeting);

// Whether `hello` is of this format and for `self` in `cob`.
StreamRefusal check_hello(const Hello& hello, const CobId& cob, KernelId self);

// A run as it travels: its head, then its payload without the lines' seams.
struct Run {
  Slot head;  // its payload is not filled in
  std::span<const std::byte> payload;
  u32 lines = 0;
};
inline constexpr std::size_t run_head_bytes = offsetof(Slot, payload);

// Takes the run at `index` off the front of `body`. False: it cannot be.
bool take_run(std::span<const std::byte>& body, u32 index, Run& run);

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span<const T, 1>(&value, 1));
}

// REQUIRES: bytes.size() >= sizeof(T).
template <typename T>
T read_as(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

}  // namespace cob::message
