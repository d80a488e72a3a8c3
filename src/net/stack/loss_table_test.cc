// Goodput of one bulk transfer over a lossy, long or disorderly wire, held against the snapshot
// loss_table.txt beside this file.
// Model: two stacks in simulated time, each behind a fault device; a cell is the median over seeds,
// so the same code gives the same table to the last digit. COB_ACCEPT_LOSS_TABLE=1 rewrites it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "net/stack/two_stacks.h"

namespace cob::net {
namespace {

constexpr u64 wire_bytes_per_second = 125'000'000;
constexpr u32 frame_bytes = 1'514;
constexpr u32 mss = 1'448;
constexpr u64 seeds = 5;
constexpr u32 most_receive_buffer = 4 * 1024 * 1024;
constexpr std::size_t transfer_bytes = 8'000'000;
constexpr double min_rto_seconds = 0.2;
constexpr const char* snapshot = COB_SOURCE_DIR "/src/net/stack/loss_table.txt";

constexpr const char* heading =
    R"(Goodput of one bulk transfer between two stacks: 8 MB, from connect() until the receiver
sees the end, over a wire of 1 Gbit/s (MSS 1448, faults in both directions). The receive
window begins at 256 KiB and grows to 4 MiB. Simulated time: median of 5 seeds, the same on
every machine. Written by loss_table_test.cc, which compares it.

Three numbers a cell: MB/s; its ratio to the least of the wire's rate, 4 MiB a round trip and,
with loss p, Mathis et al. (1997): MSS / RTT * sqrt(3/2) / sqrt(p); and the ratio to the same with
the equation of RFC 5348 section 3.1 in its place, which also counts timeouts (of RTT + 200 ms).
Mathis leaves timeouts out: at 0.1 and 1 ms one lasts as long as hundreds of round trips. Both
leave slow start out: from 10 ms on it is most of what 8 MB take without loss.
"reorder": held back for up to 0.1 ms, the time of 8 frames.

round trip             0.1 ms                 1 ms                10 ms                50 ms               100 ms
)";

struct Wire {
  std::string name;
  FaultOptions faults;
};

std::vector<Wire> wires() {
  std::vector<Wire> all;
  for (const u32 ppm : {0u, 1'000u, 5'000u, 10'000u, 20'000u, 50'000u, 100'000u})
    all.push_back({fmt::format("loss {} %", ppm / 10'000.0), {.loss_ppm = ppm}});
  for (const u32 ppm : {10'000u, 100'000u})
    all.push_back({fmt::format("reorder {} %", ppm / 10'000),
                   {.reorder_ppm = ppm, .reorder_window = Duration::microseconds(100)}});
  for (const u32 ppm : {10'000u, 100'000u})
    all.push_back({fmt::format("duplicate {} %", ppm / 10'000), {.duplicate_ppm = ppm}});
  return all;
}

constexpr Duration round_trips[] = {Duration::microseconds(100), Duration::milliseconds(1),
                                    Duration::milliseconds(10), Duration::milliseconds(50),
                                    Duration::milliseconds(100)};

// From connect() until the receiver sees the end; bytes a second.
double goodput(FaultOptions faults, Duration round_trip, u64 seed) {
  faults.seed = seed;
  faults.delay = round_trip / 2;
  faults.bytes_per_second = wire_bytes_per_second;
  TwoStacks net(faults, inside_options(), {.inside_frame_bytes = frame_bytes});
  EXPECT_TRUE(net.b.stack->listen({cob_address, Port(80)}, 16));
  net.b.layer.most_receive_buffer = most_receive_buffer;
  net.b.layer.on_data_hook = [](TestLayer& l, u64 c) { l[c].received.clear(); };
  const Time start = net.clock.now();
  const u64 c = net.connect(Port(5000), Port(80)).release_value();
  net.a.layer.send(c, std::string(transfer_bytes, 'x'));
  net.a.stack->shutdown_send(net.a.layer[c].id);
  const auto& accepted = net.b.layer.connections;
  EXPECT_TRUE(net.run([&] { return !accepted.empty() && accepted.begin()->second.peer_closed; },
                      Duration::seconds(36'000)));
  EXPECT_EQ(net.a.layer[c].error, 0);
  return static_cast<double>(transfer_bytes) * 1e9 /
         static_cast<double>((net.clock.now() - start).ns);
}

// What can be hoped for: the wire's rate, the largest window a round trip, and by Mathis et al.
// what the loss leaves; with `timeouts` by RFC 5348 section 3.1, which adds those.
double bound(const FaultOptions& faults, Duration round_trip, bool timeouts) {
  const double seconds = static_cast<double>(round_trip.ns) / 1e9;
  const double wire = static_cast<double>(wire_bytes_per_second) * mss / frame_bytes;
  const double least = std::min(wire, most_receive_buffer / seconds);
  if (faults.loss_ppm == 0) return least;
  const double p = faults.loss_ppm / 1e6;
  double interval = seconds * std::sqrt(2 * p / 3);
  if (timeouts)
    interval += (seconds + min_rto_seconds) * 3 * std::sqrt(3 * p / 8) * p * (1 + 32 * p * p);
  return std::min(least, mss / interval);
}

std::string table() {
  std::string text = heading;
  for (const Wire& wire : wires()) {
    text += fmt::format("{:<14}", wire.name);
    for (const Duration round_trip : round_trips) {
      std::vector<double> runs;
      for (u64 seed = 1; seed <= seeds; ++seed)
        runs.push_back(goodput(wire.faults, round_trip, seed));
      std::ranges::nth_element(runs, runs.begin() + seeds / 2);
      const double median = runs[seeds / 2];
      text += fmt::format("{:>10.3f} {:>4.2f} {:>5.2f}", median / 1e6,
                          median / bound(wire.faults, round_trip, false),
                          median / bound(wire.faults, round_trip, true));
    }
    text += '\n';
  }
  return text;
}

TEST(LossTable, IsAsTheSnapshotSays) {
  const std::string now = table();
  if (std::getenv("COB_ACCEPT_LOSS_TABLE") != nullptr && !HasFailure())
    std::ofstream(snapshot) << now;
  std::ifstream file(snapshot);
  const std::string kept(std::istreambuf_iterator<char>(file), {});
  EXPECT_TRUE(now == kept) << "The table is another now:\n"
                           << now << "Better, or meant? COB_ACCEPT_LOSS_TABLE=1 unit/stack_test "
                           << "--gtest_filter='LossTable.*' writes it to " << snapshot;
}

}  // namespace
}  // namespace cob::net
