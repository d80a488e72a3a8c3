// What mountinfo says, read: names with spaces, optional fields, other filesystems, lines cut
// short.
#include "cli/mounts.h"

#include <gtest/gtest.h>

namespace cob::cli {
namespace {

TEST(Mountinfo, IsReadLineByLine) {
  const auto mounts = read_mountinfo(
      "22 27 0:20 / /sys rw,nosuid shared:7 master:1 - sysfs sysfs rw\n"
      "40 22 0:41 / /mnt/with\\040space\\134 rw,nosuid,nodev - fuse.cob web:/srv/a\\040b "
      "rw,user_id=1000,group_id=100\n");
  ASSERT_EQ(mounts.size(), 2u);
  EXPECT_EQ(mounts[0].type, "sysfs");
  EXPECT_EQ(mounts[0].user, 0u);
  EXPECT_EQ(mounts[1].directory, "/mnt/with space\\");
  EXPECT_EQ(mounts[1].type, mount_type);
  EXPECT_EQ(mounts[1].source, "web:/srv/a b");
  EXPECT_EQ(mounts[1].user, 1000u);
}

TEST(Mountinfo, WhatCannotBeReadIsLeftOut) {
  EXPECT_TRUE(read_mountinfo("").empty());
  EXPECT_TRUE(read_mountinfo("22 27 0:20 / /sys rw - sysfs\n\n- - - -\nno such line\n").empty());
  EXPECT_EQ(read_mountinfo("1 1 0:1 / /\\04 rw - t s user_id=").at(0).directory, "/\\04");
}

}  // namespace
}  // namespace cob::cli
