// LockTable: who has which record locks of one file. fcntl(2), "Advisory record locking".
// Model: an owner's ranges are disjoint, and merged where they touch and agree; two owners' overlap
// only where both are shared. Linear in the ranges, which the caller bounds. A value.
#pragma once

#include <compare>
#include <vector>

#include "base/types.h"

namespace cob::descriptor {

inline constexpr u64 max_lock_offset = INT64_MAX;

enum class LockKind : u8 { flock = 0, posix = 1, ofd = 2 };
constexpr bool known(LockKind kind) { return kind <= LockKind::ofd; }
enum class LockMode : u8 { none = 0, shared = 1, exclusive = 2 };
constexpr bool known(LockMode mode) { return mode <= LockMode::exclusive; }

// `last` is inclusive, at most max_lock_offset.
struct LockRange {
  u64 first = 0;
  u64 last = max_lock_offset;
  bool operator==(const LockRange&) const = default;
  bool overlaps(const LockRange& other) const { return first <= other.last && other.first <= last; }
};

// posix: a program of a kernel; ofd: a description, by its handle.
struct LockOwner {
  LockKind kind{};
  u16 kernel = 0;
  u32 number = 0;
  u32 generation = 0;
  auto operator<=>(const LockOwner&) const = default;
};

class LockTable {
 public:
  struct Held {
    LockRange range;
    LockMode mode{};
    LockOwner owner;
    u32 pid = 0;
  };
  struct Part {
    LockRange range;
    LockMode mode{};
    bool operator==(const Part&) const = default;
  };

  // The lowest lock of others that stands in the way; nullptr: none does. Valid until a change.
  const Held* conflict(const LockOwner& owner, const LockRange& range, LockMode mode) const;
  // All who stand in the way, each once.
  std::vector<LockOwner> in_the_way(const LockOwner& owner, const LockRange& range,
                                    LockMode mode) const;
  // What the owner has in `range` becomes `mode`; none: is gone. Adds at most two ranges.
  // REQUIRES: no conflict.
  void set(const LockOwner& owner, const LockRange& range, LockMode mode, u32 pid);
  // What it had.
  std::vector<LockRange> remove(const LockOwner& owner);
  // All that `owner` has is `heir`'s; adds no range. REQUIRES: they are not the same.
  void give(const LockOwner& owner, const LockOwner& heir);
  // Something in `range`, of at least that mode.
  bool has(const LockOwner& owner, const LockRange& range, LockMode least) const;
  // `range` in parts, in order and without gaps: the strongest that anyone has there.
  std::vector<Part> strongest(const LockRange& range) const;

  const std::vector<Held>& held() const { return held_; }
  bool empty() const { return held_.empty(); }
  std::size_t size() const { return held_.size(); }

 private:
  std::vector<Held> held_;  // in any order
};

}  // namespace cob::descriptor
