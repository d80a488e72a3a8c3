// CUBIC's window. See cubic.h.
// Model: W_cubic(t) = C (t - K)^3 + W_max with C = 0.4, sections 4.1 and 4.2.
// Values; no owner.
#include "net/stack/cubic.h"

#include <algorithm>

namespace cob::net::cubic {
namespace {

constexpr u32 longest_ms = 30'000;  // of |t - K|: beyond, the cube of a jumbo MSS leaves 64 bits

// W_cubic(t), bytes.
u64 window_at(const CubicState& c, u32 mss, u32 t_ms) {
  const bool rising = t_ms >= c.rise_ms;
  const u64 distance = std::min(rising ? t_ms - c.rise_ms : c.rise_ms - t_ms, longest_ms);
  // C segments a second cubed: 0.4 MSS / 10^9 a millisecond cubed.
  const u64 change = distance * distance * distance * 4 * mss / 10'000'000'000;
  if (rising) return c.window_max + change;
  return c.window_max > change ? c.window_max - change : 0;
}

}  // namespace

u32 cube_root(u64 n) {
  u64 root = 0;
  for (u64 bit = u64{1} << 21; bit != 0; bit >>= 1) {
    const u64 next = root | bit;
    if (next <= 2'642'245 && next * next * next <= n) root = next;  // the cube fits 64 bits
  }
  return static_cast<u32>(root);
}

void on_reduction(CubicState& c, u32 window) {
  // Still below the last W_max: another flow wants room (1 + beta over 2).
  c.window_max = window < c.window_max ? static_cast<u32>(u64{window} * 17 / 20) : window;
  c.window_prior = window;
  c.epoch_ms = 0;
}

u32 growth(CubicState& c, u32& credit, u32 window, u32 acked, u32 mss, u32 now_ms, u32 rtt_ms) {
  if (c.epoch_ms == 0) {
    c.epoch_ms = std::max(now_ms, 1u);
    c.reno_window = window;
    if (window >= c.window_max) {
      c.window_max = window;
      c.rise_ms = 0;
    } else {
      // K = cbrt((W_max - cwnd) / C), in segments and seconds.
      c.rise_ms = cube_root(u64{c.window_max - window} * 2'500'000'000 / mss);
    }
  }
  // Section 4.3: W_est rises by alpha = 9/17 of a segment a window acknowledged, from cwnd_prior on
  // by a whole one.
  const u64 share = u64{std::min(acked, window)} * mss;
  const u64 rise = (c.reno_window >= c.window_prior ? share : share * 9 / 17) + credit;
  c.reno_window += static_cast<u32>(rise / window);
  credit = static_cast<u32>(rise % window);
  const u32 t_ms = now_ms - c.epoch_ms;
  if (window_at(c, mss, t_ms) < c.reno_window)
    return c.reno_window > window ? c.reno_window - window : 0;
  // Sections 4.4 and 4.5: towards where the function is a round trip from now, at most 1.5 windows.
  const u64 target = std::clamp<u64>(window_at(c, mss, t_ms + rtt_ms), window, u64{window} * 3 / 2);
  return static_cast<u32>((target - window) * std::min(acked, window) / window);
}

}  // namespace cob::net::cubic
