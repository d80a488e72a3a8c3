// PlayedProgram programs and a supervisor around a whole Kernel that runs on a thread: for tests of
// what hostile programs and peers may do. The test's thread.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <random>
#include <thread>

#include "base/doorbell.h"
#include "base/passing.h"
#include "kernel/kernel.h"

namespace cob::kernel {

inline std::pair<Fd, Fd> pair() {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

// Waits for a datagram; 0 bytes: the other end closed.
inline std::size_t receive(FdRef socket, std::span<std::byte> bytes, std::vector<Fd>& fds) {
  pollfd p{.fd = socket.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&p, 1, 20'000), 1);
  auto got = receive_datagram(socket, bytes);
  if (got.is_error()) return 0;
  fds = std::move(got.value().descriptors);
  return got.value().bytes;
}

// A program as the test plays it: attached, one thread, both sides of its arena mapped.
class PlayedProgram {
 public:
  explicit PlayedProgram(FdRef supervisor) {
    auto [mine, kernels] = pair();
    socket_ = std::move(mine);
    const message::Simple hand{.kind = static_cast<u32>(message::ControlKind::program), .value = 7};
    const FdRef end[] = {kernels.ref()};
    EXPECT_FALSE(send_struct(supervisor, hand, end).is_error());
    call::AttachRequest request{};
    request.kind = static_cast<u32>(call::Hello::attach);
    request.version = call::protocol_version;
    request.pid = 7;
    EXPECT_FALSE(send_struct(socket_.ref(), request).is_error());
    std::byte reply[64];
    std::vector<Fd> fds;
    receive(socket_.ref(), reply, fds);
    EXPECT_EQ(fds.size(), 3u);
    if (fds.size() != 3) return;
    ours_ = static_cast<const call::KernelSide*>(
        ::mmap(nullptr, sizeof(call::KernelSide), PROT_READ, MAP_SHARED, fds[0].get(), 0));
    theirs_ = static_cast<call::ProgramSide*>(::mmap(
        nullptr, sizeof(call::ProgramSide), PROT_READ | PROT_WRITE, MAP_SHARED, fds[1].get(), 0));
    // The kernel's side cannot be mapped writable by a program, whatever it tries.
    EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0].get(), 0),
              MAP_FAILED);
    kernel_bell_ = std::move(fds[2]);
    introduce_thread();
  }
  // Asks for a thread's bell, sending `surplus` along if it is valid.
  void introduce_thread(FdRef surplus = FdRef()) {
    const call::ThreadRequest thread{.kind = static_cast<u32>(call::Hello::thread), .thread = 0};
    const FdRef fds[] = {surplus};
    EXPECT_FALSE(
        send_struct(socket_.ref(), thread, std::span(fds, surplus.valid() ? 1 : 0)).is_error());
    call::AttachReply reply{};
    std::vector<Fd> bells;
    receive(socket_.ref(), std::as_writable_bytes(std::span(&reply, 1)), bells);
    EXPECT_EQ(reply.result, 0);
    ASSERT_EQ(bells.size(), 1u);
    bell_ = std::move(bells[0]);
  }
  ~PlayedProgram() {
    if (ours_ != nullptr) ::munmap(const_cast<call::KernelSide*>(ours_), sizeof *ours_);
    if (theirs_ != nullptr) ::munmap(theirs_, sizeof *theirs_);
  }
  PlayedProgram(const PlayedProgram&) = delete;
  PlayedProgram& operator=(const PlayedProgram&) = delete;

  call::ProgramSide& theirs() { return *theirs_; }
  // As before a fork or a relay; the child's end.
  Fd offer_child() {
    auto [mine, kernels] = pair();
    const u32 hello = static_cast<u32>(call::Hello::child);
    const FdRef end[] = {kernels.ref()};
    (void)send_struct(socket_.ref(), hello, end);
    return std::move(mine);
  }
  const call::KernelSocket& line(u32 number) const { return ours_->socket[number]; }
  FdRef socket() const { return socket_.ref(); }
  FdRef kernel_bell() const { return kernel_bell_.ref(); }
  FdRef bell() const { return bell_.ref(); }
  // Waits until the kernel has slept without a break for a while.
  bool kernel_sleeps() const {
    u32 seen = 0;
    for (int i = 0, quiet = 0; i < 20'000; ++i) {
      const u32 armed = load(ours_->armed.armed);
      quiet = armed > call::armed_nap && armed == seen ? quiet + 1 : 0;
      seen = armed;
      if (quiet == 20) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  // A call of a thread that sleeps for its answer; both ring once. -1: no answer in 5 s.
  i32 call_asleep(call::CallSlot slot) {
    publish(theirs_->armed[0].armed, 1u);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!post(slot)) return -1;
    while (load(ours_->reply[0].sequence) != position_) {
      pollfd p{.fd = bell_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&p, 1, 5'000) != 1) return -1;
      reset_bell(bell_.ref());
    }
    publish(theirs_->armed[0].armed, 0u);
    return ours_->reply[0].result;
  }
  bool ended() const {
    pollfd p{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&p, 1, 0) == 1;
  }
  // False: the ring stayed full because the kernel ended us.
  bool post(call::CallSlot call) {
    while (position_ - load(ours_->consumed[0].consumed) >= call::ring_slots) {
      if (ended()) return false;
      ring();
      std::this_thread::yield();
    }
    call::CallSlot& slot = theirs_->ring[0][position_ % call::ring_slots];
    call.sequence = slot.sequence;
    slot = call;
    publish(slot.sequence, ++position_);
    ring();
    return true;
  }
  // The answer to a synchronous call, or -1 after 20 s.
  i32 call(call::CallSlot slot) {
    if (!post(slot)) return -1;
    for (int i = 0; i < 20'000; ++i) {
      if (load(ours_->reply[0].sequence) == position_) return ours_->reply[0].result;
      ring();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return -1;
  }

 private:
  void ring() {
    const u64 one = 1;
    if (load(ours_->armed.armed) == 0) return;
    [[maybe_unused]] const ssize_t n = ::write(kernel_bell_.get(), &one, sizeof one);
  }

  Fd socket_, kernel_bell_, bell_;
  const call::KernelSide* ours_ = nullptr;
  call::ProgramSide* theirs_ = nullptr;
  u32 position_ = 0;
};

class Hostile : public testing::Test {
 protected:
  explicit Hostile(u16 kernels_of_cob = 1) {
    auto [mine, kernels] = pair();
    supervisor_ = std::move(mine);
    message::Config config;
    config.kernels = kernels_of_cob;
    config.epoch = 1;
    config.address = 0x0a4d0001;
    config.prefix_bits = 24;
    auto created = Kernel::create(config, std::move(kernels));
    EXPECT_FALSE(created.is_error());
    kernel_ = created.release_value();
    std::byte hello[64];
    std::vector<Fd> fds;
    receive(supervisor_.ref(), hello, fds);
    thread_ = std::jthread([this] { EXPECT_FALSE(kernel_->run().is_error()); });
  }
  ~Hostile() override {
    supervisor_.reset();  // the kernel ends with its supervisor
    thread_.join();
  }
  void expect_service() {
    PlayedProgram honest(supervisor_.ref());
    call::CallSlot nothing{};
    nothing.op = call::Op::nothing;
    EXPECT_EQ(honest.call(nothing), 0);
  }

  Fd supervisor_;
  std::unique_ptr<Kernel> kernel_;
  std::jthread thread_;
};

}  // namespace cob::kernel
