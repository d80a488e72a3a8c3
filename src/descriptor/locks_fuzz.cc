// Fuzzes what holders may ask of a home's locks: two peers send any Lock, Drop and Hold, programs
// outside lock on the host, the host refuses to let go, sessions end, time passes. What must hold:
// no two locks of a table exclude each other, the host has what the table says, bounds are kept,
// each request of a session that lasts is answered once its wait is cancelled. libFuzzer; one
// thread, simulated time.
#include <array>

#include "descriptor/lock_host.h"
#include "descriptor/locks.h"
#include "sim/simulated_clock.h"

namespace {

using namespace cob;
using namespace cob::descriptor;

constexpr u32 outside = 1'000'000;
constexpr u16 kernels = 3;

class Input {
 public:
  Input(const u8* data, std::size_t size) : data_(data), size_(size) {}
  bool ended() const { return at_ == size_; }
  u8 byte() { return at_ < size_ ? data_[at_++] : u8{0}; }

 private:
  const u8* data_;
  std::size_t size_, at_ = 0;
};

std::unique_ptr<message::Messenger> make(u16 id) {
  return message::Messenger::create(KernelId(id), 1, kernels).release_value();
}

class World {
 public:
  World() {
    for (u16 i = 1; i < kernels; ++i) {
      asker_[i] = make(i);
      asker_[i]->know<Lock>();
      asker_[i]->know<Locked>();
      asker_[i]->know<Drop>();
      asker_[i]->know<Dropped>();
      join(i);
    }
    for (const u8 how : std::to_array<u8>({0, 1, 8, 9, 6, 15})) open(how);
  }
  ~World() {
    for (auto& one : asker_) one = nullptr;
  }

  void act(Input& in) {
    const u8 what = in.byte();
    const auto peer = static_cast<u16>(1 + what % 2);
    switch (what / 2 % 16) {
      case 0:
        file_of(in).keeps = in.byte() % 4 == 0;
        break;
      case 1:
        file_of(in).flock(outside, static_cast<LockMode>(in.byte() % 3));
        break;
      case 2: {
        const u64 first = in.byte() % 16;
        (void)file_of(in)
            .set(outside, {first, first + in.byte() % 8}, static_cast<LockMode>(in.byte() % 3))
            .is_error();
        break;
      }
      case 3:
        clock_.advance(Duration::milliseconds(in.byte()));
        break;
      case 4:
        open(in.byte());
        break;
      case 5:
        drop(peer, in);
        break;
      case 6:
        if (in.byte() % 4 == 0) rejoin(peer);
        break;
      default:
        lock(peer, in);
    }
    turn();
    check();
  }
  void end() {
    for (auto& file : files_) {
      file.keeps = false;
      file.flock(outside, LockMode::none);
      (void)file.set(outside, {}, LockMode::none).is_error();
    }
    for (u16 peer = 1; peer < kernels; ++peer) {
      for (u32 wait = 0; wait < 256; ++wait) {
        Lock m{};
        m.call = LockCall::cancel;
        m.wait = wait;
        send(peer, m);
        turn();
      }
    }
    for (int i = 0; i < 200; ++i) {
      clock_.advance(Duration::milliseconds(20));
      turn();
    }
    for (u16 peer = 1; peer < kernels; ++peer) VERIFY(asker_[peer]->outstanding_requests() == 0);
    VERIFY(locks_.waits() == 0);
    check();
  }

 private:
  test::HostFile& file_of(Input& in) { return files_[in.byte() % files_.size()]; }

  void join(u16 i) {
    Fd a = home_messenger_->open_link(KernelId(i), epochs_[i]).release_value();
    Fd b = asker_[i]->open_link(KernelId(0), epochs_[0]).release_value();
    home_messenger_->peer_up(KernelId(i), epochs_[i], std::move(b)).release_value();
    asker_[i]->peer_up(KernelId(0), epochs_[0], std::move(a)).release_value();
  }
  void rejoin(u16 i) {
    home_messenger_->peer_down(KernelId(i), epochs_[i]);
    asker_[i]->peer_down(KernelId(0), epochs_[0]);
    asker_[i] = message::Messenger::create(KernelId(i), ++epochs_[i], kernels).release_value();
    asker_[i]->know<Lock>();
    asker_[i]->know<Locked>();
    asker_[i]->know<Drop>();
    asker_[i]->know<Dropped>();
    join(i);
  }
  void open(u8 how) {
    if (handles_.size() >= 64) return;
    auto opened = home_.open(
        std::make_unique<test::HostDescription>(files_[how % 2], how % 8 != 6, how % 8 != 7),
        KernelId(static_cast<u16>(1 + how / 8 % 2)), true);
    handles_.push_back(opened.release_value().handle);
  }
  Handle some_handle(Input& in) {
    const u8 choice = in.byte();
    if (choice == 255) return {.slot = in.byte(), .generation = in.byte()};
    return handles_[choice % handles_.size()];
  }
  void drop(u16 peer, Input& in) {
    Drop m{};
    m.handle = field_of(some_handle(in));
    (void)asker_[peer]
        ->request<Drop, Dropped>(KernelId(0), m, Time::never(), [](Result<Dropped>) {})
        .is_error();
  }
  void lock(u16 peer, Input& in) {
    Lock m{};
    m.handle = field_of(some_handle(in));
    const u8 shape = in.byte();
    m.kind = static_cast<LockKind>(shape % 16 == 15 ? 7 : shape % 3);
    m.mode = static_cast<LockMode>(shape / 16 == 15 ? 9 : shape / 16 % 3);
    const u8 call = in.byte();
    m.call = static_cast<LockCall>(call < 120   ? 0
                                   : call < 210 ? 1
                                   : call < 220 ? 2
                                   : call < 235 ? 3
                                   : call < 245 ? 4
                                   : call < 253 ? 5
                                                : 6);
    m.first = u64{in.byte() % 16u};
    const u8 last = in.byte();
    m.last = last == 255 ? ~u64{0} : last > 240 ? max_lock_offset : m.first + last % 8;
    m.owner = u32{in.byte() % 4u};
    m.wait = u32{in.byte()};
    m.pid = 5U;
    send(peer, m);
  }
  void send(u16 peer, const Lock& m) {
    (void)asker_[peer]
        ->request<Lock, Locked>(KernelId(0), m, Time::never(), [](Result<Locked>) {})
        .is_error();
  }
  void turn() {
    for (int i = 0; i < 2; ++i) {
      for (u16 peer = 1; peer < kernels; ++peer) {
        asker_[peer]->poll(clock_.now(), 64);
        asker_[peer]->flush();
      }
      home_messenger_->poll(clock_.now(), 64);
      home_.poll(clock_.now());
      locks_.poll(clock_.now());
      home_messenger_->flush();
    }
  }
  void check() {
    VERIFY(locks_.waits() <= Locks::max_waits && locks_.ranges() <= Locks::max_ranges);
    for (const auto& file : files_) {
      const LockTable* table = locks_.table(file.id);
      const LockTable none;
      if (table == nullptr) table = &none;
      for (const auto& held : table->held())
        VERIFY(table->conflict(held.owner, held.range, held.mode) == nullptr);
      if (file.keeps) continue;
      LockTable ours;
      for (const auto& held : file.record.held())
        if (held.owner.number != outside) ours.set(held.owner, held.range, held.mode, 0);
      // The host may have more for a moment after it refused to let go; never less.
      for (const auto& part : table->strongest({})) {
        for (const auto& there : ours.strongest(part.range)) VERIFY(there.mode >= part.mode);
      }
    }
  }

  sim::SimulatedClock clock_;
  std::array<test::HostFile, 2> files_{test::HostFile{1, clock_, 1}, test::HostFile{2, clock_, 2}};
  std::array<u32, kernels> epochs_{1, 1, 1};
  std::unique_ptr<message::Messenger> home_messenger_ = make(0);
  Home home_{*home_messenger_, clock_, 1};
  Locks locks_{*home_messenger_, home_, clock_};
  std::array<std::unique_ptr<message::Messenger>, kernels> asker_;
  std::vector<Handle> handles_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  Input input(data, size);
  World world;
  for (int i = 0; i < 300 && !input.ended(); ++i) world.act(input);
  world.end();
  return 0;
}
