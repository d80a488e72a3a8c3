// What ab and redis-benchmark print, and what must not be taken for a result.
#include <gtest/gtest.h>

#include "bench/calls.h"
#include "bench/migrate.h"
#include "bench/report.h"
#include "bench/server_case.h"

namespace cob::bench {
namespace {

std::string ab_report(const std::string& failed, const std::string& more = "") {
  return "Server Software:        nginx/1.22.1\n"
         "Document Length:        96 bytes\n"
         "Time taken for tests:   2.000 seconds\n"
         "Complete requests:      30000\n"
         "Failed requests:        " +
         failed + "\n" + more + "Requests per second:    15000.00 [#/sec] (mean)\n";
}
constexpr const char* percentiles =
    "Percentage served,Time in ms\n49,3.1\n50,3.250\n5,1.0\n99,7.504\n";

TEST(Ab, TakesRateAndPercentiles) {
  const auto run = parse_ab(ab_report("0"), percentiles, 96);
  ASSERT_TRUE(run) << run.why();
  EXPECT_DOUBLE_EQ(run->per_s, 15'000);
  EXPECT_DOUBLE_EQ(run->p50_us, 3'250);
  EXPECT_DOUBLE_EQ(run->p99_us, 7'504);
}

TEST(Ab, RefusesFailuresWrongLengthsAndErrorPages) {
  EXPECT_FALSE(parse_ab(ab_report("3"), percentiles, 96));
  EXPECT_FALSE(parse_ab(ab_report("0"), percentiles, 97));
  EXPECT_FALSE(parse_ab(ab_report("0", "Non-2xx responses:      30000\n"), percentiles, 96));
  EXPECT_FALSE(parse_ab(ab_report("0"), "", 96));
  EXPECT_FALSE(parse_ab("apr_socket_recv: Connection reset by peer (104)\n", percentiles, 96));
}

TEST(RedisBenchmark, TakesTheRowOfItsCsv) {
  const auto run = parse_redis_benchmark(
      "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_"
      "ms\","
      "\"p99_latency_ms\",\"max_latency_ms\"\n"
      "\"GET\",\"82304.52\",\"0.336\",\"0.088\",\"0.295\",\"0.631\",\"0.887\",\"3.191\"\n");
  ASSERT_TRUE(run) << run.why();
  EXPECT_DOUBLE_EQ(run->per_s, 82304.52);
  EXPECT_DOUBLE_EQ(run->p50_us, 295);
  EXPECT_DOUBLE_EQ(run->p99_us, 887);
}

TEST(RedisBenchmark, RefusesErrorsAndNothing) {
  EXPECT_FALSE(parse_redis_benchmark("Error from server: LOADING\n"));
  EXPECT_FALSE(parse_redis_benchmark(""));
}

TEST(CallLine, NeedsItsKeyAndAPositiveFigure) {
  EXPECT_TRUE(parse_call_line("nothing 250.5 310.0 1000\n", "nothing"));
  EXPECT_FALSE(parse_call_line("nothing 250.5 310.0 1000\n", "miss"));
  EXPECT_FALSE(parse_call_line("nothing 0.0 0.0 0\n", "nothing"));
}

TEST(SlowAnswers, OfAMoveAreThoseUnderWay) {
  const auto answers = parse_slow_answers("1000000 20000\nnot a line\n2000000 90000\n");
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(slowest_in(answers, 0, 500), std::nullopt);  // ended later, and began later
  EXPECT_EQ(slowest_in(answers, 500, 985), 20.0);        // began before it was over
  EXPECT_EQ(slowest_in(answers, 995, 3'000), 90.0);
  EXPECT_EQ(slowest_in(answers, 2'001, 3'000), std::nullopt);
}

TEST(Report, IsFlatJsonOfNumbers) {
  Report report;
  report.number("a_per_s", 1234.56789);
  report.number("rounds", 5);
  report.number("nothing", 1.0 / 0.0);
  EXPECT_EQ(report.to_json(), "{\n  \"a_per_s\": 1234.57,\n  \"rounds\": 5\n}\n");
}

TEST(Human, GroupsDigits) {
  EXPECT_EQ(human(1234567.8), "1,234,568");
  EXPECT_EQ(human(999), "999");
  EXPECT_EQ(human(1000), "1,000");
  EXPECT_EQ(human(2.345), "2.35");
}

}  // namespace
}  // namespace cob::bench
