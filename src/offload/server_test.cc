// What an island answers to a host that says what cannot be: by name, with its state untouched.
#include "offload/test_island.h"

namespace cob::offload {
namespace {

using namespace test;

class Hostile : public testing::Test {
 protected:
  World world{World::Memory::shared};
  u32 buffer = 0, task = 0;

  void SetUp() override {
    buffer = ask<Allocate, Allocated>({64, 4'096, 4, 0}).release_value().buffer;
    task = world.host->find("twice", decltype(twice)::signature).release_value();
  }
  template <typename Q, typename R>
  Result<R> ask(const Q& question, std::span<const std::byte> tail = {}) {
    std::optional<Result<R>> answer;
    const auto sent = world.a->request<Q, R>(KernelId(1), question, {.tail = tail}, Time::never(),
                                             [&](Result<R> r, message::Incoming&) { answer = r; });
    if (sent.is_error()) return sent.error();
    while (!answer) world.glance();
    return *answer;
  }
  int launch(Launch launch, std::vector<u32> words) {
    return ask<Launch, Finished>(launch, std::as_bytes(std::span(words))).error().code;
  }
};

TEST_F(Hostile, Buffers) {
  const u64 arena = world.host->arena().bytes();
  for (const Allocate& wrong :
       {Allocate{0, 4'096, 4, 0}, Allocate{64, 0, 4, 0}, Allocate{64, 4'097, 4, 0},
        Allocate{64, 4'096, 3, 0}, Allocate{63, 4'096, 4, 0}, Allocate{64, arena, 4, 0},
        Allocate{arena, 4'096, 4, 0}, Allocate{~u64{7}, 4'096, 8, 0},
        Allocate{64, ~u64{7} - 64, 4, 0}})
    EXPECT_EQ((ask<Allocate, Allocated>(wrong).error().code), EINVAL);
  EXPECT_EQ((ask<Allocate, Allocated>({u64{1} << 60, no_offset, 4, 0}).error().code), ENOMEM);
  EXPECT_EQ(world.server->buffers(), 1u);
}

TEST_F(Hostile, Handles) {
  for (const u32 wrong : {0u, buffer + 1, buffer + 0x10000, ~0u}) {
    EXPECT_EQ((ask<Read, Contents>({0, 4, wrong, 0}).error().code), EBADF);
    EXPECT_EQ((ask<Write, Written>({0, wrong, 0}).error().code), EBADF);
    EXPECT_EQ(launch({0, 1, 1, task, 1, no_ticket}, {wrong}), EBADF);
  }
  EXPECT_TRUE(world.a->send(KernelId(1), Release{buffer}));
  EXPECT_TRUE(world.a->send(KernelId(1), Release{buffer}));
  EXPECT_EQ(launch({0, 1, 1, task, 1, no_ticket}, {buffer}), EBADF);
  EXPECT_EQ(world.server->buffers(), 0u);
}

TEST_F(Hostile, Ranges) {
  EXPECT_EQ((ask<Read, Contents>({64, 4, buffer, 0}).error().code), ERANGE);
  EXPECT_EQ((ask<Read, Contents>({0, 0, buffer, 0}).error().code), ERANGE);
  EXPECT_EQ((ask<Read, Contents>({2, 4, buffer, 0}).error().code), ERANGE);
  EXPECT_EQ((ask<Read, Contents>({4, ~u64{3}, buffer, 0}).error().code), ERANGE);
  const std::array<std::byte, 128> bytes{};
  EXPECT_EQ((ask<Write, Written>({0, buffer, 0}, bytes).error().code), ERANGE);
  EXPECT_EQ((ask<Write, Written>({~u64{3}, buffer, 0}, std::span(bytes).first(4)).error().code),
            ERANGE);
}

TEST_F(Hostile, Launches) {
  EXPECT_EQ(launch({0, 1, 1, 99, 1, no_ticket}, {buffer}), ENOENT);
  EXPECT_EQ(launch({2, 1, 1, task, 1, no_ticket}, {buffer}), EINVAL);
  EXPECT_EQ(launch({0, 1, 0, task, 1, no_ticket}, {buffer}), EINVAL);
  EXPECT_EQ(launch({0, 1, 1, task, 2, no_ticket}, {buffer, buffer}), EINVAL);
  EXPECT_EQ(launch({0, 1, 1, task, 1, no_ticket}, {}), EINVAL);
  EXPECT_EQ(launch({0, 1, 1, task, 1, no_ticket}, {buffer, 7}), EINVAL);
  EXPECT_EQ(launch({0, 1, 1, task, 1, arena_tickets}, {buffer}), EINVAL);
  EXPECT_EQ(launch({0, 1, 1, task, 1, no_ticket}, {buffer}), 0);
}

TEST_F(Hostile, AVersionAndStrangers) {
  EXPECT_EQ((ask<Greet, Greeted>({protocol_version + 1, 0}).error().code), EPROTONOSUPPORT);
  EXPECT_EQ(world.server->buffers(), 1u);
  World other(World::Memory::copied);
  EXPECT_EQ(other.server->counts().refused, 0u);
}

TEST(Addresses, AreTakenFromTheHostThatStartedUsOnly) {
  TaskSet tasks = some_tasks();
  tasks
      .add(
          {.name = "loop", .trusts_host = true, .run = [](void (*)(), const Part&, const Call&) {}})
      .release_value();
  for (const bool trusts : {false, true}) {
    World world(World::Memory::shared, {.host = KernelId(0), .cores = {-1}, .trusts_host = trusts},
                tasks);
    const u32 task = world.host->find("loop", 0).release_value();
    Host::Request request;
    request.launch = {
        .begin = 0, .end = 1, .grain = 1, .task = task, .buffers = 0, .ticket = no_ticket};
    EXPECT_EQ(world.host->submit(request, {}).wait().error().code, trusts ? 0 : EPERM);
  }
}

}  // namespace
}  // namespace cob::offload
