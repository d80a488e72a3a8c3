// The messages by which kernels of an island pass the seat of a socket that programs of several of
// them hold (types 85 to 88); far_seats.h. Values; flat structs.
#pragma once

#include "message/flat.h"

namespace cob::kernel {

// The sender's programs want the description with this token. Errors: ENOENT, it is not known, or
// no socket that can go; EAGAIN, not just now; EOPNOTSUPP, as things are it stays.
struct SeatAsk {
  static constexpr message::MessageType type{85};
  message::le<u64> token;
};
enum class SeatAnswer : u32 {
  comes = 1,  // its image follows, or `refused`
  elsewhere,  // `kernel` has it, or knows who has
};
struct SeatReply {
  static constexpr message::MessageType type{86};
  message::le<u32> answer;
  message::le<u32> kernel;
};

// A piece of an image: which kernels hold the description too (u32: how many, then a u32 each),
// then what MovedGroup reads. The seat is the sender's until it has read `accepted`, then the
// receiver's.
struct SeatImage {
  static constexpr message::MessageType type{87};
  static constexpr std::size_t max_tail = 3'840;
  message::le<u64> token;
  message::le<u32> move;    // the sender's name for it
  message::le<u32> bytes;   // of all pieces
  message::le<u32> offset;  // of this one
  message::le<u32> reserved;
};

enum class SeatStep : u32 {
  accepted = 1,  // to the sender of an image: it can be taken in
  refused,       // either way, before: `value`: an errno
  go,            // to its receiver: the seat is yours
  kept,          // it is not
  left,          // programs of kernel `value` hold it no more; `move`: how often that was handed on
  here,          // the sender has the seat now
  ready,         // by who has the seat: `value`: what poll(2) says of it
};
struct SeatWord {
  static constexpr message::MessageType type{88};
  message::le<u64> token;
  message::le<u32> move;
  message::le<u32> step;
  message::le<u32> value;
  message::le<u32> reserved;
};

static_assert(message::FlatMessage<SeatAsk> && message::FlatMessage<SeatReply> &&
              message::FlatMessage<SeatImage> && message::FlatMessage<SeatWord>);

}  // namespace cob::kernel
