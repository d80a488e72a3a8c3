// What hostile programs once did to their kernel, each attack a test: the honest are served, and
// nothing is left of it. Model: HostileWorld, its programs posting what no shim does.
// docs/calls.md; decision 6 of the design.
#include <gtest/gtest.h>
#include <pthread.h>

#include "kernel/hostile_world.h"

namespace cob::kernel::test {
namespace {

constexpr u32 high = call::first_kernel_socket;  // the first slot that the kernel gives out
constexpr u16 home_0 = 1000, home_1 = 1001;      // ports, by their home kernel

class Attack : public testing::Test {
 protected:
  Attack() { quiet_log(); }
  Played& program(std::size_t index) { return world_.program(index); }
  TwoKernels& kernels() { return world_.kernels(); }
  static call::CallSlot named(const Played& p, call::Op op, u32 slot, call::u64 first = 0,
                              call::u64 second = 0) {
    const call::KernelSocket& line = p.line(slot);
    const bool begins = line.state == call::SocketState::free && slot < high;
    call::CallSlot c = slot_call(op, slot, line.generation + (begins ? 1 : 0));
    c.a[0] = first;
    c.a[1] = second;
    return c;
  }
  i32 call(std::size_t index, call::Op op, u32 slot, call::u64 first = 0, call::u64 second = 0) {
    return kernels().call(program(index), named(program(index), op, slot, first, second));
  }
  void post(std::size_t index, call::Op op, u32 slot, call::u64 first = 0, call::u64 second = 0,
            u32 thread = 0) {
    ASSERT_TRUE(program(index).post(named(program(index), op, slot, first, second), thread));
  }
  void listen(std::size_t index, u32 slot, u16 port) {
    ASSERT_EQ(call(index, call::Op::bind, slot, 0, port), 0);
    ASSERT_EQ(call(index, call::Op::listen, slot, 8), 0);
    post(index, call::Op::want_accept, slot);
    world_.turns(4);
  }
  // A connection from the honest client to what listens in `slot`, offered and accepted.
  void accepted(std::size_t index, u32 slot, u16 port) {
    listen(index, slot, port);
    world_.visit(port);
    world_.turns(20);
    ASSERT_EQ(program(index).own_line(high).seat, u32{call::seat_offered});
    publish(program(index).own_line(high).seat, u32{call::seat_idle});
    publish(program(index).own_line(slot).consumed, 1u);
  }
  void publish_slot(std::size_t index, u32 slot, u16 flags = 0) {
    call::CallSlot c = slot_call(call::Op::publish);
    c.flags = flags;
    c.a[0] = 1;
    c.a[1] = slot;
    c.a[2] = token;
    ASSERT_EQ(kernels().call(program(index), c), 0);
  }
  void hand_over(std::size_t index, u32 slot, std::size_t to) {
    publish_slot(index, slot);
    ASSERT_EQ(call(to, call::Op::adopt, 0, token), 0);
  }

  static constexpr call::u64 token = call::token_mark | 7;
  HostileWorld world_;
};

TEST_F(Attack, NoneLeavesNothing) { world_.check(); }

TEST_F(Attack, ASendOfChunksOfWhichOneIsNotItsOwnHoldsNoneOfThem) {
  // To a connection, and to a slot that names nothing.
  post(0, call::Op::connect, 1, cob_address, 80);
  post(0, call::Op::send, 1, 2 * call::chunk_bytes, 5 | u64{call::send_chunks} << 32);
  post(1, call::Op::send, high, 2 * call::chunk_bytes, 5 | u64{call::send_chunks} << 32);
  world_.turns(20);
  world_.check();
}

TEST_F(Attack, AnExecReadByAForkLeavesTheOldRingsAlone) {
  program(0).ask_to_attach();
  for (u32 thread = 0; thread < Played::threads; ++thread) post(0, call::Op::fork, 0, 0, 0, thread);
  post(0, call::Op::nothing, 0);
  world_.turns(40);
  world_.check();
}

TEST_F(Attack, AnExecThatFailsInsideAnExecIsOne) {
  // Nobody reads the answers, so that the kernel's send fails.
  Played& p = program(0);
  for (u32 i = 0; i < 300; ++i) p.ask_for_thread(0), kernels().host_turn();
  p.ask_to_attach();
  p.ask_to_attach();
  post(0, call::Op::fork, 0);
  world_.turns(60);
  world_.check();
}

TEST_F(Attack, ConsumedThroughASecondSlotFreesNothingOfTheFirst) {
  accepted(0, 1, home_0);
  hand_over(0, high, 0);  // slot high + 1 is the same description
  ASSERT_EQ(program(0).line(high).handle, program(0).line(high + 1).handle);
  ASSERT_GT(program(0).line(high).received, 0u);
  post(0, call::Op::consumed, high + 1);
  hand_over(0, high, 1);
  EXPECT_EQ(call(1, call::Op::use, high), 0);
  EXPECT_EQ(call(1, call::Op::receive_shared, high, 100), 5);
  world_.check();
}

TEST_F(Attack, AnOfferLookedAtAndLeftOutlivesItsListener) {
  listen(0, 1, home_0);
  world_.visit(home_0);
  world_.turns(20);
  publish(program(0).own_line(1).consumed, 1u);  // the seat stays offered
  post(0, call::Op::close, 1);
  world_.turns(4);
  publish(program(0).own_line(high).consumed, load(program(0).line(high).received));
  publish(program(0).own_line(high).seat, u32{call::seat_idle});  // "accepted", too late
  post(0, call::Op::close, high);
  world_.check();
}

TEST_F(Attack, AnOfferLookedAtAndLeftSurvivesAnExecAndAReset) {
  listen(0, 1, home_0);
  world_.visit(home_0);
  world_.turns(20);
  publish(program(0).own_line(1).consumed, 1u);
  kernels().attach(program(0), Played::threads);
  world_.turns(20);
  world_.check();
}

TEST_F(Attack, ASeatWordThatSaysOfferedIsNotAnOffer) {
  accepted(0, 1, home_0);
  hand_over(0, high, 0);
  EXPECT_EQ(call(0, call::Op::use, high + 1), 0);  // the kernel has the seat
  publish(program(0).own_line(high).seat, u32{call::seat_offered});
  publish(program(0).own_line(1).consumed, 0u);
  post(0, call::Op::close, 1);
  world_.turns(4);
  world_.check();
}

TEST_F(Attack, AListenerThatConnectsWhileItsPortIsClaimedIsNoConnection) {
  ASSERT_EQ(call(0, call::Op::bind, 1, 0, home_1), 0);
  const u32 before = program(0).reply().sequence;
  post(0, call::Op::listen, 1, 8);  // asked of the other kernel
  post(0, call::Op::connect, 1, cob_address, 80);
  world_.turns(20);
  EXPECT_EQ(program(0).reply().sequence, before + 1);
  EXPECT_EQ(program(0).reply().result, -EINVAL);
  post(0, call::Op::close, 1);
  world_.check();
}

TEST_F(Attack, TwoBindsAtOnceTakeOnePort) {
  post(0, call::Op::bind, 1, 0, home_1);
  post(0, call::Op::bind, 1, 0, home_1 + 2);
  world_.turns(20);
  post(0, call::Op::close, 1);
  world_.check();
}

TEST_F(Attack, AListenerShutDownTwiceTakesOneOutOfTheDirectory) {
  const auto bind_shared = [&](std::size_t index) {
    call::CallSlot c = named(program(index), call::Op::bind, 1, 0, home_0);
    c.a[2] = 2;
    ASSERT_EQ(kernels().call(program(index), c), 0);
    ASSERT_EQ(call(index, call::Op::listen, 1, 8), 0);
    post(index, call::Op::want_accept, 1);
  };
  bind_shared(0);
  bind_shared(1);
  post(0, call::Op::shutdown, 1, 2);
  post(0, call::Op::shutdown, 1, 2);
  post(0, call::Op::close, 1);
  world_.turns(4);
  world_.visit(home_0);
  world_.turns(20);
  EXPECT_EQ(program(1).line(1).received, 1u);
  world_.check();
}

TEST_F(Attack, ConnectionsComeFromOnesOwnAddress) {
  call::CallSlot c = named(program(0), call::Op::connect, 1, cob_address, 80);
  c.a[2] = 0x08080808;
  ASSERT_TRUE(program(0).post(c));
  world_.turns(2);
  EXPECT_EQ(program(0).line(1).error, EADDRNOTAVAIL);
  world_.check();
}

TEST_F(Attack, ItsOwnEndAsADoorbellDoesNotKeepIt) {
  const call::ThreadRequest request{.kind = static_cast<u32>(call::Hello::thread), .thread = 0};
  const FdRef own[] = {program(0).liveness()};
  ASSERT_FALSE(send_struct(program(0).liveness(), request, own).is_error());
  kernels().host_turn();
  world_.check();
}

TEST_F(Attack, ItsOwnEndAsAChildDoesNotKeepIt) {
  const u32 kind = static_cast<u32>(call::Hello::child);
  const FdRef own[] = {program(0).liveness()};
  ASSERT_FALSE(send_struct(program(0).liveness(), kind, own).is_error());
  kernels().host_turn();
  world_.check();
}

TEST_F(Attack, ItsOwnEndAsAFlightDoesNotKeepIt) {
  const u32 kind = static_cast<u32>(call::Hello::flight);
  const FdRef own[] = {program(0).liveness()};
  ASSERT_FALSE(send_struct(program(0).liveness(), kind, own).is_error());
  kernels().host_turn();
  world_.check();
}

TEST_F(Attack, BothEndsOfAPairAsChildrenAreNotKept) {
  const u32 kind = static_cast<u32>(call::Hello::child);
  {
    const auto [a, b] = seqpacket_pair().release_value();
    for (const Fd* end : {&a, &b}) {
      const FdRef fds[] = {end->ref()};
      ASSERT_FALSE(send_struct(program(0).liveness(), kind, fds).is_error());
    }
  }
  kernels().host_turn();
  world_.check();
}

TEST_F(Attack, ATalkativeProgramDoesNotHoldTheKernel) {
  // More than one visit reads; the honest client is served between.
  for (u32 i = 0; i < 2'000; ++i) {
    const call::ThreadRequest request{.kind = static_cast<u32>(call::Hello::thread), .thread = 0};
    (void)send_struct(program(0).liveness(), request, {}, Blocking::never);
    if (i % 200 == 0) kernels().host_turn();
  }
  world_.check();
}

TEST_F(Attack, SeatsTakenInTurnDoNotDeepenTheStack) {
  // Each of two programs holds the seats of sockets that the other one uses: taking a seat drains
  // its holder, whose next call takes a seat of the first, and so on.
  constexpr u32 sockets = 480;
  for (u32 i = 0; i < sockets; ++i) {
    ASSERT_EQ(call(i % 2, call::Op::open, 1 + i), 0);
    hand_over(i % 2, 1 + i, 1 - i % 2);
  }
  for (u32 i = 0; i < sockets; ++i) post(1 - i % 2, call::Op::use, high + i / 2);
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 192 * 1024);
  pthread_t thread{};
  const auto run = [](void* world) -> void* {
    static_cast<HostileWorld*>(world)->kernels().turns(20);
    return nullptr;
  };
  ASSERT_EQ(pthread_create(&thread, &small, run, &world_), 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&small);
  for (u32 i = 0; i < sockets; ++i)
    EXPECT_TRUE(program(i % 2).line(1 + i).flags & call::flag_shared) << i;
  world_.check();
}

}  // namespace
}  // namespace cob::kernel::test
