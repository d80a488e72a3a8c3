// For tests and fuzzers: two kernels of one cob in this process, driven in simulated time, and
// programs that the test plays. Model: the test is the supervisor (it introduces the kernels to
// each other) and the programs (it writes their side of the arena as a shim would, or as none
// would); nothing runs but by turns(). One thread. Test code only.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>
#include <string>

#include "base/doorbell.h"
#include "base/passing.h"
#include "kernel/kernel.h"

namespace cob::kernel::test {

inline constexpr u32 cob_address = 0x0a4d0001;

// A program: its liveness socket and, once attached, both sides of its arena.
class Played {
 public:
  explicit Played(Fd liveness) : liveness_(std::move(liveness)) {}
  ~Played() { unmap(); }
  Played(const Played&) = delete;
  Played& operator=(const Played&) = delete;

  FdRef liveness() const { return liveness_.ref(); }
  void die() { liveness_.reset(); }
  bool attached() const { return ours_ != nullptr; }
  const call::KernelSide& ours() const { return *ours_; }
  call::ProgramSide& theirs() { return *theirs_; }
  const call::KernelSocket& line(u32 slot) const { return ours_->socket[slot]; }
  call::ProgramSocket& own_line(u32 slot) { return theirs_->socket[slot]; }
  const call::ThreadReply& reply(u32 thread = 0) const { return ours_->reply[thread]; }

  void ask_to_attach() {
    call::AttachRequest request{};
    request.kind = static_cast<u32>(call::Hello::attach);
    request.version = call::protocol_version;
    request.pid = 7;
    std::strcpy(request.command, "played");
    (void)send_struct(liveness_.ref(), request, {}, Blocking::never);
  }
  void ask_for_thread(u32 index) {
    const call::ThreadRequest thread{.kind = static_cast<u32>(call::Hello::thread),
                                     .thread = index};
    (void)send_struct(liveness_.ref(), thread, {}, Blocking::never);
  }
  // Takes the kernel's answers; false: it ended the program.
  bool take_answers() {
    while (liveness_.valid()) {
      std::byte bytes[64];
      auto got = receive_datagram(liveness_.ref(), bytes, Blocking::never);
      if (got.is_error()) return got.error().code == EAGAIN;
      if (got.value().bytes == 0) return false;
      if (got.value().descriptors.size() == 3) map(got.value().descriptors);
      u32 kind = 0;
      std::memcpy(&kind, bytes, sizeof kind);
      if (kind == static_cast<u32>(call::Hello::moved) && got.value().descriptors.size() == 1)
        follow(got.value().descriptors[0].ref());
    }
    return false;
  }

  // False: the ring is full.
  bool post(call::CallSlot call, u32 thread = 0) {
    u32& position = position_[thread];
    if (position - load(ours_->consumed[thread].consumed) >= call::ring_slots) return false;
    call::CallSlot& slot = theirs_->ring[thread][position % call::ring_slots];
    call.sequence = slot.sequence;
    slot = call;
    publish(slot.sequence, ++position);
    return true;
  }
  bool answered(u32 thread = 0) const {
    return load(ours_->reply[thread].sequence) == position_[thread];
  }
  static constexpr u32 threads = 4;
  u32 moves() const { return moves_; }

 private:
  void map(const std::vector<Fd>& fds) {
    unmap();
    void* ours = ::mmap(nullptr, sizeof(call::KernelSide), PROT_READ, MAP_SHARED, fds[0].get(), 0);
    void* theirs = ::mmap(nullptr, sizeof(call::ProgramSide), PROT_READ | PROT_WRITE, MAP_SHARED,
                          fds[1].get(), 0);
    VERIFY(ours != MAP_FAILED && theirs != MAP_FAILED);
    ours_ = static_cast<const call::KernelSide*>(ours);
    theirs_ = static_cast<call::ProgramSide*>(theirs);
    position_ = {};
  }
  void follow(FdRef side) {
    void* place = const_cast<call::KernelSide*>(ours_);
    VERIFY(::mmap(place, sizeof(call::KernelSide), PROT_READ, MAP_SHARED | MAP_FIXED, side.get(),
                  0) == place);
    ++moves_;
  }
  void unmap() {
    if (ours_ != nullptr) ::munmap(const_cast<call::KernelSide*>(ours_), sizeof *ours_);
    if (theirs_ != nullptr) ::munmap(theirs_, sizeof *theirs_);
    ours_ = nullptr;
    theirs_ = nullptr;
  }

  Fd liveness_;
  const call::KernelSide* ours_ = nullptr;
  call::ProgramSide* theirs_ = nullptr;
  std::array<u32, call::max_threads> position_{};
  u32 moves_ = 0;
};

class TwoKernels {
 public:
  // With a `share`: of two islands, the first has that directory, as share 3; a window joins them,
  // and time is the host's.
  explicit TwoKernels(const std::string& share = {}) : in_real_time_(!share.empty()) {
    if (in_real_time_) now_ = HostClock::read();
    for (u16 k = 0; k < 2; ++k) {
      auto [mine, kernels] = seqpacket_pair().release_value();
      Node& node = nodes_[k];
      node.supervisor = std::move(mine);
      message::Config config;
      config.kernel = k;
      config.kernels = 2;
      config.epoch = 1;
      config.address = cob_address;
      config.prefix_bits = 24;
      IslandSetup islands;
      if (in_real_time_) {
        config.island[1] = 1;
        config.link_key.fill(9);
        std::strcpy(config.cob_name, "islands");
        Fd root;
        if (k == 0) root = Fd(::open(share.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        islands.shares.push_back(
            {.number = 3, .path = share, .read_only = false, .island = 0, .root = std::move(root)});
      }
      node.kernel =
          Kernel::create(config, std::move(kernels), {}, std::move(islands)).release_value();
      std::byte bytes[64];
      auto hello = receive_datagram(node.supervisor.ref(), bytes, Blocking::never).release_value();
      VERIFY(hello.descriptors.size() == 1);
      void* board =
          ::mmap(nullptr, sizeof(Board), PROT_READ, MAP_SHARED, hello.descriptors[0].get(), 0);
      VERIFY(board != MAP_FAILED);
      node.board = static_cast<const Board*>(board);
      node.board_memory = std::move(hello.descriptors[0]);
    }
    introduce();
    turns(60);
    VERIFY(board(0).heartbeat_ns != 0);
  }
  ~TwoKernels() {
    for (Node& node : nodes_) ::munmap(const_cast<Board*>(node.board), sizeof *node.board);
  }
  TwoKernels(const TwoKernels&) = delete;
  TwoKernels& operator=(const TwoKernels&) = delete;

  Time now() const { return now_; }
  const Board& board(u16 kernel) const { return *nodes_[kernel].board; }

  void turns(u32 count = 1, Duration each = Duration::microseconds(20)) {
    for (u32 i = 0; i < count; ++i) {
      now_ = in_real_time_ ? std::max(HostClock::read(), now_) : now_ + each;
      if (in_real_time_ && each > Duration::microseconds(100)) {
        ::usleep(static_cast<useconds_t>(each.to_us()));
        now_ = HostClock::read();
      }
      for (Node& node : nodes_)
        if (node.kernel != nullptr && !node.stopped) node.kernel->turn(now_);
    }
  }
  // Turns, and leaps to the next deadline when nothing happens, until `done` or for `patience`.
  template <typename F>
  bool until(F done, Duration patience = Duration::seconds(60)) {
    const Time end = now_ + patience;
    for (u32 i = 0; (i < 20'000 || in_real_time_) && now_ < end; ++i) {
      turns(4);
      if (done()) return true;
      if (i % 16 != 15 || in_real_time_) continue;
      turns(1, Duration::milliseconds(6));                      // boards are written every 5 ms
      Time next = std::min(end, now_ + Duration::seconds(10));  // host descriptors have no deadline
      for (Node& node : nodes_)
        if (node.kernel != nullptr && !node.stopped)
          next = std::min(next, node.kernel->next_deadline());
      now_ = std::max(now_, next);
    }
    return done();
  }

  // As a kernel that dies: nobody hears from it any more.
  void end(u16 kernel) { nodes_[kernel].kernel.reset(); }
  // The same, and the other one is told.
  void bury(u16 kernel) {
    end(kernel);
    lose(1 - kernel, kernel);
  }
  // As the supervisor tells `kernel` that the other has ended.
  void lose(u16 kernel, u16 other) {
    const message::Simple down{
        .kind = static_cast<u32>(message::ControlKind::peer_down), .value = other, .epoch = 1};
    send_struct(nodes_[kernel].supervisor.ref(), down, {}).release_value();
    host_turn();
  }
  // As the supervisor tells `kernel` that the other runs, in this epoch; it says nothing.
  void appear(u16 kernel, u16 other, u32 epoch) {
    const message::Simple appeared{.kind = static_cast<u32>(message::ControlKind::peer_appeared),
                                   .value = other,
                                   .epoch = epoch};
    const auto here = make_doorbell().release_value(), there = make_doorbell().release_value();
    const FdRef ends[] = {there.button.ref(), here.bell.ref()};
    send_struct(nodes_[kernel].supervisor.ref(), appeared, ends).release_value();
    host_turn();
  }
  // A kernel that stands still, and goes on.
  void stop(u16 kernel, bool on) { nodes_[kernel].stopped = on; }
  // Angel's policies, and the kernels that drain, as the supervisor tells them.
  void angel(u32 policies, u64 draining = 0) {
    message::AngelNotice notice;
    notice.kind = static_cast<u32>(message::ControlKind::angel);
    notice.policies = policies;
    notice.draining = draining;
    for (Node& node : nodes_) send_struct(node.supervisor.ref(), notice, {}).release_value();
    host_turn();
  }
  // What kernel `at` sees of the other's board is `board` from now on.
  void show_board(u16 at, FdRef board) {
    const message::Simple shown{
        .kind = static_cast<u32>(message::ControlKind::board), .value = 1u - at, .epoch = 1};
    const FdRef fds[] = {board};
    send_struct(nodes_[at].supervisor.ref(), shown, fds).release_value();
    host_turn();
  }
  // Of the first kernel's share.
  std::size_t open_files() const { return nodes_[0].kernel->files()->home()->size(); }
  const Files* files(u16 kernel) const { return nodes_[kernel].kernel->files(); }

  // The kernel's end of a fresh liveness socket goes to the kernel.
  std::unique_ptr<Played> newcomer(u16 kernel) {
    auto [mine, theirs] = seqpacket_pair().release_value();
    const message::Simple hand{.kind = static_cast<u32>(message::ControlKind::program), .value = 7};
    const FdRef end[] = {theirs.ref()};
    send_struct(nodes_[kernel].supervisor.ref(), hand, end).release_value();
    host_turn();
    return std::make_unique<Played>(std::move(mine));
  }
  // As the supervisor asked for a move of the program that attached last (all have pid 7); where
  // the report comes.
  Fd move(u16 from, u16 to) {
    auto [old_end, new_end] = seqpacket_pair().release_value();
    if (to < 2) move_in(to, from, std::move(new_end));
    return move_by(from, to, std::move(old_end));
  }
  // Kernel `to` takes in what comes by the channel.
  void move_in(u16 to, u16 from, Fd channel) {
    const message::Simple in{.kind = static_cast<u32>(message::ControlKind::move_in),
                             .value = from};
    const FdRef to_new[] = {channel.ref()};
    send_struct(nodes_[to].supervisor.ref(), in, to_new).release_value();
  }
  // The other kernel is whoever has the other end of `channel`.
  Fd move_by(u16 from, u16 to, Fd channel) {
    auto [mine, kernels] = seqpacket_pair().release_value();
    const message::Simple out{
        .kind = static_cast<u32>(message::ControlKind::move_out), .value = 7, .reserved = to};
    const FdRef to_old[] = {channel.ref(), kernels.ref()};
    send_struct(nodes_[from].supervisor.ref(), out, to_old).release_value();
    return std::move(mine);
  }
  // As the supervisor passed on `cob migrate PID/TID K`.
  void order_thread(u16 from, u32 tid, u16 to) {
    const message::Simple order{
        .kind = static_cast<u32>(message::ControlKind::move_thread), .value = tid, .reserved = to};
    send_struct(nodes_[from].supervisor.ref(), order, {}).release_value();
    host_turn();
  }
  // As the supervisor asked for a move to another island: {where the report comes, the kernel's end
  // of the liveness socket with `to`}.
  std::pair<Fd, Fd> move_apart(u16 from, u16 to) {
    auto [channel, unused] = seqpacket_pair().release_value();
    auto [mine, kernels] = seqpacket_pair().release_value();
    auto [end, program] = seqpacket_pair().release_value();
    const message::Simple out{.kind = static_cast<u32>(message::ControlKind::move_out),
                              .value = 7,
                              .reserved = to | message::move_apart};
    const FdRef to_old[] = {channel.ref(), kernels.ref(), program.ref()};
    send_struct(nodes_[from].supervisor.ref(), out, to_old).release_value();
    return {std::move(mine), std::move(end)};
  }
  // Its end of a viewer's socket goes to the kernel (kernel/view.h).
  Fd viewer(u16 kernel) {
    auto [mine, theirs] = seqpacket_pair().release_value();
    const message::Simple hand{.kind = static_cast<u32>(message::ControlKind::viewer)};
    const FdRef end[] = {theirs.ref()};
    send_struct(nodes_[kernel].supervisor.ref(), hand, end).release_value();
    host_turn();
    return std::move(mine);
  }
  std::unique_ptr<Played> attached(u16 kernel, u32 threads = 1) {
    auto program = newcomer(kernel);
    attach(*program, threads);
    return program;
  }
  void attach(Played& program, u32 threads = 1) {
    program.ask_to_attach();
    for (u32 t = 0; t < threads; ++t) program.ask_for_thread(t);
    host_turn();
    (void)program.take_answers();
  }
  // Host descriptors are looked at every 500 us only.
  void host_turn() { turns(2, Duration::microseconds(600)); }

  // Posts and waits for the answer; -ETIMEDOUT: none came.
  i32 call(Played& program, const call::CallSlot& call, u32 thread = 0) {
    if (!until([&] { return program.post(call, thread); })) return -ETIMEDOUT;
    const bool came = until([&] { return program.answered(thread); }, Duration::seconds(10));
    return came ? program.reply(thread).result : -ETIMEDOUT;
  }

 private:
  struct Node {
    std::unique_ptr<Kernel> kernel;
    Fd supervisor;
    const Board* board = nullptr;
    Fd board_memory;
    bool stopped = false;
  };

  // As the supervisor does: both are told of each other and get their ends of the doorbells between
  // them, then each gets the memory that the other writes for it.
  void introduce() {
    const std::array doorbells = {make_doorbell().release_value(), make_doorbell().release_value()};
    for (u16 k = 0; k < 2; ++k) {
      const message::Simple appeared{.kind = static_cast<u32>(message::ControlKind::peer_appeared),
                                     .value = 1u - k,
                                     .epoch = 1};
      const FdRef ends[] = {doorbells[1 - k].button.ref(), doorbells[k].bell.ref()};
      send_struct(nodes_[k].supervisor.ref(), appeared, ends).release_value();
    }
    host_turn();
    for (u16 k = 0; k < 2; ++k) {
      message::LinkNotice link;
      const auto got =
          receive_datagram(nodes_[k].supervisor.ref(), std::as_writable_bytes(std::span(&link, 1)),
                           Blocking::never)
              .release_value();
      VERIFY(got.descriptors.size() == 1);
      const message::LinkNotice up{.kind = static_cast<u32>(message::ControlKind::peer_up),
                                   .peer = k,
                                   .peer_epoch = 1,
                                   .own_epoch = 1};
      const FdRef fds[] = {got.descriptors[0].ref()};
      send_struct(nodes_[1 - k].supervisor.ref(), up, fds).release_value();
    }
    host_turn();
    if (in_real_time_) return;  // of two islands
    for (u16 k = 0; k < 2; ++k) show_board(k, nodes_[1 - k].board_memory.ref());
  }

  bool in_real_time_ = false;
  Time now_{1'000'000'000};
  std::array<Node, 2> nodes_;
};

inline call::CallSlot slot_call(call::Op op, u32 socket = 0, u32 generation = 0) {
  call::CallSlot call{};
  call.op = op;
  call.socket = socket;
  call.generation = generation;
  return call;
}

}  // namespace cob::kernel::test
