// For tests: two kernels' memories with a window between them, and kernels that come and go there.
// Model: stores arrive at once (direct), or later and one by one (posted); simulated time; a kernel
// that stops without a word is one that nobody polls any more. One thread. Test code only.
#pragma once

#include "message/test_pair.h"
#include "message/window/test_posted.h"
#include "message/window/window.h"

namespace cob::message::test {

struct Urge {
  static constexpr MessageType type{7};
  static constexpr Priority priority = Priority::urgent;
  le<u64> number;
};

enum class Carry { direct, posted };

inline constexpr u64 window_bulk = 64U << 10;
inline constexpr Duration window_lease = Duration::seconds(2);

// Memory that outlives the kernels, as that of a device does.
class WindowWorld {
 public:
  explicit WindowWorld(Carry carry, u64 seed = 1) : random(seed), carry_(carry) {
    for (Mapping& memory : memory_)
      memory = Mapping::anonymous(window_memory_bytes(window_bulk)).release_value();
  }

  // A new kernel at `side`; rings for the former one go to it from now on.
  WindowEnds attach(u16 side) {
    Doorbell doorbell = make_doorbell().release_value();
    button_[side] = std::move(doorbell.button);
    const auto far = memory_[1 - side].bytes();
    const auto bell = [this, side] {
      if (button_[1 - side].valid()) cob::ring(button_[1 - side].ref());
    };
    WindowEnds ends{.mine = memory_[side].bytes(),
                    .theirs = far,
                    .hold = {},
                    .ring = bell,
                    .bell = std::move(doorbell.bell)};
    if (carry_ == Carry::posted) {
      wires_[side].push_back(std::make_unique<PostedWire>(far, bell));
      PostedWire* wire = wires_[side].back().get();
      ends.theirs = wire->shadow();
      ends.ring = [wire] { wire->ring(); };
    }
    return ends;
  }
  // Lets some of what is under way arrive; of the kernels that started last only, so that what
  // former ones have left arrives when the test says so.
  void carry() {
    for (auto& wires : wires_) {
      if (!wires.empty()) wires.back()->deliver(random() % (2 * wires.back()->under_way() + 1));
    }
  }
  void carry_all() {
    for (auto& wires : wires_) {
      if (!wires.empty()) wires.back()->deliver_all();
    }
  }
  std::span<std::byte> memory(u16 side) const { return memory_[side].bytes(); }
  std::vector<std::unique_ptr<PostedWire>>& wires(u16 side) { return wires_[side]; }
  void fill_with_garbage() {
    for (const Mapping& memory : memory_) {
      for (std::byte& byte : memory.bytes()) byte = static_cast<std::byte>(random());
    }
  }

  std::mt19937_64 random;
  Time now = at_ms(1'000);

 private:
  Carry carry_;
  std::array<Mapping, 2> memory_;
  std::array<Fd, 2> button_;
  std::array<std::vector<std::unique_ptr<PostedWire>>, 2> wires_;  // by who writes
};

// One kernel's life at one end of the window.
struct WindowKernel {
  WindowWorld& world;
  End end;
  KernelId peer;
  WindowTransport* transport = nullptr;
  std::vector<u64> notes, urges;
  u64 pages = 0;
  bool torn = false;  // a page was not as it was sent

  WindowKernel(WindowWorld& in, u16 side, u32 epoch = 1,
               WindowTransport::Options options = {.cob = 7, .lease = window_lease, .seed = 0})
      : world(in), end(side, 2, epoch), peer(static_cast<u16>(1 - side)) {
    if (options.seed == 0) options.seed = in.random() | 1;
    auto made = WindowTransport::create(in.attach(side), options).release_value();
    transport = made.get();
    end->on<Note>([this](KernelId, const Note& m) { notes.push_back(m.number); });
    end->on<Page>([this](KernelId, const Page& m) {
      for (const u8 byte : m.bytes) torn = torn || byte != static_cast<u8>(m.number);
      ++pages;
    });
    end->on<Ask, Answer>(
        [](KernelId, const Ask& m) -> Result<Answer> { return Answer{m.number + 1}; });
    end->on<Urge>([this](KernelId, const Urge& m) { urges.push_back(m.number); });
    EXPECT_TRUE(end->watch(end.bells.ref()));
    EXPECT_TRUE(end->add_transport(peer, std::move(made)));
  }

  void turn() {
    end->poll(world.now, 64);
    end->flush();
  }
  bool up() const { return end->connected(peer); }
  Messenger* operator->() const { return end.messenger.get(); }
};

// Turns of both until `done`; false if it does not come to that.
template <typename F>
bool run(WindowWorld& world, WindowKernel& a, WindowKernel& b, F done, int turns = 20'000) {
  for (int i = 0; i < turns; ++i) {
    if (done()) return true;
    world.now = world.now + Duration::microseconds(100);
    a.turn();
    world.carry();
    b.turn();
    world.carry();
  }
  return done();
}
inline bool meet(WindowWorld& world, WindowKernel& a, WindowKernel& b) {
  return run(world, a, b, [&] { return a.up() && b.up(); });
}

}  // namespace cob::message::test
