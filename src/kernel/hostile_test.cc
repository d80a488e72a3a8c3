// A kernel with hostile programs and peers: random slots in call rings, random words in everything
// that a program may write. Model: a whole Kernel on a thread, the test is its supervisor, its
// programs and, where there are two kernels, the other; after each assault an honest program is
// served. Untrusted by default: a hostile program
// may harm itself only (decision 6 of the design).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <random>
#include <thread>

#include "base/doorbell.h"
#include "base/passing.h"
#include "kernel/kernel.h"
#include "kernel/messages.h"

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
  ~Played() {
    if (ours_ != nullptr) ::munmap(const_cast<call::KernelSide*>(ours_), sizeof *ours_);
    if (theirs_ != nullptr) ::munmap(theirs_, sizeof *theirs_);
  }
  Played(const Played&) = delete;
  Played& operator=(const Played&) = delete;

  call::ProgramSide& theirs() { return *theirs_; }
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
      slot.op = static_cast<call::Op>(wild && random() % 64 == 0 ? random() : 1 + random() % 23);
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
      if (!wild && slot.op == call::Op::set_option) slot.a[0] = 1 + random() % 12;
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

constexpr u64 nearly_full = ~u64{0} - 1;

// It fills the doorbell by which it rings, empties it, and lets writes to it block.
TEST_F(Hostile, ADoorbellSpoiltByItsProgramWakesTheKernelForTheOthers) {
  Played honest(supervisor_.ref()), hostile(supervisor_.ref());
  const int doorbell = hostile.kernel_bell().get();
  ASSERT_EQ(::write(doorbell, &nearly_full, sizeof nearly_full), 8);
  ASSERT_EQ(::fcntl(doorbell, F_SETFL, 0), 0);
  call::CallSlot nothing{};
  nothing.op = call::Op::nothing;
  for (int round = 0; round < 4; ++round) {
    ASSERT_TRUE(honest.kernel_sleeps());
    u64 count = 0;
    if (round == 2) {
      ASSERT_EQ(::read(doorbell, &count, sizeof count), 8);
    }
    EXPECT_EQ(honest.call_asleep(nothing), 0);
  }
}

// The kernel rings it as often as it likes: what it holds of its bell cannot make a write block.
TEST_F(Hostile, ABellSpoiltByItsProgramDoesNotStopTheKernel) {
  Played hostile(supervisor_.ref());
  (void)::fcntl(hostile.bell().get(), F_SETFL, 0);
  EXPECT_LT(::write(hostile.bell().get(), &nearly_full, sizeof nearly_full), 0);
  publish(hostile.theirs().armed[0].armed, 1u);
  call::CallSlot nothing{};
  nothing.op = call::Op::nothing;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(hostile.call(nothing), 0);
  expect_service();
}

// As a program of an older protocol would: a full pipe as its doorbell.
TEST_F(Hostile, ADescriptorSentWithAThreadIsClosed) {
  Played hostile(supervisor_.ref());
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  const Fd reading(ends[0]);
  Fd writing(ends[1]);
  const std::byte page[4096] = {};
  while (::write(writing.get(), page, sizeof page) > 0) {
  }
  ASSERT_EQ(::fcntl(writing.get(), F_SETFL, 0), 0);
  hostile.introduce_thread(writing.ref());
  writing.reset();
  ASSERT_EQ(::fcntl(reading.get(), F_SETFL, 0), 0);
  std::byte rest[4096];
  ssize_t got = 0;
  while ((got = ::read(reading.get(), rest, sizeof rest)) > 0) {
  }
  EXPECT_EQ(got, 0);  // the end of file: nobody else holds the other end
  publish(hostile.theirs().armed[0].armed, 1u);
  call::CallSlot nothing{};
  nothing.op = call::Op::nothing;
  EXPECT_EQ(hostile.call(nothing), 0);
  expect_service();
}

// It keeps a copy of the kernel's end of a socket that it hands over for a child, and hangs up.
TEST_F(Hostile, AWatchDoesNotOutliveItsProgram) {
  Played honest(supervisor_.ref());
  auto [mine, kernels] = pair();
  const message::Simple hand{.kind = static_cast<u32>(message::ControlKind::program), .value = 9};
  const FdRef end[] = {kernels.ref()};
  ASSERT_FALSE(send_struct(supervisor_.ref(), hand, end).is_error());
  mine.reset();
  EXPECT_TRUE(honest.kernel_sleeps());
}

TEST_F(Hostile, ALivenessSocketOfAnotherKindIsRefused) {
  Played honest(supervisor_.ref());
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const Fd mine(ends[0]);
  Fd kernels(ends[1]);
  const message::Simple hand{.kind = static_cast<u32>(message::ControlKind::program), .value = 9};
  const FdRef end[] = {kernels.ref()};
  ASSERT_FALSE(send_struct(supervisor_.ref(), hand, end).is_error());
  kernels.reset();
  pollfd closed{.fd = mine.get(), .events = POLLRDHUP, .revents = 0};
  EXPECT_EQ(::poll(&closed, 1, 5'000), 1);
  EXPECT_TRUE(honest.kernel_sleeps());
}

// No descriptor is left in the kernel's table (and the test's, which is the same).
TEST_F(Hostile, WithoutDescriptorsToSpareThreadsAreTakenAndProgramsTurnedAway) {
  Played program(supervisor_.ref());
  auto [mine, kernels] = pair();
  ASSERT_TRUE(program.kernel_sleeps());  // and has prepared what it prepares
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = static_cast<rlim_t>(Fd(::dup(0)).get());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  const call::ThreadRequest thread{.kind = static_cast<u32>(call::Hello::thread), .thread = 1};
  EXPECT_FALSE(send_struct(program.socket(), thread).is_error());
  call::AttachReply reply{.kind = 0, .result = -1};
  std::vector<Fd> bells;
  receive(program.socket(), std::as_writable_bytes(std::span(&reply, 1)), bells);
  EXPECT_EQ(reply.result, 0);
  EXPECT_TRUE(bells.empty());
  const message::Simple hand{.kind = static_cast<u32>(message::ControlKind::program), .value = 9};
  const FdRef end[] = {kernels.ref()};
  EXPECT_FALSE(send_struct(supervisor_.ref(), hand, end).is_error());
  ASSERT_EQ(::dup2(0, kernels.get()), kernels.get());  // closed, and its number stays taken
  std::byte nothing_came[8];
  EXPECT_EQ(receive(mine.ref(), nothing_came, bells), 0U);
  limit.rlim_cur = before;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  call::CallSlot nothing{};
  nothing.op = call::Op::nothing;
  EXPECT_EQ(program.call(nothing), 0);
  expect_service();
}

// Hellos without end, of the kind that takes the kernel longer than the sender.
TEST_F(Hostile, AFloodOfHellosDoesNotHoldTheKernel) {
  Played hostile(supervisor_.ref());
  std::atomic<bool> stop = false;
  std::atomic<u32> sent = 0;
  std::jthread flood([&] {
    call::AttachRequest hello{};
    hello.kind = static_cast<u32>(call::Hello::attach);
    hello.version = call::protocol_version;
    for (; !stop; ++sent) (void)send_struct(hostile.socket(), hello, {}, Blocking::never);
  });
  while (sent < 2'000) std::this_thread::yield();
  expect_service();
  stop = true;
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

// The other kernel, played by the test: home of the odd ports, it answers claims when it is told
// to.
class HostilePair : public Hostile {
 protected:
  HostilePair() : Hostile(2), peer_(message::Messenger::create(KernelId(1), 1, 2).release_value()) {
    peer_->on<ClaimMessage, ClaimReply>(
        [this](KernelId, const ClaimMessage& m, message::ReplyToken<ClaimReply> token) {
          claimed_.push_back(m.port);
          unanswered_.push_back(std::move(token));
        });
    peer_->on<UnclaimMessage>(
        [this](KernelId, const UnclaimMessage& m) { unclaimed_.push_back(m.port); });
    peer_->on<ListenerMessage>([this](KernelId, const ListenerMessage&) { ++listeners_told_; });
    const message::Simple appeared{
        .kind = static_cast<u32>(message::ControlKind::peer_appeared), .value = 1, .epoch = 1};
    Doorbell at_peer = make_doorbell().release_value(), at_kernel = make_doorbell().release_value();
    const FdRef ends[] = {at_peer.button.ref(), at_kernel.bell.ref()};
    EXPECT_FALSE(send_struct(supervisor_.ref(), appeared, ends).is_error());
    message::LinkNotice link;
    std::vector<Fd> fds;
    receive(supervisor_.ref(), std::as_writable_bytes(std::span(&link, 1)), fds);
    EXPECT_EQ(fds.size(), 1u);
    EXPECT_TRUE(peer_->peer_up(KernelId(0), 1, std::move(fds[0])));
    const Fd memory =
        peer_->open_link(KernelId(0), 1, {std::move(at_kernel.button), std::move(at_peer.bell)})
            .release_value();
    const message::LinkNotice up{.kind = static_cast<u32>(message::ControlKind::peer_up),
                                 .peer = 1,
                                 .peer_epoch = 1,
                                 .own_epoch = 1};
    const FdRef outbound[] = {memory.ref()};
    EXPECT_FALSE(send_struct(supervisor_.ref(), up, outbound).is_error());
  }
  // Polls the played kernel until it is so.
  template <typename F>
  bool soon(F condition) {
    for (int i = 0; i < 20'000; ++i) {
      peer_->poll(HostClock::read(), 64);
      peer_->flush();
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  void answer(i32 result) {
    for (auto& token : unanswered_) token.answer({.result = result});
    unanswered_.clear();
    peer_->flush();
  }
  static call::CallSlot on_socket(call::Op op, u64 a1 = 0) {
    call::CallSlot slot{};
    slot.op = op;
    slot.socket = slot.generation = 1;
    slot.a[1] = a1;
    return slot;
  }
  // Socket 1, bound to port 81 with SO_REUSEPORT; the claim is granted.
  void bind(Played& program) {
    call::CallSlot bind = on_socket(call::Op::bind, 81);
    bind.a[2] = 2;
    ASSERT_TRUE(program.post(bind));
    ASSERT_TRUE(soon([&] { return claimed_.size() == 1; }));
    answer(0);
  }

  std::unique_ptr<message::Messenger> peer_;
  std::vector<message::ReplyToken<ClaimReply>> unanswered_;
  std::vector<u16> claimed_, unclaimed_;
  u32 listeners_told_ = 0;
};

TEST_F(HostilePair, ConnectOfASocketWhoseListenWaits) {
  Played program(supervisor_.ref());
  bind(program);
  ASSERT_TRUE(
      peer_->send(KernelId(0), ListenerMessage{.address = 0, .port = u16{99}, .added = u16{1}}));
  ASSERT_TRUE(program.post(on_socket(call::Op::listen)));
  ASSERT_TRUE(soon([&] { return claimed_.size() == 2; }));
  call::CallSlot connect = on_socket(call::Op::connect, 99);
  connect.a[0] = 0x0a4d0001;
  ASSERT_TRUE(program.post(connect));
  call::CallSlot nothing{};
  nothing.op = call::Op::nothing;
  EXPECT_EQ(program.call(nothing), 0);
  EXPECT_EQ(program.line(1).error, EALREADY);
  answer(0);
  ASSERT_TRUE(program.post(on_socket(call::Op::close)));
  EXPECT_TRUE(soon([&] { return unclaimed_ == std::vector<u16>{81}; }));
  EXPECT_EQ(listeners_told_, 0u);
  expect_service();
}

TEST_F(HostilePair, TwoListensOfOneSocketAtOnce) {
  Played program(supervisor_.ref());
  bind(program);
  ASSERT_TRUE(program.post(on_socket(call::Op::listen)));
  EXPECT_EQ(program.call(on_socket(call::Op::listen)), -EALREADY);
  ASSERT_TRUE(soon([&] { return claimed_.size() == 2; }));
  answer(0);
  EXPECT_TRUE(soon([&] { return listeners_told_ == 1; }));
  ASSERT_TRUE(program.post(on_socket(call::Op::close)));
  EXPECT_TRUE(soon([&] { return unclaimed_ == std::vector<u16>{81}; }));
  expect_service();
}

TEST_F(HostilePair, TwoBindsOfOneSocketAtOnceLeaveNoPortTaken) {
  Played program(supervisor_.ref());
  ASSERT_TRUE(program.post(on_socket(call::Op::bind, 81)));
  EXPECT_EQ(program.call(on_socket(call::Op::bind, 83)), -EINVAL);
  ASSERT_TRUE(soon([&] { return claimed_.size() == 1; }));
  answer(0);
  ASSERT_TRUE(program.post(on_socket(call::Op::close)));
  EXPECT_TRUE(soon([&] { return unclaimed_ == claimed_; }));
  expect_service();
}

TEST_F(HostilePair, CloseOfASocketWhoseListenWaitsGivesThePortBack) {
  Played program(supervisor_.ref());
  bind(program);
  ASSERT_TRUE(program.post(on_socket(call::Op::listen)));
  ASSERT_TRUE(program.post(on_socket(call::Op::close)));
  ASSERT_TRUE(soon([&] { return claimed_.size() == 2 && unclaimed_.size() == 1; }));
  answer(0);  // a home that grants what was given back must hear of it again
  EXPECT_TRUE(soon([&] { return unclaimed_.size() == 2; }));
  EXPECT_EQ(listeners_told_, 0u);
  expect_service();
}

TEST_F(HostilePair, APeerThatBreaksTheProtocolLosesItsConnectionsAndIsReported) {
  Played program(supervisor_.ref());
  ASSERT_TRUE(
      peer_->send(KernelId(0), ListenerMessage{.address = 0, .port = u16{99}, .added = u16{1}}));
  call::CallSlot connect = on_socket(call::Op::connect_local, 99);
  connect.a[0] = 0x0a4d0001;
  ASSERT_TRUE(soon([&] { return program.call(connect) == 0; }));
  EXPECT_EQ(load(program.line(1).state), call::SocketState::connecting);
  // A sequence number that no honest kernel writes.
  message::Link& link = *peer_->links().find(KernelId(0));
  for (message::Slot& slot : link.out->slot) message::store_release(slot.sequence, 0x7777'7777u);
  message::Simple report;
  std::vector<Fd> fds;
  ASSERT_EQ(receive(supervisor_.ref(), std::as_writable_bytes(std::span(&report, 1)), fds),
            sizeof report);
  EXPECT_EQ(report.kind, static_cast<u32>(message::ControlKind::peer_faulted));
  EXPECT_EQ(report.value, 1u);
  EXPECT_EQ(report.epoch, 1u);
  EXPECT_TRUE(soon([&] { return load(program.line(1).state) == call::SocketState::failed; }));
  EXPECT_EQ(program.line(1).error, ECONNRESET);
  expect_service();
}

}  // namespace
}  // namespace cob::kernel
