// Fuzzes streams: a peer that sends their messages in any order with any numbers, while the victim
// opens, writes, reads and closes. The link stays up, nothing is left behind. Input: a list of
// {operation, which stream, two bytes of argument}. libFuzzer; one thread.
#include "message/streams/stream.h"

namespace {

using namespace cob;
using namespace cob::message;

constexpr StreamOptions options{
    .window_bytes = 8'192, .max_streams = 12, .max_streams_of_peer = 10};
constexpr u32 service = 7;
constexpr KernelId at_victim{0}, at_peer{1};
constexpr std::array<std::byte, 40'000> some{};

struct World {
  std::unique_ptr<Messenger> victim, peer;
  std::optional<Streams> streams;
  std::vector<StreamId> ours;  // that the victim holds
  std::vector<ReplyToken<StreamOpened>> tokens;
  u32 epoch = 0;

  World() {
    victim = Messenger::create(at_victim, 1, 2).release_value();
    streams.emplace(*victim, options);
    streams->on_open(service, [this](KernelId, StreamId stream) -> Result<void> {
      if (stream.value % 5 == 4) return Error::of(EACCES, "not for you");
      ours.push_back(stream);
      return {};
    });
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() {
    tokens.clear();
    streams.reset();
  }
  void restart() {
    ++epoch;
    tokens.clear();
    peer = Messenger::create(at_peer, epoch, 2).release_value();
    peer->on<StreamOpen, StreamOpened>(
        [this](KernelId, const StreamOpen&, ReplyToken<StreamOpened> token) {
          if (tokens.size() < 20) tokens.push_back(std::move(token));
        });
    peer->know<StreamData>();
    peer->know<StreamCredit>();
    peer->know<StreamReset>();
    Fd there = peer->open_link(at_victim, 1).release_value();
    Fd back = victim->open_link(at_peer, epoch).release_value();
    victim->peer_up(at_peer, epoch, std::move(there)).release_value();
    peer->peer_up(at_victim, 1, std::move(back)).release_value();
  }
  void poll() {
    peer->poll({}, 100);
    peer->flush();
    victim->poll({}, 100);
    streams->poll();
    victim->flush();
    VERIFY(victim->connected(at_peer));
    VERIFY(streams->size() <= options.max_streams);
  }
  StreamId pick(u8 which) const {
    if (which < 200 && !ours.empty()) return ours[which % ours.size()];
    return StreamId(which % 16 | 1U << (12 + which % 8));
  }
  void forge(u8 operation, u8 which, u16 argument);
  void use(u8 operation, StreamId stream, u16 argument);
  void end();
};

void World::forge(u8 operation, u8 which, u16 argument) {
  const u32 to = pick(which).value, from = argument % 4 == 3 ? 0 : argument % 12;
  const std::size_t bytes = argument / 12;
  switch (operation) {
    case 0:
      (void)peer->request<StreamOpen, StreamOpened>(
          at_victim,
          {.stream = which % 12U, .service = argument % 16 == 0 ? 1 : service, .window = argument},
          Time::never(), [](Result<StreamOpened>) {});
      break;
    case 1:
      (void)peer->send(at_victim, StreamData{.to = to, .from = from},
                       {.tail = std::span(some).first(std::min(bytes, StreamData::max_tail))});
      break;
    case 2:
      if (auto buffer = peer->allocate(at_victim, bytes * 4 + 1))
        (void)peer->send(
            at_victim, StreamData{.to = to, .from = from},
            {.tail = std::span(some).first(argument % 64 == 0 ? 1 : 0), .lend = &buffer.value()});
      break;
    case 3:
      (void)peer->send(at_victim, StreamCredit{.to = to, .from = from, .consumed = argument});
      break;
    case 4:
      (void)peer->send(
          at_victim,
          StreamReset{.to = argument % 8 == 0 ? 0 : to, .from = from, .reason = argument / 8U});
      break;
    default:
      if (tokens.empty()) break;
      tokens.back().answer({.stream = which, .window = argument});
      tokens.pop_back();
  }
}

void World::use(u8 operation, StreamId stream, u16 argument) {
  static std::array<std::byte, 40'000> room;
  switch (operation) {
    case 0:
      (void)streams->write(stream, std::span(some).first(argument % some.size()));
      break;
    case 1:
      (void)streams->read(stream, std::span(room).first(argument % room.size()));
      break;
    case 2:
      (void)streams->shutdown_write(stream);
      break;
    case 3:
      (void)streams->close(stream);
      break;
    case 4:
      (void)streams->reset(stream, 1 + argument % 4'095);
      break;
    default:
      if (auto opened = streams->open(at_peer, argument, Time::never(), [](Result<StreamId>) {}))
        ours.push_back(opened.value());
  }
}

void World::end() {
  victim->peer_down(at_peer, epoch);
  streams->poll();
  for (const StreamId stream : ours) (void)streams->close(stream);
  ours.clear();
  VERIFY(streams->size() == 0);
  while (streams->next_ready()) VERIFY(false);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static World world;
  world.restart();
  for (; size >= 4; data += 4, size -= 4) {
    const auto argument = static_cast<u16>(data[2] | data[3] << 8);
    const u8 operation = data[0] % 14;
    if (operation < 6) world.forge(operation, data[1], argument);
    if (operation >= 6 && operation < 12)
      world.use(static_cast<u8>(operation - 6), world.pick(data[1]), argument);
    if (operation == 12) world.streams->next_ready();
    if (data[0] < 200) world.poll();  // else the next comes in the same turn
  }
  world.poll();
  world.end();
  VERIFY(!world.victim->take_faulted());
  return 0;
}
