// For tests: a host and an island in one process, one thread, joined by shared memory; with an
// arena, or without one as over links that copy. Test code only.
#pragma once

#include "message/test_pair.h"
#include "offload/host.h"
#include "offload/server.h"

namespace cob::offload::test {

inline constexpr Task<In<float>, InOut<float>, float> saxpy{"saxpy"};
inline constexpr Task<InOut<u64>> numbers{"numbers"};
inline constexpr Task<InOut<i32>> twice{"twice"};

inline TaskSet some_tasks() {
  TaskSet tasks;
  tasks
      .add(saxpy,
           [](const Part& part, std::span<const float> x, std::span<float> y, float a) {
             for (u64 i = part.begin; i < std::min<u64>(part.end, y.size()); ++i) y[i] += a * x[i];
           })
      .release_value();
  tasks
      .add(numbers,
           [](const Part& part, std::span<u64> to) {
             for (u64 i = part.begin; i < std::min<u64>(part.end, to.size()); ++i) to[i] += i;
           })
      .release_value();
  tasks
      .add(twice,
           [](const Part&, std::span<i32> to) {
             for (i32& one : to) one *= 2;
           })
      .release_value();
  return tasks;
}

struct World final : Turning {
  enum class Memory { shared, copied };
  explicit World(Memory memory, ServerOptions options = {.host = KernelId(0), .cores = {-1}},
                 TaskSet set = some_tasks())
      : tasks(std::move(set)) {
    a = message::Messenger::create(KernelId(0), 1, 2).release_value();
    b = message::Messenger::create(KernelId(1), 1, 2).release_value();
    Host::know(*a);
    server = std::make_unique<Server>(*b, tasks, options);
    Fd there = a->open_link(KernelId(1), 1).release_value();
    Fd back = b->open_link(KernelId(0), 1).release_value();
    b->peer_up(KernelId(0), 1, std::move(there)).release_value();
    a->peer_up(KernelId(1), 1, std::move(back)).release_value();
    Arena arena;
    if (memory == Memory::shared) {
      arena = Arena::create(u64{64} << 20).release_value();
      server->use(Arena::open(arena.fd(), arena.bytes(), 0).release_value());
    }
    host = Host::create(*a, KernelId(1), tasks, *this, std::move(arena)).release_value();
  }
  void glance() override {
    a->poll({}, 64);
    a->flush();
    if (!stopped) {
      b->poll({}, 64);
      server->poll();
      b->flush();
    }
    a->poll({}, 64);
  }
  void turn() override { glance(); }
  void kill_island() {
    stopped = true;
    a->peer_down(KernelId(1), 1);
  }

  TaskSet tasks;
  std::unique_ptr<message::Messenger> a, b;
  std::unique_ptr<Server> server;
  std::unique_ptr<Host> host;
  bool stopped = false;
};

}  // namespace cob::offload::test
