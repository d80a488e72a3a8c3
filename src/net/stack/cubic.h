// CUBIC, RFC 9438: the window as a cubic function of the time since it was last reduced, and never
// below what Reno would have.
// Model: arithmetic on a CubicState, in whole bytes and milliseconds, so that every machine gives
// the same windows. Values; no owner.
#pragma once

#include "base/types.h"

namespace cob::net {

struct CubicState {
  u32 window_max;    // W_max, bytes; 0: not reduced yet
  u32 window_prior;  // cwnd_prior: what the window was before its last reduction
  u32 epoch_ms;      // when congestion avoidance began; 0: it did not
  u32 rise_ms;       // K: from the epoch to window_max
  u32 reno_window;   // W_est
};

namespace cubic {

// beta_cubic = 0.7 (section 4.6).
constexpr u32 reduced(u32 window) { return static_cast<u32>(u64{window} * 7 / 10); }

// The largest r with r^3 <= n.
u32 cube_root(u64 n);

// A congestion event met `window`: W_max, with fast convergence (section 4.7).
void on_reduction(CubicState& c, u32 window);

// Congestion avoidance (sections 4.2 to 4.5): by how much `window` grows for `acked` bytes.
// `credit`: what the last calls left over.
u32 growth(CubicState& c, u32& credit, u32 window, u32 acked, u32 mss, u32 now_ms, u32 rtt_ms);

}  // namespace cubic
}  // namespace cob::net
