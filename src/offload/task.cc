// The table of task.h. A few dozen tasks are looked up once a session each: a list will do.
#include "offload/task.h"

#include <algorithm>

namespace cob::offload {

Result<void> TaskSet::add(Entry entry) {
  if (entry.name.empty() || entry.name.size() > max_name_bytes)
    return Error::of(ENAMETOOLONG, "a task's name has 1 to 200 bytes");
  if (entries_.size() == most) return Error::of(ENOSPC, "too many tasks");
  const auto same = [&](const Entry& other) { return other.name == entry.name; };
  if (std::ranges::any_of(entries_, same)) return Error::of(EEXIST, "two tasks have the same name");
  entries_.push_back(std::move(entry));
  return {};
}

Result<u32> TaskSet::find(std::string_view name, u64 signature) const {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].name != name) continue;
    if (entries_[i].signature != signature)
      return Error::of(EPROTOTYPE, "the task has another signature here");
    return static_cast<u32>(i);
  }
  return Error::of(ENOENT, "there is no task of that name");
}

}  // namespace cob::offload
