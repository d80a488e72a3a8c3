// What messages cost between two cores, beside the floor: a bare cache line between the same two.
// Model: this process and a forked one, pinned and spinning; the receiver counts what it got.
// All phases share the two processes, so ratios hold on a noisy machine. One thread each.
#pragma once

#include "base/result.h"
#include "base/types.h"

namespace cob::bench {

struct RoundTrip {
  double p50_ns = 0;  // of means of 8 in a row, so that reading the clock weighs little
  double p99_ns = 0;  // of single ones, a clock read included
};

struct MessagesResult {
  RoundTrip word;       // 8 bytes in a line each way: the floor
  RoundTrip line;       // a full line each way, copied on arrival
  RoundTrip bare_ring;  // MessageWriter and MessageReader alone, one 64-byte slot each way
  RoundTrip typed;  // Messenger::request: handler, continuation, deadline, doorbell check; one slot
                    // each way
  double bare_ratio = 0;  // p50 to the word's
  double typed_ratio = 0;
  double one_way_batched_per_s = 0;  // one slot each, flush every 64
  double one_way_single_per_s = 0;   // flush after each
  double empty_poll_ns = 0;          // Messenger::poll with one peer and nothing to do
};

// Takes about `seconds`. ENOTSUP if this process may run on fewer than two cores.
Result<MessagesResult> measure_messages(double seconds);

}  // namespace cob::bench
