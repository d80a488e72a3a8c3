// What messages cost over TCP under TLS, beside a bare TCP ping-pong between the same two cores.
// Model: this process and a forked one, pinned and spinning, on the loopback; the phases alternate
// in short slices, so ratios hold on a noisy machine. One thread each.
#pragma once

#include "base/result.h"

namespace cob::bench {

struct SocketRoundTrip {
  double p50_ns = 0;
  double p99_ns = 0;
};

struct SocketResult {
  SocketRoundTrip bare;      // 64 bytes each way, recv() and send() spinning, TCP_NODELAY
  SocketRoundTrip sleeping;  // the same, each end blocked in recv(): what is commonly measured
  SocketRoundTrip typed;     // Messenger::request over StreamTransport and TLS, a slot each way
  double typed_ratio = 0;    // p50 to the bare one's
  double typed_sleeping_ratio = 0;   // p50 to the sleeping one's
  double one_way_batched_per_s = 0;  // one slot each, flush every 64, as received
  double one_way_full_per_s = 0;     // flushed only when the ring is full
  double lent_bytes_per_s = 0;       // bulk in loans of 1 MiB, as received
};

// Takes about `seconds`. ENOTSUP if this process may run on fewer than two cores.
Result<SocketResult> measure_socket(double seconds);

}  // namespace cob::bench
