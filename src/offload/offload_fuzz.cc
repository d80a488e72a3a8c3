// Fuzzes an island with what a host may send: requests with any numbers, tails and order, to a
// server whose tasks check that they get what they were declared with. Input: a list of
// {operation, five bytes}. libFuzzer; one thread.
#include "offload/server.h"

namespace {

using namespace cob;
using namespace cob::offload;

constexpr Task<In<u32>, InOut<u16>, u64> mix{"mix"};
constexpr u64 arena_bytes = 64 << 10;

struct World {
  TaskSet tasks;
  std::unique_ptr<message::Messenger> host, island;
  std::unique_ptr<Server> server;
  Arena arena;
  std::vector<u32> buffers;

  World() {
    tasks
        .add(mix,
             [](const Part& part, std::span<const u32> from, std::span<u16> to, u64 add) {
               for (u64 i = part.begin; i < part.end && i < to.size() && i < from.size(); ++i)
                 to[i] = static_cast<u16>(from[i] + add);
             })
        .release_value();
    host = message::Messenger::create(KernelId(0), 1, 2).release_value();
    island = message::Messenger::create(KernelId(1), 1, 2).release_value();
    host->know<Greet>();
    host->know<Greeted>();
    host->know<Find>();
    host->know<Found>();
    host->know<Allocate>();
    host->know<Allocated>();
    host->know<Release>();
    host->know<Write>();
    host->know<Written>();
    host->know<Read>();
    host->know<Contents>();
    host->know<Launch>();
    host->know<Finished>();
    server = std::make_unique<Server>(
        *island, tasks, ServerOptions{.host = KernelId(0), .cores = {-1}, .most_bytes = 1 << 16});
    arena = Arena::create(arena_bytes).release_value();
    server->use(Arena::open(arena.fd(), arena.bytes(), 0).release_value());
    Fd there = host->open_link(KernelId(1), 1, {}, 1 << 20).release_value();
    Fd back = island->open_link(KernelId(0), 1, {}, 1 << 20).release_value();
    island->peer_up(KernelId(0), 1, std::move(there)).release_value();
    host->peer_up(KernelId(1), 1, std::move(back)).release_value();
  }
  void poll() {
    host->flush();
    island->poll({}, 100);
    island->flush();
    host->poll({}, 100);
    VERIFY(island->connected(KernelId(0)));
    VERIFY(server->buffers() <= Server::most_buffers);
  }
  template <typename R, typename Q>
  void ask(const Q& q, std::span<const std::byte> tail = {}) {
    (void)host->request<Q, R>(KernelId(1), q, {.tail = tail}, Time::never(),
                              [this](Result<R> r, message::Incoming&) {
                                if constexpr (std::is_same_v<R, Allocated>)
                                  if (r) buffers.push_back(r.value().buffer);
                              });
  }
  u32 pick(u8 which) const {
    return which < 220 && !buffers.empty() ? buffers[which % buffers.size()] : which * 0x10001U;
  }
};

u64 number(u8 code) {  // small ones, and those at the edges
  if (code < 128) return u64{code} * 64;
  if (code < 192) return ~u64{0} - (code - 128U);
  return u64{1} << (code - 192U);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  World world;
  for (; size >= 6; data += 6, size -= 6) {
    const u64 x = number(data[1]), y = number(data[2]);
    std::array<le<u32>, 12> words{};
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = world.pick(data[3 + i % 2]);
    const auto tail = std::as_bytes(std::span(words));
    const std::size_t bytes = data[5] % 48;
    switch (data[0] % 8) {
      case 0:
        world.ask<Greeted>(Greet{data[1] < 250 ? protocol_version : data[1], u32{0}});
        world.buffers.clear();
        break;
      case 1:
        world.ask<Found>(Find{decltype(mix)::signature}, tail.first(bytes));
        break;
      case 2:
        world.ask<Allocated>(Allocate{x, data[3] % 2 == 0 ? no_offset : y, data[4] % 10U, u32{0}});
        break;
      case 3:
        (void)world.host->send(KernelId(1), Release{world.pick(data[1])});
        break;
      case 4:
        world.ask<Written>(Write{x, world.pick(data[3]), u32{0}}, tail.first(bytes));
        break;
      case 5:
        world.ask<Contents>(Read{x, y, world.pick(data[3]), u32{0}});
        break;
      default:
        // A range of many parts is honest, and slow: not what is looked for.
        world.ask<Finished>(
            Launch{x, y - x < 10'000 ? y : x + data[2] % 3U, number(data[4]) | 1U,
                   data[5] < 250 ? 0U : data[5], data[4] < 250 ? u16{2} : u16{data[4]},
                   data[3] % 4 == 0 ? u16{data[2]} : no_ticket},
            tail.first(data[5] < 200 ? 16 : bytes));
    }
    world.poll();
  }
  return 0;
}
