// Fuzzes what other kernels may send about passing and readiness: two peers send any Pass, Hold,
// Drop, Watch and Ready; the kernel under attack gives, watches and drops; sessions end. What must
// hold: bounds; each request of a session that lasts is answered; nothing is left of a peer that
// has ended. libFuzzer; one thread, simulated time.
#include <poll.h>

#include <array>
#include <cstring>

#include "descriptor/passes.h"
#include "descriptor/watcher.h"
#include "descriptor/watches.h"
#include "sim/simulated_clock.h"

namespace {

using namespace cob;
using namespace cob::descriptor;

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

// Ready when `ready` stands.
class Pipe final : public Object {
 public:
  explicit Pipe(bool& ready) : ready_(ready) {}
  ~Pipe() override { cancel_ready(0); }
  ObjectTraits traits() const override { return {}; }
  void read(Position, std::span<std::byte>, Done done) override { done(u64{0}); }
  void write(Position, std::span<const std::byte> from, Done done) override { done(from.size()); }
  void append(std::span<const std::byte> from, Done done) override { done(from.size()); }
  void seek(i64, int, Done done) override { done(Error::of(ESPIPE, "a pipe")); }
  Result<u64> offset() override { return Error::of(EIO, "a pipe"); }
  u32 ready(u32 events) override { return ready_ ? events : 0; }
  Result<u64> when_ready(u32, ReadyDone done) override {
    if (waits_.size() == 4) return Error::of(ENOBUFS, "too many");
    waits_.push_back(std::move(done));
    return u64{1};
  }
  void cancel_ready(u64) override {
    for (auto& done : std::exchange(waits_, {})) done(0);
  }

 private:
  bool& ready_;
  std::vector<ReadyDone> waits_;
};

class World {
 public:
  World() {
    for (u16 i = 1; i < kernels; ++i) join(i);
    passes_.on_arrival([this](KernelId, u32 program, std::span<const Passes::Arrived> all) {
      if (program % 4 == 3) return Result<void>(Error::of(ESRCH, "nobody"));
      for (const auto& one : all) have_.push_back(one.ref);
      return Result<void>();
    });
  }

  void act(Input& in) {
    const u8 what = in.byte();
    const auto peer = static_cast<u16>(1 + what % 2);
    switch (what / 2 % 10) {
      case 0:
        return give(peer);
      case 1:
        return pass(peer, in);
      case 2:
        return watch(peer, in);
      case 3:
        return ready(peer, in);
      case 4:
        return hold(peer, in);
      case 5:
        return drop(peer, in);
      case 6:
        ready_ = in.byte() % 2 == 0;
        return;
      case 7:
        if (in.byte() % 4 == 0) rejoin(peer);
        return;
      case 8:
        return watch_here(in);
      default:
        return drop_here(in);
    }
  }
  void turn() {
    for (int i = 0; i < 3; ++i) {
      for (u16 peer = 1; peer < kernels; ++peer) {
        peer_[peer]->poll(clock_.now(), 64);
        peer_[peer]->flush();
      }
      clock_.advance(Duration::milliseconds(1));
      messenger_->poll(clock_.now(), 64);
      home_.poll(clock_.now());
      watches_.poll();
      holder_.poll(clock_.now());
      watcher_.poll();
      passes_.poll();
      messenger_->flush();
    }
    VERIFY(watches_.size() <= handles_.size() * kernels);
  }
  void end() {
    while (!have_.empty()) drop_last();
    for (int i = 0; i < 10; ++i) turn();
    for (u16 peer = 1; peer < kernels; ++peer) VERIFY(peer_[peer]->outstanding_requests() == 0);
    for (u16 peer = 1; peer < kernels; ++peer) rejoin(peer);
    for (int i = 0; i < 10; ++i) turn();
    VERIFY(home_.size() == 0 && holder_.size() == 0 && watches_.size() == 0);
  }

 private:
  static std::unique_ptr<message::Messenger> make(u16 id, u32 epoch) {
    return message::Messenger::create(KernelId(id), epoch, kernels).release_value();
  }
  void join(u16 i) {
    peer_[i] = make(i, ++epochs_[i]);
    auto& m = *peer_[i];
    m.know<Pass>(), m.know<Passed>(), m.know<Drop>(), m.know<Dropped>(), m.know<Watch>();
    m.know<Watched>(), m.know<Ready>(), m.know<Held>();
    // What is said to be held at a peer is there, or not, as it likes.
    m.on<Hold, Held>(
        [](message::Incoming& incoming, const Hold& hold, message::ReplyToken<Held> reply) {
          std::array<std::byte, max_handles> held{};
          const u32 count = std::min<u32>(hold.count, max_handles);
          for (u32 n = 0; n < count; ++n)
            held[n] = std::byte{static_cast<u8>(incoming.tail[n * sizeof(HandleField)]) % 4 != 3};
          (void)reply.answer({.count = count}, {.tail = std::span(held).first(count)});
        });
    Fd a = messenger_->open_link(KernelId(i), epochs_[i]).release_value();
    Fd b = m.open_link(KernelId(0), 1).release_value();
    messenger_->peer_up(KernelId(i), epochs_[i], std::move(b)).release_value();
    m.peer_up(KernelId(0), 1, std::move(a)).release_value();
  }
  void rejoin(u16 i) {
    messenger_->peer_down(KernelId(i), epochs_[i]);
    watcher_.peer_down(KernelId(i));
    peer_[i]->peer_down(KernelId(0), 1);
    join(i);
  }
  Handle some_handle(Input& in) {
    const u8 choice = in.byte();
    if (choice > 200 || handles_.empty()) return {.slot = in.byte(), .generation = in.byte()};
    return handles_[choice % handles_.size()];
  }
  void give(u16 peer) {
    if (handles_.size() >= 32) return;
    const auto opened = home_.open(std::make_unique<Pipe>(ready_), KernelId(peer), true);
    handles_.push_back(opened.value().handle);
    const Passes::Item item{.home = KernelId(0), .handle = handles_.back(), .name = 1};
    passes_.pass(KernelId(peer), 1, {&item, 1},
                 [this, handle = handles_.back(), peer](const Result<void>& passed) {
                   if (passed.is_error()) home_.withdraw(handle, KernelId(peer));
                 });
  }
  void pass(u16 peer, Input& in) {
    std::array<PassField, max_pass> fields{};
    const u8 shape = in.byte();
    const u32 count = shape == 255 ? max_pass : shape % 4;
    for (u32 i = 0; i < count; ++i) {
      fields[i].handle = field_of(some_handle(in));
      fields[i].name = in.byte();
      fields[i].home = static_cast<u16>(in.byte() % (shape >= 128 ? kernels + 1 : kernels));
      fields[i].traits = static_cast<u8>(shape == 130 ? 255 : in.byte() % 8);
    }
    const Pass m{.count = shape == 131 ? count + 1 : count, .program = in.byte()};
    (void)peer_[peer]
        ->request<Pass, Passed>(KernelId(0), m,
                                {.tail = std::as_bytes(std::span(fields).first(count))},
                                Time::never(), [](Result<Passed>) {})
        .is_error();
  }
  void watch(u16 peer, Input& in) {
    const u8 events = in.byte();
    const Watch m{.handle = field_of(some_handle(in)), .events = events == 255 ? ~0U : events};
    (void)peer_[peer]
        ->request<Watch, Watched>(KernelId(0), m, Time::never(), [](Result<Watched>) {})
        .is_error();
  }
  void ready(u16 peer, Input& in) {
    (void)peer_[peer]
        ->send(KernelId(0), Ready{.handle = field_of(some_handle(in)), .events = in.byte()})
        .is_error();
  }
  void hold(u16 peer, Input& in) {
    const HandleField handle = field_of(some_handle(in));
    (void)peer_[peer]
        ->request<Hold, Held>(KernelId(0), Hold{.count = in.byte() % 8 == 7 ? 9U : 1U},
                              {.tail = std::as_bytes(std::span(&handle, 1))}, Time::never(),
                              [](Result<Held>) {})
        .is_error();
  }
  void drop(u16 peer, Input& in) {
    Drop m{};
    m.handle = field_of(some_handle(in));
    m.grant = in.byte();
    (void)peer_[peer]
        ->request<Drop, Dropped>(KernelId(0), m, Time::never(), [](Result<Dropped>) {})
        .is_error();
  }
  void watch_here(Input& in) {
    if (have_.empty()) return;
    watcher_.watch(have_[in.byte() % have_.size()], in.byte(), [](const Result<u32>&) {});
  }
  void drop_here(Input& in) {
    if (have_.empty()) return;
    std::swap(have_[in.byte() % have_.size()], have_.back());
    drop_last();
  }
  void drop_last() {
    watcher_.forget(have_.back());
    holder_.drop(have_.back(), [](const Result<u64>&) {});
    have_.pop_back();
  }

  sim::SimulatedClock clock_;
  std::array<u32, kernels> epochs_{1, 0, 0};
  bool ready_ = false;
  std::unique_ptr<message::Messenger> messenger_ = make(0, 1);
  Home home_{*messenger_, clock_, 1};
  Watches watches_{*messenger_, home_};
  Holder holder_{*messenger_, clock_};
  Watcher watcher_{*messenger_, holder_};
  Passes passes_{*messenger_, holder_};
  std::array<std::unique_ptr<message::Messenger>, kernels> peer_;
  std::vector<Handle> handles_;
  std::vector<Holder::Ref> have_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  Input input(data, size);
  World world;
  for (int i = 0; i < 300 && !input.ended(); ++i) {
    world.act(input);
    world.turn();
  }
  world.end();
  return 0;
}
