// What two Streams say to each other. docs/messaging.md, 4.
// Model: each end names a stream by a number of its own and addresses the other end's; what it says
// about a stream arrives in order. Values.
#pragma once

#include "message/flat.h"

namespace cob::message {

// A stream's end at one kernel: place and generation, never 0. Valid from open() or its acceptance
// until close() or reset().
using StreamId = Distinct<struct StreamIdTag, u32>;

// How many bytes a receiver may offer to hold.
inline constexpr u32 min_stream_window = 4'096;
inline constexpr u32 max_stream_window = 1U << 30;
// Of a loan that carries a stream's bytes: the fewest, so that a window holds few loans.
inline constexpr u32 min_stream_loan = 4'096;

struct StreamOpen {  // request
  static constexpr MessageType type{8};
  le<u32> stream;  // the opener's end
  le<u32> service;
  le<u32> window;  // bytes that the opener takes before it has given credit
};
struct StreamOpened {  // its reply
  static constexpr MessageType type{9};
  le<u32> stream;  // the acceptor's end
  le<u32> window;
};

// The next bytes of the flow, as a tail or a loan; without either, its end.
struct StreamData {
  static constexpr MessageType type{10};
  static constexpr std::size_t max_tail = 4'180;  // fills 70 lines
  static constexpr bool may_lend = true;
  le<u32> to;    // the receiver's end
  le<u32> from;  // the sender's
};

struct StreamCredit {
  static constexpr MessageType type{11};
  le<u32> to, from;
  le<u32> consumed;  // bytes of the flow that the reader has read, modulo 2^32
};

// The stream is over in both directions.
struct StreamReset {
  static constexpr MessageType type{12};
  le<u32> to;  // 0: the opener says it before it knows; `from` names the stream
  le<u32> from;
  le<u32> reason;  // a Linux errno, 1 to 4095
};

}  // namespace cob::message
