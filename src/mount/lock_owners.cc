// Each owner's own description; lock_owners.h. fcntl_lock(2).
#include "mount/lock_owners.h"

#include <algorithm>

namespace cob::mount {

namespace {

bool is_for(int access, bool writes) {
  return access == O_RDWR || access == (writes ? O_WRONLY : O_RDONLY);
}

int lock_there(const SharedFd& file, int command, struct flock wanted) {
  wanted.l_pid = 0;
  return error_of(::fcntl(file->get(), command, &wanted));
}

}  // namespace

LockOwners::Descriptions LockOwners::of(const Key& key) {
  const std::scoped_lock lock(lock_);
  const auto found = owned_.find(key);
  return found == owned_.end() ? Descriptions{} : found->second;
}

// REQUIRES: lock_.
bool LockOwners::is_taken(fuse_ino_t number, const SharedFd& file) const {
  for (auto at = owned_.lower_bound(Key(number, 0));
       at != owned_.end() && at->first.first == number; ++at)
    if (std::ranges::find(at->second, file, &Description::file) != at->second.end()) return true;
  return false;
}

int LockOwners::choose(const Handle& handle, const Key& key, bool writes, Description& into) {
  {
    const std::scoped_lock lock(lock_);
    if (const auto found = owned_.find(key); found != owned_.end()) {
      const auto fit = std::ranges::find_if(
          found->second, [&](const Description& d) { return is_for(d.access, writes); });
      if (fit != found->second.end()) {
        into = *fit;
        return 0;
      }
    }
    if (!is_taken(handle.number, handle.file)) {
      into = {.file = handle.file, .access = handle.access, .by = &handle};
      owned_[key].push_back(into);
      return 0;
    }
  }
  Fd fd;
  if (const int error = tree_.open(handle.number, handle.access, fd); error != 0)
    return error == not_it ? ENOLCK : error;  // it has no name by which to open it once more
  into = {
      .file = std::make_shared<const Fd>(std::move(fd)), .access = handle.access, .by = &handle};
  const std::scoped_lock lock(lock_);
  owned_[key].push_back(into);
  return 0;
}

int LockOwners::get(const Handle& handle, u64 owner, struct flock& wanted) {
  const Descriptions own = of(Key(handle.number, owner));
  wanted.l_pid = 0;
  // Without locks of its own, all of them are in its way: this program has no POSIX lock.
  if (own.empty()) return error_of(::fcntl(handle.file->get(), F_GETLK, &wanted));
  return error_of(::fcntl(own.front().file->get(), F_OFD_GETLK, &wanted));
}

int LockOwners::set(const Handle& handle, u64 owner, struct flock wanted, bool waits) {
  const Key key(handle.number, owner);
  struct flock none = wanted;
  none.l_type = F_UNLCK;
  if (wanted.l_type == F_UNLCK) {
    int first = 0;
    for (const Description& own : of(key)) {
      const int error = lock_there(own.file, F_OFD_SETLK, none);
      if (first == 0) first = error;
    }
    return first;
  }
  Description chosen;
  const int refused = choose(handle, key, wanted.l_type == F_WRLCK, chosen);
  if (refused != 0) return refused;
  for (const Description& own : of(key))
    if (own.file != chosen.file) (void)lock_there(own.file, F_OFD_SETLK, none);
  const int error = lock_there(chosen.file, waits ? F_OFD_SETLKW : F_OFD_SETLK, wanted);
  if (error != 0) return error;
  // The owner may have left meanwhile; the host then unlocks, and must find it.
  const std::scoped_lock lock(lock_);
  Descriptions& own = owned_[key];
  if (std::ranges::find(own, chosen.file, &Description::file) == own.end()) own.push_back(chosen);
  return 0;
}

void LockOwners::leave(fuse_ino_t number, u64 owner) {
  Descriptions left;
  {
    const std::scoped_lock lock(lock_);
    const auto found = owned_.find(Key(number, owner));
    if (found == owned_.end()) return;
    left = std::move(found->second);
    owned_.erase(found);
  }
  struct flock none{};
  none.l_type = F_UNLCK;
  none.l_whence = SEEK_SET;
  for (const Description& description : left) (void)lock_there(description.file, F_OFD_SETLK, none);
}

void LockOwners::closed(const Handle& handle) {
  Descriptions left;  // closes after the lock is given back
  const std::scoped_lock lock(lock_);
  for (auto at = owned_.lower_bound(Key(handle.number, 0));
       at != owned_.end() && at->first.first == handle.number;) {
    std::erase_if(at->second, [&](Description& d) {
      if (d.by != &handle) return false;
      left.push_back(std::move(d));
      return true;
    });
    at = at->second.empty() ? owned_.erase(at) : std::next(at);
  }
}

}  // namespace cob::mount
