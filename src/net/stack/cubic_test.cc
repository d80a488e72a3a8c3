// CUBIC: RFC 9438 sections 4.1 to 4.7, as numbers and on a connection.
// Model: a window is grown by calls alone, time by hand; packet literals as in script.h.
#include "net/stack/cubic.h"

#include "net/stack/script.h"

namespace cob::net {
namespace {

constexpr u32 mss = 1'000;

// A second of ACKs, a window each `rtt_ms`.
u32 run(CubicState& c, u32& credit, u32 window, u32 from_ms, u32 to_ms, u32 rtt_ms) {
  for (u32 now = from_ms; now < to_ms; now += rtt_ms)
    for (u32 acked = 0, round = window; acked < round; acked += mss)
      window += cubic::growth(c, credit, window, mss, mss, now, rtt_ms);
  return window;
}

TEST(Cubic, CubeRootRoundsDown) {
  EXPECT_EQ(cubic::cube_root(0), 0u);
  EXPECT_EQ(cubic::cube_root(26), 2u);
  EXPECT_EQ(cubic::cube_root(27), 3u);
  EXPECT_EQ(cubic::cube_root(UINT64_MAX), 2'642'245u);
}

TEST(Cubic, Rfc9438_4_2_TheWindowIsBackAtItsMaximumAfterKAndPlateausThere) {
  CubicState c{};
  u32 credit = 0;
  cubic::on_reduction(c, 1'000 * mss);
  u32 window = cubic::reduced(1'000 * mss);
  EXPECT_EQ(window, 700 * mss);
  window = run(c, credit, window, 1'000, 1'100, 100);
  // K = cbrt(300 / 0.4) = 9.08 s.
  EXPECT_NEAR(c.rise_ms, 9'085, 5);
  window = run(c, credit, window, 1'100, 5'000, 100);
  EXPECT_NEAR(window, 946 * mss, 10 * mss);  // 1000 - 0.4 * 5.1^3
  window = run(c, credit, window, 5'000, 10'000, 100);
  EXPECT_NEAR(window, 1'000 * mss, 3 * mss);
  window = run(c, credit, window, 10'000, 15'000, 100);
  EXPECT_NEAR(window, 1'048 * mss, 10 * mss);  // 1000 + 0.4 * 4.9^3
}

TEST(Cubic, Rfc9438_4_3_NeverBelowReno) {
  CubicState c{};
  u32 credit = 0;
  cubic::on_reduction(c, 20 * mss);
  u32 window = cubic::reduced(20 * mss);
  window = run(c, credit, window, 1'000, 1'010, 1);
  // W_est: 9/17 of a segment a round trip up to cwnd_prior, where cubic would have gained nothing.
  EXPECT_NEAR(window, 19'300, 1'000);
}

TEST(Cubic, Rfc9438_4_7_FastConvergence) {
  CubicState c{};
  cubic::on_reduction(c, 100 * mss);
  EXPECT_EQ(c.window_max, 100 * mss);
  cubic::on_reduction(c, 80 * mss);
  EXPECT_EQ(c.window_max, 68 * mss);
  cubic::on_reduction(c, 90 * mss);
  EXPECT_EQ(c.window_max, 90 * mss);
}

TEST(Cubic, GrowthIsBoundedByHalfAWindowARoundTrip) {
  CubicState c{};
  u32 credit = 0;
  cubic::on_reduction(c, 10 * mss);
  u32 window = 7 * mss;
  window += cubic::growth(c, credit, window, mss, mss, 1, 100);
  const u32 before = window;
  const u32 more = cubic::growth(c, credit, window, window, mss, 4'000'000, 100);
  EXPECT_LE(more, before / 2);
  EXPECT_LE(cubic::growth(c, credit, 1u << 30, UINT32_MAX, 65'535, 4'000'000'000, 60'000),
            1u << 29);
}

class CubicScript : public Script {
 protected:
  u32 threshold_after_a_loss() {
    layer.send(cookie, std::string(10'000, 'x'));
    for (u32 i = 0; i < 10; ++i) expect({.ack = 101, .data = std::string(1'000, 'x')});
    for (u32 i = 0; i < 3; ++i) send({.seq = 101, .ack = 1});
    poll();
    device.frames.clear();
    return info().slow_start_threshold_bytes;
  }
};

TEST_F(CubicScript, Rfc9438_4_6_IsTheDefaultAndReducesToSevenTenths) {
  establish();
  EXPECT_EQ(info().congestion_control, CongestionControl::cubic);
  EXPECT_EQ(threshold_after_a_loss(), 7'000u);
}

TEST_F(CubicScript, AConnectionMayChooseNewReno) {
  establish();
  stack->set_congestion_control(id(), CongestionControl::new_reno);
  EXPECT_EQ(info().congestion_control, CongestionControl::new_reno);
  EXPECT_EQ(threshold_after_a_loss(), 5'000u);
}

}  // namespace
}  // namespace cob::net
