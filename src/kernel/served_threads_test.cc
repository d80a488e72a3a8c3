// What a kernel shows of a program that other kernels serve too, and tells its threads.
// docs/moving.md, 9.
#include <gtest/gtest.h>

#include "kernel/test_kernels.h"

namespace cob::kernel::test {
namespace {

class ServedThreads : public testing::Test {
 protected:
  ServedThreads() : program_(kernels_.attached(0, 3)) {
    for (u32 i = 0; i < 3; ++i) {
      program_->theirs().armed[i].tid = 100 + i;
      program_->theirs().armed[i].home = i == 1 ? 0 : 1;
    }
  }
  void spread() { program_->theirs().armed[0].several = 1; }
  u32 order(u32 index) const { return program_->ours().consumed[index].home; }

  TwoKernels kernels_;
  std::unique_ptr<Played> program_;
};

TEST_F(ServedThreads, AreShownIfTheProgramHasSeveralKernels) {
  const auto shown = [&] {
    kernels_.turns(1, Duration::milliseconds(20));
    kernels_.host_turn();
    return kernels_.board(0).program[0];
  };
  EXPECT_EQ(shown().several, 0u);
  EXPECT_EQ(shown().served[0], 0u);
  spread();
  const BoardProgram row = shown();
  EXPECT_EQ(row.several, 1u);
  EXPECT_EQ(row.served[0], 100u);
  EXPECT_EQ(row.served[1], 102u);
  EXPECT_EQ(row.served[2], 0u);
}

TEST_F(ServedThreads, AreToldWhereToGo) {
  kernels_.order_thread(0, 102, 1);
  EXPECT_EQ(order(2), 0u) << "all its threads are one kernel's";
  spread();
  kernels_.order_thread(0, 102, 1);
  EXPECT_EQ(order(2), 0x1'0002u);
  kernels_.order_thread(0, 102, 1);
  EXPECT_EQ(order(2), 0x2'0002u);
  for (const u32 none : {101u, 7u, 0u}) kernels_.order_thread(0, none, 1);  // served elsewhere
  kernels_.order_thread(0, 100, 9);                                         // no such kernel
  for (const u32 index : {0u, 1u}) EXPECT_EQ(order(index), 0u);
}

TEST_F(ServedThreads, KeepTheProgramFromMovingWhole) {
  spread();
  const Fd socket = kernels_.move(0, 1);
  MoveReport report;
  ASSERT_TRUE(kernels_.until([&] {
    const auto got = receive_datagram(socket.ref(), std::as_writable_bytes(std::span(&report, 1)),
                                      Blocking::never);
    return !got.is_error() && got.value().bytes == sizeof report;
  }));
  EXPECT_EQ(report.error, EOPNOTSUPP);
  EXPECT_NE(std::string(report.text).find("PID/TID"), std::string::npos);
  EXPECT_TRUE(program_->take_answers());
}

}  // namespace
}  // namespace cob::kernel::test
