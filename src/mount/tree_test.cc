// Nodes by hand: numbers, names, identities. How they are reached is mount_test.py's.
#include "mount/tree.h"

#include <gtest/gtest.h>

namespace cob::mount {
namespace {

struct statx file(u64 inode, i64 born = 1) {
  struct statx status{};
  status.stx_mask = STATX_BASIC_STATS | STATX_BTIME;
  status.stx_ino = inode;
  status.stx_btime.tv_sec = born;
  return status;
}

TEST(Tree, AFileHasOneNumberUntilItIsForgotten) {
  Tree tree("/none");
  const fuse_ino_t a = tree.note(FUSE_ROOT_ID, "a", file(5));
  EXPECT_NE(a, fuse_ino_t{FUSE_ROOT_ID});
  EXPECT_EQ(tree.note(FUSE_ROOT_ID, "link", file(5)), a);
  EXPECT_EQ(tree.name_of(a)->name, "link");
  tree.forget(a, 1);
  EXPECT_TRUE(tree.name_of(a));
  tree.forget(a, 7);  // more than there were
  EXPECT_FALSE(tree.name_of(a));
  EXPECT_NE(tree.note(FUSE_ROOT_ID, "a", file(5)), a);
  tree.forget(FUSE_ROOT_ID, 9);
  SharedFd none;
  EXPECT_EQ(tree.place(a, none), not_it);
}

TEST(Tree, AnInodeThatIsUsedAgainIsAnotherFile) {
  Tree tree("/none");
  EXPECT_NE(tree.note(FUSE_ROOT_ID, "a", file(5, 1)), tree.note(FUSE_ROOT_ID, "a", file(5, 2)));
}

TEST(Tree, RenamedFilesLieWhereTheyWent) {
  Tree tree("/none");
  const fuse_ino_t d = tree.note(FUSE_ROOT_ID, "d", file(1));
  const fuse_ino_t a = tree.note(FUSE_ROOT_ID, "a", file(2)), b = tree.note(d, "b", file(3));
  tree.renamed(FUSE_ROOT_ID, "a", d, "b", true);
  EXPECT_EQ(tree.name_of(a)->parent, d);
  EXPECT_EQ(tree.name_of(a)->name, "b");
  EXPECT_EQ(tree.name_of(b)->parent, fuse_ino_t{FUSE_ROOT_ID});
  EXPECT_EQ(tree.name_of(b)->name, "a");
  tree.renamed(FUSE_ROOT_ID, "none", d, "other", false);
  tree.renamed(d, "b", d, "c", false);
  EXPECT_EQ(tree.name_of(a)->name, "c");
  // A name that somebody else has by now is not taken along.
  const fuse_ino_t other = tree.note(d, "c", file(4));
  tree.renamed(d, "c", d, "e", false);
  EXPECT_EQ(tree.name_of(other)->name, "e");
  EXPECT_EQ(tree.name_of(a)->name, "c");
}

}  // namespace
}  // namespace cob::mount
