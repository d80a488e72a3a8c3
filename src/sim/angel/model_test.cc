// The model: what must hold of every scheme, and the order of schemes; fixed by seeds, not by time.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "sim/angel/angel_balancer.h"
#include "sim/angel/suite.h"

namespace cob::sim::angel {
namespace {

constexpr u32 connections = 20'000;
constexpr Arrival arrivals[] = {Arrival::even,   Arrival::skew16, Arrival::skew4,
                                Arrival::zipf09, Arrival::zipf11, Arrival::zipf13,
                                Arrival::slowed, Arrival::hung,   Arrival::step};

Figures figures(Scheme scheme, Arrival arrival, Service service, double load = 0.7) {
  return simulate(scheme, {arrival, service, 16, load, connections, 7}, Options{});
}

std::string file(const std::string& path) {
  std::ifstream in(std::string(COB_SOURCE_DIR) + "/" + path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(Model, TheSameSeedGivesTheSameFigures) {
  for (const Scheme scheme : all_schemes) {
    const Figures a = figures(scheme, Arrival::skew16, Service::bimodal);
    const Figures b = figures(scheme, Arrival::skew16, Service::bimodal);
    EXPECT_EQ(a.p50_us, b.p50_us) << name(scheme);
    EXPECT_EQ(a.p999_us, b.p999_us);
    EXPECT_EQ(a.counts.takes, b.counts.takes);
  }
}

TEST(Model, NobodyIsFasterThanTheIdeal) {
  for (const Arrival arrival : {Arrival::even, Arrival::skew16, Arrival::step})
    for (const Service service : {Service::constant, Service::exponential, Service::heavy})
      for (const Scheme scheme : all_schemes)
        EXPECT_GE(figures(scheme, arrival, service).mean_us,
                  figures(Scheme::ideal, arrival, service).mean_us)
            << name(scheme) << " " << name(arrival) << " " << name(service);
}

TEST(Model, AngelFailsNobodyAndIsAheadOfAllButTheIdeal) {
  for (const Arrival arrival : arrivals) {
    const Figures angel = figures(Scheme::angel, arrival, Service::bimodal);
    EXPECT_EQ(angel.counts.failed, 0U) << name(arrival);
    for (const Scheme scheme :
         {Scheme::hash, Scheme::reuseport, Scheme::affinity, Scheme::hermes, Scheme::choices})
      EXPECT_LE(angel.p99_us, figures(scheme, arrival, Service::bimodal).p99_us)
          << name(arrival) << " " << name(scheme);
  }
}

TEST(Model, StaticHashingLosesWhatAStoppedProgramHas) {
  EXPECT_GT(figures(Scheme::hash, Arrival::hung, Service::constant).counts.failed, 0U);
}

// Arrivals that come to each kernel in turn, and leave before the next.
TEST(Model, EvenLoadMovesNothing) {
  const Case c{.kernels = 16, .connections = connections};
  std::vector<Arriving> workload(connections);
  for (u32 i = 0; i < connections; ++i)
    workload[i] = {.at_ns = i64{i} * 10'000,
                   .service_ns = 50'000,
                   .hash = i,
                   .group = static_cast<u16>(i % 16)};
  const Options options;
  AngelBalancer angel(c, options);
  World world(c, options, angel);
  world.run(workload);
  const Counts& counts = world.counts();
  EXPECT_EQ(counts.redirects + counts.takes + counts.refused + counts.group_moves, 0U);
  EXPECT_EQ(counts.failed, 0U);
  EXPECT_EQ(angel.count(net::angel::Cause::kept_free), connections);
}

// The policies one by one: what each is for.
TEST(Model, EachPolicyAloneHelps) {
  const Case c{Arrival::skew16, Service::exponential, 16, 0.6, connections, 7};
  Options none;
  none.settings.redirect = none.settings.take = none.settings.move_groups = false;
  const double without = simulate(Scheme::angel, c, none).mean_us;
  EXPECT_EQ(without, simulate(Scheme::hash, c, none).mean_us);
  for (bool net::angel::Settings::* one :
       {&net::angel::Settings::redirect, &net::angel::Settings::take}) {
    Options only = none;
    only.settings.*one = true;
    EXPECT_LT(simulate(Scheme::angel, c, only).mean_us, without / 2);
  }
}

TEST(Suite, TheSearchFindsWhereTheBoundIsPassed) {
  const angel::Run run{
      {Arrival::even, Service::exponential, 4, 0.8, connections, 7}, Scheme::ideal, {}, true, ""};
  const RunResult found = run_all({run}, 2)[0];
  EXPECT_GT(found.load, 0.5);
  EXPECT_LE(found.figures.p99_us * 1e3, static_cast<double>(bound_ns(Service::exponential)));
  EXPECT_NE(json({found}).find("exponential_even_k4_ideal_bound_per_s"), std::string::npos);
}

TEST(Costs, TheDefaultsAreTheFile) {
  const auto costs = parse_costs(file("docs/angel-costs.json"));
  ASSERT_TRUE(costs);
  EXPECT_EQ(costs.value(), Costs{});
  EXPECT_EQ(parse_costs(costs_json(costs.value())).value(), costs.value());
}

TEST(Costs, AreMadeOfMeasurements) {
  std::string missing;
  const auto costs =
      calibrate({file("docs/benchmarks-messages.json"), file("docs/benchmarks-connections.json"),
                 file("docs/benchmarks-migrate.json")},
                missing);
  ASSERT_TRUE(costs) << missing;
  EXPECT_EQ(costs.value().connection_ns, Costs{}.connection_ns);
  EXPECT_EQ(costs.value().hop_ns, Costs{}.hop_ns);
  EXPECT_EQ(costs.value().wake_ns, Costs{}.wake_ns);
  EXPECT_FALSE(calibrate({file("docs/benchmarks-messages.json")}, missing));
  EXPECT_FALSE(missing.empty());
  EXPECT_FALSE(calibrate({"no"}, missing));
}

TEST(Costs, FilesThatAreNone) {
  for (const char* text : {"", "[]", "{}", "{\"connection_ns\": 1}", "7"})
    EXPECT_FALSE(parse_costs(text)) << text;
  std::string negative = costs_json({});
  negative.replace(negative.find("2445"), 4, "-445");
  EXPECT_FALSE(parse_costs(negative));
}

}  // namespace
}  // namespace cob::sim::angel
