// A kernel with hostile programs: random slots in call rings, random words in everything that a
// program may write. Model: hostile_programs.h; after each assault an honest program is served.
// Untrusted by default: a hostile program may harm itself only (decision 6 of the design).
#include <fcntl.h>
#include <sys/resource.h>

#include <atomic>

#include "kernel/hostile_programs.h"

namespace cob::kernel {
namespace {

TEST_F(Hostile, RandomSlotsHarmTheirSenderOnly) {
  u32 posted = 0;
  for (u32 seed = 1; seed <= 40; ++seed) {
    std::mt19937_64 random(seed);
    const bool wild = seed % 4 == 0;  // the others stay within what is not a fault, and get deeper
    u32 chunk = 0;
    PlayedProgram program(supervisor_.ref());
    for (int i = 0; i < 3'000 && !program.ended(); ++i) {
      call::CallSlot slot{};
      // Mostly calls that exist on slots that may: the deeper they get the better.
      slot.op = static_cast<call::Op>(
          wild && random() % 64 == 0 ? random() : 1 + random() % static_cast<u32>(call::Op::relay));
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
      if (!wild && (slot.op == call::Op::send || slot.op == call::Op::send_shared ||
                    slot.op == call::Op::send_urgent)) {
        slot.a[0] = 1 + random() % 20'000;
        for (int k = 1; k < 6; ++k) slot.a[k] = u64{chunk} | u64{chunk + 1} << 32, chunk += 2;
        if (chunk > call::send_chunks - 20) break;
      }
      if (!wild && slot.op == call::Op::send_to) {
        slot.a[0] = random() % (call::chunks_in_send_to * call::chunk_bytes);
        slot.a[1] = 0x0a4d0001 | static_cast<u64>(1000 + random() % 3) << 32;
        for (int k = 3; k < 6; ++k) slot.a[k] = u64{chunk} | u64{chunk + 1} << 32, chunk += 2;
        if (chunk > call::send_chunks - 20) break;
      }
      if (!wild && slot.op == call::Op::set_option) slot.a[0] = 1 + random() % 12;
      if (slot.op == call::Op::set_option &&
          slot.a[0] == static_cast<u32>(call::SocketOption::urgent_owner))
        slot.a[1] = 0;  // nobody is signalled
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
    PlayedProgram program(supervisor_.ref());
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

constexpr u64 nearly_full = ~u64{0} - 1;

// It fills the doorbell by which it rings, empties it, and lets writes to it block.
TEST_F(Hostile, ADoorbellSpoiltByItsProgramWakesTheKernelForTheOthers) {
  PlayedProgram honest(supervisor_.ref()), hostile(supervisor_.ref());
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
  PlayedProgram hostile(supervisor_.ref());
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
  PlayedProgram hostile(supervisor_.ref());
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
  PlayedProgram honest(supervisor_.ref());
  auto [mine, kernels] = pair();
  const message::Simple hand{.kind = static_cast<u32>(message::ControlKind::program), .value = 9};
  const FdRef end[] = {kernels.ref()};
  ASSERT_FALSE(send_struct(supervisor_.ref(), hand, end).is_error());
  mine.reset();
  EXPECT_TRUE(honest.kernel_sleeps());
}

TEST_F(Hostile, ALivenessSocketOfAnotherKindIsRefused) {
  PlayedProgram honest(supervisor_.ref());
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
  PlayedProgram program(supervisor_.ref());
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
  PlayedProgram hostile(supervisor_.ref());
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

}  // namespace
}  // namespace cob::kernel
