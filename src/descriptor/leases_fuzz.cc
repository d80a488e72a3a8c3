// Fuzzes both sides of file leases. Two peers of a home read, drop, renew, and answer Invalidate
// late, twice over or never; a holder is told any lease, size and cover by a home, and any
// Invalidate. What must hold: a writer gets in within the time that the protocol states whatever
// they do, a lessee that is told of an end before that has heard of it, nothing is left when all
// has been dropped. libFuzzer; one thread, simulated time.
#include <array>

#include "descriptor/holder.h"
#include "descriptor/home.h"
#include "descriptor/leased_file.h"
#include "sim/simulated_clock.h"

namespace {

using namespace cob;
using namespace cob::descriptor;
using message::Incoming;
using message::ReplyToken;
using test::LeasedFile;
using test::LeasedObject;

constexpr u16 kernels = 3;
// A silent or lying peer's: docs/descriptors.md, 3.
constexpr Duration most_wait = Duration::milliseconds(2'300);

class Input {
 public:
  Input(const u8* data, std::size_t size) : data_(data), size_(size) {}
  bool ended() const { return at_ == size_; }
  u8 byte() { return at_ < size_ ? data_[at_++] : u8{0}; }

 private:
  const u8* data_;
  std::size_t size_, at_ = 0;
};

void know_all(message::Messenger& m) {
  m.know<Read>();
  m.know<ReadReply>();
  m.know<Drop>();
  m.know<Dropped>();
  m.know<Renew>();
  m.know<Renewed>();
}

void join(message::Messenger& a, KernelId a_id, message::Messenger& b, KernelId b_id) {
  Fd of_a = a.open_link(b_id, 1).release_value();
  Fd of_b = b.open_link(a_id, 1).release_value();
  a.peer_up(b_id, 1, std::move(of_b)).release_value();
  b.peer_up(a_id, 1, std::move(of_a)).release_value();
}

std::unique_ptr<message::Messenger> make(u16 id) {
  return message::Messenger::create(KernelId(id), 1, kernels).release_value();
}

// A home, and peers that do anything.
class HostilePeers {
 public:
  HostilePeers() {
    for (u16 i = 1; i < kernels; ++i) {
      peer_[i] = make(i);
      know_all(*peer_[i]);
      peer_[i]->on<Invalidate, Invalidated>(
          [this](KernelId, const Invalidate&, ReplyToken<Invalidated> reply) {
            asked_.push_back(std::move(reply));
          });
      join(*messenger_, KernelId(0), *peer_[i], KernelId(i));
    }
    for (u32 i = 0; i < 2; ++i) files_[i].id.inode = i;
    for (u8 i = 0; i < 8; ++i) {
      const KernelId to(static_cast<u16>(1 + i % 2));
      auto object = std::make_unique<LeasedObject>(files_[i / 4]);
      handles_.push_back(home_.open(std::move(object), to, i % 4 > 1).release_value().handle);
    }
  }
  ~HostilePeers() {
    asked_.clear();
    for (auto& one : peer_) one = nullptr;
  }
  void act(Input& in) {
    const u8 what = in.byte();
    const auto peer = static_cast<u16>(1 + what % 2);
    switch (what / 2 % 8) {
      case 0:
        clock_.advance(Duration::milliseconds(in.byte()));
        break;
      case 1:
        ask<Renew, Renewed>(peer, Renew{});
        break;
      case 2:
        if (!asked_.empty()) {
          auto reply = std::move(asked_[in.byte() % asked_.size()]);
          if (in.byte() % 4 != 0) reply.answer({.reserved = 0U});
          std::erase_if(asked_, [](const auto& one) { return !one.valid(); });
        }
        break;
      case 3: {
        Drop m{};
        m.handle = field_of(handles_[in.byte() % handles_.size()]);
        ask<Drop, Dropped>(peer, m);
        break;
      }
      case 4:
        write(files_[in.byte() % 2], in);
        break;
      default: {
        Read m{};
        m.handle = field_of(handles_[in.byte() % handles_.size()]);
        m.bytes = in.byte() * 64U;
        m.where = static_cast<Where>(in.byte() % 5);
        ask<Read, ReadReply>(peer, m);
      }
    }
    turn();
  }
  void end() {
    for (LeasedFile& file : files_) {
      Input nothing(nullptr, 0);
      write(file, nothing);
      VERIFY(file.leases() == 0);
    }
  }

 private:
  // Whatever the peers do meanwhile: they go on with what they are good at.
  void write(LeasedFile& file, Input& in) {
    const Time began = clock_.now();
    while (!file.open_to_write()) {
      VERIFY(clock_.now() < began + most_wait);
      clock_.advance(Duration::milliseconds(1 + in.byte() % 100));
      for (u16 peer = 1; peer < kernels; ++peer) {
        ask<Renew, Renewed>(peer, Renew{});
        Read m{};
        m.handle = field_of(handles_[in.byte() % handles_.size()]);
        m.bytes = 8U;
        m.where = Where::position;
        ask<Read, ReadReply>(peer, m);
      }
      turn();
    }
    file.write();
    file.close();
  }
  template <typename Request, typename Reply>
  void ask(u16 peer, const Request& request) {
    (void)peer_[peer]
        ->request<Request, Reply>(KernelId(0), request, {}, Time::never(),
                                  [](const Result<Reply>&, Incoming&) {})
        .is_error();
  }
  void turn() {
    for (int i = 0; i < 2; ++i) {
      for (u16 peer = 1; peer < kernels; ++peer) {
        peer_[peer]->poll(clock_.now(), 64);
        peer_[peer]->flush();
      }
      messenger_->poll(clock_.now(), 64);
      home_.poll(clock_.now());
      messenger_->flush();
    }
  }

  sim::SimulatedClock clock_;
  std::array<LeasedFile, 2> files_;
  std::unique_ptr<message::Messenger> messenger_ = make(0);
  Home home_{*messenger_, clock_, 1};
  std::array<std::unique_ptr<message::Messenger>, kernels> peer_;
  std::vector<ReplyToken<Invalidated>> asked_;
  std::vector<Handle> handles_;
};

// A holder, and a home that says anything.
class HostileHome {
 public:
  explicit HostileHome(Input& in) : in_(in) {
    know_all(*home_);
    home_->know<Invalidate>();
    home_->know<Invalidated>();
    home_->on<Read, ReadReply>([this](KernelId, const Read&, ReplyToken<ReadReply> reply) {
      ReadReply said{};
      said.bytes = in_.byte() % 16U;
      said.grant = u64{in_.byte() % 4u};
      said.file_lease = u64{in_.byte() % 4u};
      said.file_size = u64{in_.byte()} << in_.byte() % 64;
      said.covered = in_.byte() % 2 == 0;
      const std::array<std::byte, 8> bytes{};
      (void)reply.answer(said, {.tail = bytes});
    });
    home_->on<Drop, Dropped>([](KernelId, const Drop&) -> Result<Dropped> { return Dropped{}; });
    home_->on<Renew, Renewed>([this](KernelId, const Renew&) -> Result<Renewed> {
      return Renewed{.fenced = in_.byte() % 4 == 0};
    });
    holder_.on_lease({.ended =
                          [this](KernelId, u64 number) {
                            VERIFY(number != 0);
                            std::erase(shown_, number);
                          },
                      .extended = [](KernelId, Time) {}});
    join(*home_, KernelId(0), *messenger_, KernelId(1));
  }
  void act() {
    switch (in_.byte() % 6) {
      case 0: {
        const Handle handle{in_.byte() % 8u, 1 + in_.byte() % 2u};
        const auto ref = holder_.opened({.home = KernelId(0),
                                         .handle = handle,
                                         .grant = Grant(in_.byte() % 3u),
                                         .offset = 0,
                                         .appends = false,
                                         .has_offset = true,
                                         .file_lease = in_.byte() % 4u},
                                        clock_.now());
        if (!ref.is_error()) refs_.push_back(ref.value());
        break;
      }
      case 1:
        if (!refs_.empty()) {
          holder_.drop(refs_.back(), [](const Result<u64>&) {});
          refs_.pop_back();
        }
        break;
      case 2:
        (void)home_
            ->request<Invalidate, Invalidated>(KernelId(1), Invalidate{.lease = in_.byte() % 4u},
                                               Time::never(), [](const Result<Invalidated>&) {})
            .is_error();
        break;
      case 3:
        clock_.advance(Duration::milliseconds(in_.byte() * 2));
        break;
      default:
        read();
    }
    turn();
    for (const auto ref : refs_) {
      const auto lease = holder_.file_lease(ref);
      if (const auto at = holder_.resting_offset(ref); lease && at)
        (void)holder_.advance(ref, *at, 1);
    }
    // What was shown and has not ended is some description's.
    for (const u64 number : shown_) {
      VERIFY(std::ranges::any_of(refs_, [&](const auto ref) {
        const auto lease = holder_.file_lease(ref);
        return lease && lease->number == number;
      }));
    }
  }

 private:
  void read() {
    if (refs_.empty()) return;
    const auto ref = refs_[in_.byte() % refs_.size()];
    holder_.read(ref, std::nullopt, 16, [this, ref](Result<Holder::ReadData> data) {
      if (data.is_error() || data.value().file_lease == 0) return;
      const auto lease = holder_.file_lease(ref);
      VERIFY(lease && lease->number == data.value().file_lease);
      if (std::ranges::find(shown_, lease->number) == shown_.end()) shown_.push_back(lease->number);
    });
  }
  void turn() {
    for (int i = 0; i < 3; ++i) {
      messenger_->poll(clock_.now(), 64);
      holder_.poll(clock_.now());
      messenger_->flush();
      home_->poll(clock_.now(), 64);
      home_->flush();
    }
  }

  Input& in_;
  sim::SimulatedClock clock_;
  std::unique_ptr<message::Messenger> home_ = make(0), messenger_ = make(1);
  std::vector<Holder::Ref> refs_;
  std::vector<u64> shown_;
  Holder holder_{*messenger_, clock_};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  Input input(data, size);
  if (input.byte() % 2 == 0) {
    HostilePeers world;
    for (int i = 0; i < 300 && !input.ended(); ++i) world.act(input);
    world.end();
  } else {
    HostileHome world(input);
    for (int i = 0; i < 300 && !input.ended(); ++i) world.act();
  }
  return 0;
}
