// LockTable: conflicts, cutting and merging of ranges; see lock_table.h.
#include "descriptor/lock_table.h"

#include <algorithm>

namespace cob::descriptor {
namespace {

bool in_the_way_of(const LockTable::Held& held, const LockOwner& owner, const LockRange& range,
                   LockMode mode) {
  return mode != LockMode::none && held.owner != owner && held.range.overlaps(range) &&
         (mode == LockMode::exclusive || held.mode == LockMode::exclusive);
}

// They overlap, or nothing lies between them. Offsets are at most max_lock_offset.
bool touches(const LockRange& a, const LockRange& b) {
  return a.first <= b.last + 1 && b.first <= a.last + 1;
}

}  // namespace

const LockTable::Held* LockTable::conflict(const LockOwner& owner, const LockRange& range,
                                           LockMode mode) const {
  const Held* lowest = nullptr;
  for (const Held& held : held_) {
    if (!in_the_way_of(held, owner, range, mode)) continue;
    if (lowest == nullptr || held.range.first < lowest->range.first) lowest = &held;
  }
  return lowest;
}

std::vector<LockOwner> LockTable::in_the_way(const LockOwner& owner, const LockRange& range,
                                             LockMode mode) const {
  std::vector<LockOwner> owners;
  for (const Held& held : held_)
    if (in_the_way_of(held, owner, range, mode)) owners.push_back(held.owner);
  std::ranges::sort(owners);
  const auto twice = std::ranges::unique(owners);
  owners.erase(twice.begin(), twice.end());
  return owners;
}

void LockTable::set(const LockOwner& owner, const LockRange& range, LockMode mode, u32 pid) {
  LockRange whole = range;
  for (std::size_t i = 0; i < held_.size();) {
    const Held held = held_[i];
    const bool joins = mode != LockMode::none && held.mode == mode && touches(held.range, range);
    if (held.owner != owner || (!joins && !held.range.overlaps(range))) {
      ++i;
      continue;
    }
    held_[i] = held_.back();
    held_.pop_back();
    if (joins) {
      whole.first = std::min(whole.first, held.range.first);
      whole.last = std::max(whole.last, held.range.last);
      continue;
    }
    // What is left of it lies outside of `range`, so it is not looked at again in vain.
    if (held.range.first < range.first) {
      held_.push_back(held);
      held_.back().range.last = range.first - 1;
    }
    if (held.range.last > range.last) {
      held_.push_back(held);
      held_.back().range.first = range.last + 1;
    }
  }
  if (mode != LockMode::none)
    held_.push_back({.range = whole, .mode = mode, .owner = owner, .pid = pid});
}

void LockTable::give(const LockOwner& owner, const LockOwner& heir) {
  std::vector<Held> given;
  for (const Held& held : held_)
    if (held.owner == owner) given.push_back(held);
  remove(owner);
  for (const Held& held : given) set(heir, held.range, held.mode, held.pid);
}

std::vector<LockRange> LockTable::remove(const LockOwner& owner) {
  std::vector<LockRange> had;
  std::erase_if(held_, [&](const Held& held) {
    if (held.owner != owner) return false;
    had.push_back(held.range);
    return true;
  });
  return had;
}

bool LockTable::has(const LockOwner& owner, const LockRange& range, LockMode least) const {
  return std::ranges::any_of(held_, [&](const Held& held) {
    return held.owner == owner && held.range.overlaps(range) && held.mode >= least;
  });
}

std::vector<LockTable::Part> LockTable::strongest(const LockRange& range) const {
  struct Edge {
    u64 at;
    i32 shared, exclusive;
  };
  std::vector<Edge> edges;
  for (const Held& held : held_) {
    if (!held.range.overlaps(range)) continue;
    const i32 exclusive = held.mode == LockMode::exclusive ? 1 : 0;
    edges.push_back({std::max(held.range.first, range.first), 1 - exclusive, exclusive});
    edges.push_back({std::min(held.range.last, range.last) + 1, exclusive - 1, -exclusive});
  }
  std::ranges::sort(edges, {}, &Edge::at);
  std::vector<Part> parts;
  u64 from = range.first;
  i32 shared = 0, exclusive = 0;
  const auto close_part = [&](u64 end) {  // [from, end)
    if (end <= from) return;
    const LockMode mode = exclusive > 0 ? LockMode::exclusive
                          : shared > 0  ? LockMode::shared
                                        : LockMode::none;
    if (!parts.empty() && parts.back().mode == mode) {
      parts.back().range.last = end - 1;
    } else {
      parts.push_back({.range = {from, end - 1}, .mode = mode});
    }
    from = end;
  };
  for (const Edge& edge : edges) {
    close_part(edge.at);
    shared += edge.shared;
    exclusive += edge.exclusive;
  }
  close_part(range.last + 1);
  return parts;
}

}  // namespace cob::descriptor
