// Host and island together: buffers, launches, dependencies, errors, death; with shared memory and
// with copies. One thread, but for the island's own.
#include <gmock/gmock.h>

#include "offload/test_island.h"

namespace cob::offload {
namespace {

using namespace test;
using testing::Each;

class Both : public testing::TestWithParam<World::Memory> {
 protected:
  World world{GetParam()};
  Host& host = *world.host;
};
INSTANTIATE_TEST_SUITE_P(, Both, testing::Values(World::Memory::shared, World::Memory::copied),
                         [](const auto& of) {
                           return of.param == World::Memory::shared ? "Shared" : "Copied";
                         });

TEST_P(Both, ATaskComputesOnTheIsland) {
  auto task = host.find(saxpy).release_value();
  auto x = host.buffer<float>(1'000).release_value();
  auto y = host.buffer<float>(1'000).release_value();
  std::ranges::fill(x.write().release_value(), 3.F);
  std::ranges::fill(y.write().release_value(), 1.F);
  host.launch(task, {.range = {0, 1'000, 64}}, x, y, 2.F).wait().release_value();
  EXPECT_THAT(y.read().release_value(), Each(7.F));
  EXPECT_EQ(world.server->counts().launches, 1u);
}

TEST_P(Both, BytesMoveOnceAndOnlyWhereTheyMust) {
  auto task = host.find(saxpy).release_value();
  auto x = host.buffer<float>(600'000).release_value();
  auto y = host.buffer<float>(600'000).release_value();
  std::ranges::fill(x.write().release_value(), 1.F);
  for (int i = 0; i < 5; ++i)
    host.launch(task, {.range = {0, 600'000, 600'000}}, x, y, 1.F).wait().release_value();
  EXPECT_THAT(y.read().release_value(), Each(5.F));
  EXPECT_THAT(y.read().release_value(), Each(5.F));
  const bool copied = GetParam() == World::Memory::copied;
  EXPECT_EQ(host.counts().uploaded, copied ? 2'400'000u : 0u);  // y is zeroed on both sides
  EXPECT_EQ(host.counts().fetched, copied ? 2'400'000u : 0u);
}

TEST_P(Both, ALaunchWaitsForThoseBeforeIt) {
  auto task = host.find(twice).release_value();
  auto all = host.buffer<i32>(10).release_value();
  std::ranges::fill(all.write().release_value(), 1);
  std::vector<Future> futures;
  for (int i = 0; i < 20; ++i) {
    const std::span<const Future> after =
        futures.empty() ? std::span<const Future>{} : std::span(futures).last(1);
    futures.push_back(host.launch(task, {.after = after}, all));
  }
  futures.back().wait().release_value();
  EXPECT_THAT(all.read().release_value(), Each(1 << 20));
}

TEST_P(Both, WhatFollowsAFailureIsCancelled) {
  auto task = host.find(twice).release_value();
  auto all = host.buffer<i32>(10).release_value();
  // An impossible range: the island refuses it.
  const Future bad[] = {host.launch(task, {.range = {5, 1, 1}}, all)};
  Future next = host.launch(task, {.after = bad}, all);
  EXPECT_EQ(next.wait().error().code, ECANCELED);
  EXPECT_EQ(Future(bad[0]).wait().error().code, EINVAL);
}

TEST_P(Both, MoreLaunchesThanTheRingHolds) {
  auto task = host.find(numbers).release_value();
  auto to = host.buffer<u64>(4).release_value();
  std::vector<Future> futures;
  for (int i = 0; i < 3'000; ++i) futures.push_back(host.launch(task, {.range = {0, 4, 4}}, to));
  for (Future& future : futures) future.wait().release_value();
  EXPECT_EQ(to.read().release_value()[3], 9'000u);
}

TEST_P(Both, TheDeathOfTheIslandIsTheFuturesError) {
  auto task = host.find(numbers).release_value();
  auto to = host.buffer<u64>(4).release_value();
  world.stopped = true;
  Future future = host.launch(task, {.range = {0, 4, 4}}, to);
  const Future after[] = {future};
  Future next = host.launch(task, {.range = {0, 4, 4}, .after = after}, to);
  EXPECT_FALSE(future.done());
  world.kill_island();
  EXPECT_EQ(future.wait().error().code, ECONNRESET);
  EXPECT_EQ(next.wait().error().code, ECANCELED);
  EXPECT_EQ(host.launch(task, {}, to).wait().error().code, ENETDOWN);
  // Shared bytes are the host's; of copies that the island wrote the latest are lost.
  EXPECT_EQ(to.read().is_error(), GetParam() == World::Memory::copied);
  // Overwritten they are good again, and the task runs at home.
  std::ranges::fill(to.overwrite().release_value(), 0u);
  host.run(task, {0, 4, 1}, to).release_value();
  EXPECT_EQ(to.read().release_value()[3], 3u);
  EXPECT_EQ(host.counts().home, 1u);
}

TEST_P(Both, ABufferMayGoWhileALaunchUsesIt) {
  auto task = host.find(twice).release_value();
  Future future;
  {
    auto all = host.buffer<i32>(10).release_value();
    future = host.launch(task, {}, all);
  }
  future.wait().release_value();
  world.glance();
  EXPECT_EQ(world.server->buffers(), 0u);
}

TEST_P(Both, NamesAndSignaturesMustAgree) {
  EXPECT_EQ(host.find(Task<In<float>>{"nothing"}).error().code, ENOENT);
  EXPECT_EQ(host.find(Task<In<float>, InOut<float>, double>{"saxpy"}).error().code, EPROTOTYPE);
  EXPECT_EQ(host.find(Task<InOut<float>, In<float>, float>{"saxpy"}).error().code, EPROTOTYPE);
}

TEST_P(Both, EveryPartIsDoneOnceWhereverItRuns) {
  auto task = host.find(numbers).release_value();
  auto to = host.buffer<u64>(100'003).release_value();
  u64 rounds = 0;
  for (const Where where : {Where::home, Where::away, Where::both, Where::both}) {
    const auto ran = host.run_at(where, task, {0, 100'003, 17}, to);
    if (where == Where::both && GetParam() == World::Memory::copied) {
      EXPECT_EQ(ran.error().code, EOPNOTSUPP);
    } else {
      ASSERT_TRUE(ran);
      ++rounds;
    }
  }
  const auto all = to.read().release_value();
  for (u64 i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], i * rounds);
}

TEST(Beside, TheLoopTurnsWhileATaskRunsAndOrderIsKept) {
  World world(World::Memory::copied,
              {.host = KernelId(0), .cores = {-1, -1, -1}, .beside_loop = true});
  Host& host = *world.host;
  auto task = host.find(numbers).release_value();
  auto to = host.buffer<u64>(50'000).release_value();
  for (int i = 0; i < 200; ++i) host.launch(task, {.range = {0, 50'000, 1'000}}, to);
  const auto all = to.read().release_value();
  for (u64 i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], i * 200);
}

}  // namespace
}  // namespace cob::offload
