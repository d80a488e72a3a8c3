// Directory: what a claim gets whose home cannot be asked. Model: one of two kernels, alone.
#include "kernel/directory.h"

#include <gtest/gtest.h>

#include "message/messenger.h"

namespace cob::kernel {
namespace {

TEST(Directory, AHomeThatIsDownGrants) {
  const auto messenger = message::Messenger::create(KernelId(0), 1, 2).release_value();
  Directory directory(KernelId(0), 2);
  directory.attach(*messenger);
  const PortClaim claim{.local = {{}, Port(81)}, .owner = KernelId(0), .handle = 1};
  ASSERT_EQ(directory.home_of(claim.local.port), KernelId(1));
  i32 answer = -1;
  directory.claim(claim, Time{}, [&](i32 result) { answer = result; });
  EXPECT_EQ(answer, 0);
}

}  // namespace
}  // namespace cob::kernel
