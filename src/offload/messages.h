// What a host and an island say to each other about offloading. docs/offload.md, "Messages".
// Model: requests of the host, answered by the island in the order in which they were sent; names,
// handles, sizes and ranges come from the peer and are checked where they arrive. Values.
#pragma once

#include "message/flat.h"

namespace cob::offload {

using message::le;
using message::MessageType;

inline constexpr u32 protocol_version = 1;
inline constexpr std::size_t max_name_bytes = 200;
inline constexpr std::size_t max_buffers = 8;             // of one task
inline constexpr std::size_t max_argument_bytes = 1'024;  // of one launch, without its buffers
inline constexpr u64 no_offset = ~u64{0};
inline constexpr u16 no_ticket = 0xffff;

// Begins a session: what the host had before is released. EPROTONOSUPPORT: another version.
struct Greet {
  static constexpr MessageType type{112};
  le<u32> version;
  le<u32> reserved;
};
struct Greeted {
  static constexpr MessageType type{113};
  le<u32> version;
  le<u32> workers;      // threads that share a loop
  le<u64> arena_bytes;  // of shared memory; 0: buffers are copied
  le<u64> address;      // where the island has it mapped
};

// A task by its name, in the tail. ENOENT; EPROTOTYPE: its signature is another one.
struct Find {
  static constexpr MessageType type{114};
  static constexpr std::size_t max_tail = max_name_bytes;
  le<u64> signature;
};
struct Found {
  static constexpr MessageType type{115};
  le<u32> task;
  le<u32> reserved;
};

// A buffer: `bytes` of the arena from `offset` on, or (no_offset) of the island's own memory,
// zeroed. `element`: the size of what is in it, for islands of another byte order. EINVAL; ENOSPC:
// too many; ENOMEM.
struct Allocate {
  static constexpr MessageType type{116};
  le<u64> bytes;
  le<u64> offset;
  le<u32> element;
  le<u32> reserved;
};
struct Allocated {
  static constexpr MessageType type{117};
  le<u32> buffer;
  le<u32> reserved;
};
struct Release {
  static constexpr MessageType type{118};
  le<u32> buffer;
};

// Bytes for a buffer, in the tail or lent. EBADF: no such buffer; ERANGE: they do not fit.
struct Write {
  static constexpr MessageType type{119};
  static constexpr std::size_t max_tail = 2'048;
  static constexpr bool may_lend = true;
  le<u64> offset;
  le<u32> buffer;
  le<u32> reserved;
};
struct Written {
  static constexpr MessageType type{120};
  le<u64> bytes;
};
struct Read {
  static constexpr MessageType type{121};
  le<u64> offset;
  le<u64> bytes;
  le<u32> buffer;
  le<u32> reserved;
};
// In the tail or lent. EAGAIN: too much is lent just now.
struct Contents {
  static constexpr MessageType type{122};
  static constexpr std::size_t max_tail = 2'048;
  static constexpr bool may_lend = true;
  le<u64> bytes;
};

// Runs a task over [begin, end), in parts of `grain`. Tail: a handle of 4 bytes for each buffer,
// then the arguments. `ticket`: a counter in the arena from which host and island take the parts
// in turns. 44 bytes with two buffers and a float: one line of the ring.
struct Launch {
  static constexpr MessageType type{123};
  static constexpr std::size_t max_tail = max_argument_bytes + max_buffers * 4;
  le<u64> begin;
  le<u64> end;
  le<u64> grain;
  le<u32> task;
  le<u16> buffers;
  le<u16> ticket;
};
struct Finished {
  static constexpr MessageType type{124};
  le<u64> items;  // that ran on the island
};

}  // namespace cob::offload
