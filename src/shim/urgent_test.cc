// What a socket's lines say of the peer's urgent mark: readiness, and what a read does there. The
// kernel's line is the test's. docs/calls.md, "Urgent data".
#include "shim/urgent.h"

#include <gtest/gtest.h>
#include <poll.h>

namespace cob::shim {
namespace {

using namespace call;

class UrgentLines : public testing::Test {
 protected:
  UrgentLines() {
    socket_.kernel = &line_;
    socket_.low_water = 1;
    socket_.consumed = line_.received = 100;
    line_.flags = flag_urgent;
  }
  u32 events() { return urgent_events(&socket_); }

  KernelSocket line_{};
  Socket socket_{};
};

constexpr u32 in = POLLIN | POLLRDNORM;

TEST_F(UrgentLines, TheUrgentByteAloneIsNoReasonToRead) {
  line_.urgent = urgent_here | urgent_mark;
  line_.urgent_behind = 1;
  EXPECT_EQ(events(), u32{POLLPRI});
  line_.urgent_behind = 2;
  EXPECT_EQ(events(), in | POLLPRI);
  line_.urgent = urgent_mark;  // taken
  EXPECT_EQ(events(), in);
}

TEST_F(UrgentLines, InLineItIs) {
  line_.urgent = urgent_here | urgent_mark | urgent_in_line;
  line_.urgent_behind = 1;
  EXPECT_EQ(events(), in | POLLPRI);
}

TEST_F(UrgentLines, BytesOnBothSidesOfTheMarkCountAgainstLowWater) {
  socket_.low_water = 5;
  line_.received = 102;
  line_.urgent = urgent_here | urgent_mark;
  line_.urgent_behind = 2;
  EXPECT_EQ(events(), u32{POLLPRI});
  line_.urgent_behind = 3;
  EXPECT_EQ(events(), in | POLLPRI);
  socket_.consumed = 102;  // the reader stands there
  line_.urgent_behind = 5;
  EXPECT_EQ(events(), u32{POLLPRI});
  line_.urgent_behind = 6;
  EXPECT_EQ(events(), in | POLLPRI);
}

TEST_F(UrgentLines, AMarkThatHasNotComeIsOnlyAWallAhead) {
  EXPECT_EQ(events(), 0u);
  EXPECT_EQ(at_mark(&socket_, true), AtMark::nothing);
  EXPECT_EQ(at_mark(&socket_, false), AtMark::nothing);
  line_.urgent = urgent_mark;
  EXPECT_EQ(at_mark(&socket_, true), AtMark::nothing);
  EXPECT_EQ(at_mark(&socket_, false), AtMark::end);
}

TEST_F(UrgentLines, AReadPassesItOnlyAsItsFirstAct) {
  line_.urgent = urgent_here | urgent_mark;
  line_.urgent_behind = 1;
  EXPECT_EQ(at_mark(&socket_, true), AtMark::pass);
  EXPECT_EQ(at_mark(&socket_, false), AtMark::end);
  line_.urgent = 0;  // passed, and what waits wants chunks
  EXPECT_EQ(at_mark(&socket_, false), AtMark::pass);
}

}  // namespace
}  // namespace cob::shim
