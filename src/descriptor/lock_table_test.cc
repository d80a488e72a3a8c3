// LockTable against a naive model: a mode for each byte and owner. COB_SIM_SEED as elsewhere is not
// needed: the seeds are few and fixed. One thread.
#include "descriptor/lock_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/random.h"

namespace cob::descriptor {
namespace {

constexpr LockOwner a{LockKind::posix, 1, 7, 0}, b{LockKind::posix, 2, 7, 0},
    c{LockKind::ofd, 0, 3, 9};

TEST(LockTable, SharedShareAndExclusiveExclude) {
  LockTable table;
  table.set(a, {0, 9}, LockMode::shared, 1);
  EXPECT_EQ(table.conflict(b, {5, 20}, LockMode::shared), nullptr);
  ASSERT_NE(table.conflict(b, {5, 20}, LockMode::exclusive), nullptr);
  EXPECT_EQ(table.conflict(b, {5, 20}, LockMode::exclusive)->owner, a);
  EXPECT_EQ(table.conflict(b, {10, 20}, LockMode::exclusive), nullptr);
  EXPECT_EQ(table.conflict(a, {0, 20}, LockMode::exclusive), nullptr) << "one's own";
  table.set(c, {20, max_lock_offset}, LockMode::exclusive, 0);
  EXPECT_EQ(table.conflict(b, {max_lock_offset, max_lock_offset}, LockMode::shared)->owner, c);
  EXPECT_EQ(table.in_the_way(b, {}, LockMode::exclusive), (std::vector<LockOwner>{a, c}));
}

TEST(LockTable, CutsAndMerges) {
  LockTable table;
  table.set(a, {0, 99}, LockMode::exclusive, 1);
  table.set(a, {40, 59}, LockMode::shared, 1);
  EXPECT_EQ(table.size(), 3u);
  table.set(a, {40, 59}, LockMode::exclusive, 1);
  ASSERT_EQ(table.size(), 1u);
  EXPECT_EQ(table.held()[0].range, (LockRange{0, 99}));
  table.set(a, {0, 0}, LockMode::none, 1);
  table.set(a, {99, 99}, LockMode::none, 1);
  ASSERT_EQ(table.size(), 1u);
  EXPECT_EQ(table.held()[0].range, (LockRange{1, 98}));
  table.set(a, {100, 120}, LockMode::exclusive, 1);
  table.set(a, {99, 99}, LockMode::exclusive, 1);
  ASSERT_EQ(table.size(), 1u) << "neighbours are one";
  EXPECT_EQ(table.remove(a), (std::vector<LockRange>{{1, 120}}));
  EXPECT_TRUE(table.empty());
}

TEST(LockTable, TellsTheStrongestWithoutGaps) {
  LockTable table;
  table.set(a, {10, 29}, LockMode::shared, 1);
  table.set(b, {20, 39}, LockMode::shared, 1);
  table.set(c, {50, max_lock_offset}, LockMode::exclusive, 1);
  using Part = LockTable::Part;
  EXPECT_EQ(table.strongest({}), (std::vector<Part>{{{0, 9}, LockMode::none},
                                                    {{10, 39}, LockMode::shared},
                                                    {{40, 49}, LockMode::none},
                                                    {{50, max_lock_offset}, LockMode::exclusive}}));
  EXPECT_EQ(table.strongest({35, 44}),
            (std::vector<Part>{{{35, 39}, LockMode::shared}, {{40, 44}, LockMode::none}}));
  EXPECT_EQ(LockTable().strongest({5, 5}), (std::vector<Part>{{{5, 5}, LockMode::none}}));
}

// The last byte of the model stands for all that follow.
constexpr u64 bytes = 48;
constexpr u64 end_of(u64 last) { return last == bytes - 1 ? max_lock_offset : last; }

struct Naive {
  std::array<std::array<LockMode, bytes>, 4> mode{};

  bool conflicts(std::size_t owner, u64 first, u64 last, LockMode wanted) const {
    for (std::size_t other = 0; other < mode.size(); ++other) {
      for (u64 at = first; at <= last && other != owner && wanted != LockMode::none; ++at) {
        const LockMode there = mode[other][at];
        if (there == LockMode::exclusive ||
            (there == LockMode::shared && wanted == LockMode::exclusive))
          return true;
      }
    }
    return false;
  }
  std::size_t ranges() const {
    std::size_t count = 0;
    for (const auto& one : mode)
      for (u64 at = 0; at < bytes; ++at)
        if (one[at] != LockMode::none && (at == 0 || one[at - 1] != one[at])) ++count;
    return count;
  }
};

TEST(LockTable, AgreesWithAModeForEachByte) {
  constexpr std::array<LockOwner, 4> owners{a, b, c, {LockKind::ofd, 0, 4, 9}};
  Random random(11);
  u64 conflicts = 0, sets = 0;
  for (int round = 0; round < 200; ++round) {
    LockTable table;
    Naive naive;
    for (int i = 0; i < 200; ++i) {
      const std::size_t owner = random.below(owners.size());
      const u64 first = random.below(bytes);
      const u64 last = first + random.below(std::min<u64>(bytes - first, 12));
      const LockRange range{first, end_of(last)};
      const auto mode = static_cast<LockMode>(random.below(3));
      ASSERT_EQ(table.conflict(owners[owner], range, mode) != nullptr,
                naive.conflicts(owner, first, last, mode));
      ASSERT_EQ(table.in_the_way(owners[owner], range, mode).empty(),
                !naive.conflicts(owner, first, last, mode) || mode == LockMode::none);
      if (random.below(40) == 0) {
        table.remove(owners[owner]);
        naive.mode[owner].fill(LockMode::none);
      } else if (const std::size_t heir = (owner + 1) % owners.size(); random.below(60) == 0) {
        const std::size_t before = table.size();
        table.give(owners[owner], owners[heir]);
        ASSERT_LE(table.size(), before);
        for (u64 at = 0; at < bytes; ++at)
          naive.mode[heir][at] =
              std::max(naive.mode[heir][at], std::exchange(naive.mode[owner][at], LockMode::none));
      } else if (naive.conflicts(owner, first, last, mode)) {
        ++conflicts;
        continue;
      } else {
        ++sets;
        const std::size_t before = table.size();
        table.set(owners[owner], range, mode, 0);
        ASSERT_LE(table.size(), before + 2);
        for (u64 at = first; at <= last; ++at) naive.mode[owner][at] = mode;
      }
      ASSERT_EQ(table.size(), naive.ranges());
      std::array<LockMode, bytes> strongest{};
      u64 next = 0;
      for (const auto& part : table.strongest({})) {
        ASSERT_EQ(part.range.first, next);
        next = part.range.last + 1;
        for (u64 at = part.range.first; at <= part.range.last && at < bytes; ++at)
          strongest[at] = part.mode;
      }
      ASSERT_EQ(next, max_lock_offset + 1);
      for (u64 at = 0; at < bytes; ++at)
        for (const auto& one : naive.mode) ASSERT_LE(one[at], strongest[at]);
      for (u64 at = 0; at < bytes; ++at)
        ASSERT_TRUE(std::ranges::any_of(naive.mode,
                                        [&](const auto& one) { return one[at] == strongest[at]; }));
    }
  }
  EXPECT_GT(conflicts, 1'000u);
  EXPECT_GT(sets, 10'000u);
}

}  // namespace
}  // namespace cob::descriptor
