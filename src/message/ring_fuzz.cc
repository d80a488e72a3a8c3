// Fuzzes the receive side: whatever bytes a peer puts into the memory that it writes, the reader
// survives and says fault. Input: a list of {target, position, bytes} scribbles, a poll after each.
// libFuzzer; one thread.
#include <cstring>
#include <vector>

#include "message/messenger.h"

namespace {

using namespace cob;
using namespace cob::message;

struct Small {
  static constexpr MessageType type{1};
  le<u64> a;
};
struct Large {
  static constexpr MessageType type{2};
  Bytes<400> a;
};
struct Lent {
  static constexpr MessageType type{3};
  static constexpr std::size_t max_tail = 100;
  static constexpr bool may_lend = true;
  le<u64> a;
};
struct Alarm {
  static constexpr MessageType type{4};
  static constexpr Priority priority = Priority::urgent;
  le<u64> a;
};

// Restores the fresh state of what one input can have changed.
struct World {
  std::unique_ptr<Messenger> victim, peer;
  std::vector<Loan> held;
  u32 epoch = 0;

  World() {
    victim = Messenger::create(KernelId(0), 1, 2).release_value();
    victim->on<Small, Large>([](KernelId, const Small&) -> Result<Large> { return Large{}; });
    victim->on<Large>([](KernelId, const Large& m) { VERIFY(m.a[0] == m.a[0]); });
    victim->on<Lent>([this](Incoming& in, const Lent&) {
      VERIFY(in.tail.size() <= Lent::max_tail);
      if (!in.loan.valid()) return;
      volatile std::byte ends = in.loan.bytes().front() | in.loan.bytes().back();
      (void)ends;
      if (held.size() < 8) held.push_back(std::move(in.loan));
    });
    victim->on<Alarm, Small>([](KernelId, const Alarm&) -> Result<Small> { return Small{}; });
  }
  LinkMemory* fresh() {
    ++epoch;
    held.clear();
    peer = Messenger::create(KernelId(1), epoch, 2).release_value();
    peer->know<Small>();
    peer->know<Large>();
    peer->know<Lent>();
    peer->know<Alarm>();
    Fd there = peer->open_link(KernelId(0), 1).release_value();
    Fd back = victim->open_link(KernelId(1), epoch).release_value();
    victim->peer_up(KernelId(1), epoch, std::move(there)).release_value();
    peer->peer_up(KernelId(0), 1, std::move(back)).release_value();
    return peer->links().find(KernelId(0))->out;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static World world;
  LinkMemory* memory = world.fresh();
  (void)world.victim->request<Small, Large>(KernelId(1), Small{}, Time::never(),
                                            [](Result<Large>) {});
  while (size >= 4) {
    const std::size_t at = data[1] | static_cast<std::size_t>(data[2]) << 8;
    const std::size_t bytes = std::min<std::size_t>(data[3], size - 4);
    const std::span<std::byte> areas[] = {
        std::as_writable_bytes(std::span(memory->slot)),
        std::as_writable_bytes(std::span(memory->entry)),
        std::as_writable_bytes(std::span(&memory->state, 1)),
        std::as_writable_bytes(std::span(memory->urgent)),
        std::as_writable_bytes(std::span(memory->returned)),
    };
    const std::span<std::byte> area = areas[data[0] % std::size(areas)];
    const std::size_t from = at % area.size();
    std::memcpy(area.data() + from, data + 4, std::min(bytes, area.size() - from));
    data += 4 + bytes;
    size -= 4 + bytes;
    world.victim->poll({}, 64);
    (void)world.victim->send(KernelId(1), Large{});
    (void)world.victim->request<Alarm, Small>(KernelId(1), Alarm{}, Time::never(),
                                              [](Result<Small>) {});
    if (auto buffer = world.victim->allocate(KernelId(1), 5'000)) {
      Buffer lent = buffer.release_value();
      (void)world.victim->send(KernelId(1), Lent{}, {.lend = &lent});
    }
    world.victim->flush();
    for (Link* link : world.victim->links().active()) {
      Frame frame;
      while (link->connected && link->frames_in.take(frame) == Taken::one) {
        volatile std::byte last = frame.bytes.back();
        (void)last;
      }
      link->frames_in.release();
    }
  }
  (void)world.victim->take_faulted();
  return 0;
}
