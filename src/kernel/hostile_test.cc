// A kernel with hostile programs: random slots in call rings, random words in everything that a
// program may write. Model: a whole Kernel on a thread, the test is its supervisor and its
// programs; after each assault an honest program is served. Untrusted by default: a hostile program
// may harm itself only (decision 6 of the design).
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <random>
#include <thread>

#include "base/passing.h"
#include "kernel/kernel.h"

namespace cob::kernel {
namespace {

std::pair<Fd, Fd> pair() {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

// Waits for a datagram; 0 bytes: the other end closed.
std::size_t receive(FdRef socket, std::span<std::byte> bytes, std::vector<Fd>& fds) {
  pollfd p{.fd = socket.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&p, 1, 20'000), 1);
  auto got = receive_datagram(socket, bytes);
  if (got.is_error()) return 0;
  fds = std::move(got.value().descriptors);
  return got.value().bytes;
}

// A program as the test plays it: attached, one thread, both sides of its arena mapped.
class Played {
 public:
  explicit Played(FdRef supervisor) {
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
    const Fd bell(::eventfd(0, EFD_CLOEXEC));
    const call::ThreadRequest thread{.kind = static_cast<u32>(call::Hello::thread), .thread = 0};
    const FdRef bells[] = {bell.ref()};
    EXPECT_FALSE(send_struct(socket_.ref(), thread, bells).is_error());
    std::vector<Fd> none;
    receive(socket_.ref(), reply, none);
  }
  ~Played() {
    if (ours_ != nullptr) ::munmap(const_cast<call::KernelSide*>(ours_), sizeof *ours_);
    if (theirs_ != nullptr) ::munmap(theirs_, sizeof *theirs_);
  }
  Played(const Played&) = delete;
  Played& operator=(const Played&) = delete;

  call::ProgramSide& theirs() { return *theirs_; }
  // As before a fork or a relay; the child's end.
  Fd offer_child() {
    auto [mine, kernels] = pair();
    const u32 hello = static_cast<u32>(call::Hello::child);
    const FdRef end[] = {kernels.ref()};
    (void)send_struct(socket_.ref(), hello, end);
    return std::move(mine);
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

  Fd socket_, kernel_bell_;
  const call::KernelSide* ours_ = nullptr;
  call::ProgramSide* theirs_ = nullptr;
  u32 position_ = 0;
};

class Hostile : public testing::Test {
 protected:
  Hostile() {
    auto [mine, kernels] = pair();
    supervisor_ = std::move(mine);
    message::Config config;
    config.kernels = 1;
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
    Played honest(supervisor_.ref());
    call::CallSlot nothing{};
    nothing.op = call::Op::nothing;
    EXPECT_EQ(honest.call(nothing), 0);
  }

  Fd supervisor_;
  std::unique_ptr<Kernel> kernel_;
  std::jthread thread_;
};

TEST_F(Hostile, RandomSlotsHarmTheirSenderOnly) {
  u32 posted = 0;
  for (u32 seed = 1; seed <= 40; ++seed) {
    std::mt19937_64 random(seed);
    const bool wild = seed % 4 == 0;  // the others stay within what is not a fault, and get deeper
    u32 chunk = 0;
    Played program(supervisor_.ref());
    for (int i = 0; i < 3'000 && !program.ended(); ++i) {
      call::CallSlot slot{};
      // Mostly calls that exist on slots that may: the deeper they get the better.
      slot.op = static_cast<call::Op>(wild && random() % 64 == 0 ? random() : 1 + random() % 24);
      slot.flags = static_cast<u16>(random() % 4);
      slot.socket = static_cast<u32>(wild && random() % 16 == 0 ? random()
                                     : random() % 3 == 0 ? call::first_kernel_socket + random() % 4
                                                         : 1 + random() % 6);
      slot.generation = static_cast<u32>(1 + random() % 2);
      for (call::u64& a : slot.a) a = random() % 3 == 0 ? random() : random() % 12;
      if (slot.op == call::Op::connect || slot.op == call::Op::bind) {
        slot.a[0] = random() % 2 == 0 ? 0 : 0x0a4d0001;
        slot.a[1] = 1000 + random() % 3;
      }
      if (!wild && (slot.op == call::Op::send || slot.op == call::Op::send_shared)) {
        slot.a[0] = 1 + random() % 20'000;
        for (int k = 1; k < 6; ++k) slot.a[k] = u64{chunk} | u64{chunk + 1} << 32, chunk += 2;
        if (chunk > call::send_chunks - 20) break;
      }
      if (!wild && slot.op == call::Op::set_option) slot.a[0] = 1 + random() % 7;
      if (!wild && slot.op == call::Op::free_receive) slot.a[0] = 0;
      if (!program.post(slot)) break;
      ++posted;
      call::ProgramSocket& line = program.theirs().socket[slot.socket % call::max_sockets];
      switch (random() % 6) {
        case 0:
          publish(line.consumed, random() % 2 == 0 ? random() : line.consumed + random() % 9);
          break;
        case 1:
          publish(line.seat, static_cast<u32>(random() % 16));
          break;
        case 2:
          publish(line.ready_ring, static_cast<u16>(random() % 80));
          break;
        case 3:
          publish(program.theirs().ready_tail[random() % 64].tail, static_cast<u32>(random()));
          break;
        case 4:
          publish(line.read_waiter, static_cast<u16>(random()));
          break;
        default:
          break;
      }
    }
  }
  EXPECT_GT(posted, 10'000u);  // most were taken, not ended at once
  expect_service();
}

// Relays asked for in any order, for any child, their ends kept, closed, shut, filled and drained.
TEST_F(Hostile, RelaysMisusedHarmTheirProgramOnly) {
  std::size_t lent = 0;
  for (u32 seed = 1; seed <= 10; ++seed) {
    std::mt19937_64 random(seed);
    Played program(supervisor_.ref());
    const auto on = [](call::Op op, u32 socket, u64 a0 = 0, u64 a1 = 0) {
      call::CallSlot slot{};
      slot.op = op;
      slot.socket = socket;
      slot.generation = 1;
      slot.a[0] = a0;
      slot.a[1] = a1;
      return slot;
    };
    ASSERT_EQ(program.call(on(call::Op::bind, 1, 0, 1'000)), 0);
    ASSERT_EQ(program.call(on(call::Op::listen, 1, 16)), 0);
    for (u32 socket = 2; socket < 6; ++socket) {
      program.post(on(call::Op::connect, socket, 0x0a4d0001, 1'000));
      publish(program.theirs().socket[socket].seat, static_cast<u32>(random() % 8));
    }
    std::vector<Fd> children, ends;
    for (int i = 0; i < 150 && !program.ended(); ++i) {
      const u32 socket = static_cast<u32>(1 + random() % 6);
      if (random() % 4 == 0) children.push_back(program.offer_child());
      program.call(on(call::Op::relay, socket, random() % 3 == 0 ? 0 : random() % 40));
      for (const Fd& child : children) {
        std::byte bytes[64];
        auto got = receive_datagram(child.ref(), bytes, Blocking::never);
        if (got.is_error()) continue;
        for (Fd& end : got.value().descriptors) ends.push_back(std::move(end)), ++lent;
      }
      if (!ends.empty()) {
        const int end = ends[random() % ends.size()].get();
        static char data[300'000];
        if (random() % 2 == 0)
          ::send(end, data, random() % sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (random() % 2 == 0) ::recv(end, data, sizeof data, MSG_DONTWAIT);
        if (random() % 8 == 0) ::shutdown(end, static_cast<int>(random() % 3));
        if (random() % 4 == 0) ends.erase(ends.begin());
      }
      if (!children.empty() && random() % 4 == 0) children.erase(children.begin());
      const call::Op others[] = {call::Op::use,      call::Op::shutdown, call::Op::receive_shared,
                                 call::Op::released, call::Op::close,    call::Op::fork};
      const call::Op op = others[random() % 12 == 0 ? 3 + random() % 3 : random() % 3];
      program.post(on(op, socket, 1 + random() % 3));
    }
  }
  EXPECT_GT(lent, 20u);
  expect_service();
}

TEST_F(Hostile, AThreadIndexOutOfRangeIsRefused) {
  auto [mine, kernels] = pair();
  const message::Simple hand{.kind = static_cast<u32>(message::ControlKind::program), .value = 9};
  const FdRef end[] = {kernels.ref()};
  ASSERT_FALSE(send_struct(supervisor_.ref(), hand, end).is_error());
  const call::ThreadRequest thread{.kind = static_cast<u32>(call::Hello::thread),
                                   .thread = 1u << 30};
  ASSERT_FALSE(send_struct(mine.ref(), thread, end).is_error());
  call::AttachReply reply{};
  std::vector<Fd> fds;
  ASSERT_EQ(receive(mine.ref(), std::as_writable_bytes(std::span(&reply, 1)), fds), sizeof reply);
  EXPECT_LT(reply.result, 0);
  expect_service();
}

TEST_F(Hostile, AnUnknownHelloEndsItsSender) {
  auto [mine, kernels] = pair();
  const message::Simple hand{.kind = static_cast<u32>(message::ControlKind::program), .value = 9};
  const FdRef end[] = {kernels.ref()};
  ASSERT_FALSE(send_struct(supervisor_.ref(), hand, end).is_error());
  kernels.reset();
  const u32 garbage[3] = {77, 1, 2};
  ASSERT_FALSE(send_struct(mine.ref(), garbage).is_error());
  std::byte bytes[8];
  std::vector<Fd> fds;
  EXPECT_EQ(receive(mine.ref(), bytes, fds), 0u);
  expect_service();
}

}  // namespace
}  // namespace cob::kernel
