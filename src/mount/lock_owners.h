// LockOwners: whose record locks a mount's programs have. fcntl_lock(2). Model: to the homes of the
// files this whole server is one program, so its POSIX locks would not exclude each other; what the
// host calls an owner (a program's table of descriptors, or a description of F_OFD_SETLK) has its
// locks as OFD locks of a description of its own: that of the open file, if nobody else's are
// there, else one more of the same file. Any thread.
#pragma once

#include <fcntl.h>

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "mount/tree.h"

namespace cob::mount {

// An open file of the mount: fuse_file_info's fh.
struct Handle {
  Handle(fuse_ino_t of, SharedFd opened, int opened_for, bool opened_to_append)
      : number(of), file(std::move(opened)), access(opened_for), appends(opened_to_append) {}
  const fuse_ino_t number;
  const SharedFd file;
  const int access;    // O_RDONLY, O_WRONLY or O_RDWR
  const bool appends;  // opened with O_APPEND
  std::mutex lock;
  SharedFd otherwise;  // by `lock`: the same file, with O_APPEND if this has it not; or none
};

class LockOwners {
 public:
  explicit LockOwners(Tree& tree) : tree_(tree) {}

  // F_GETLK's answer in `wanted`. 0 or an error, as of the rest.
  int get(const Handle& handle, u64 owner, struct flock& wanted);
  // F_SETLK or F_SETLKW, as whom the thread asks. EINTR: a signal came. No EDEADLK is found.
  int set(const Handle& handle, u64 owner, struct flock wanted, bool waits);
  // The owner has closed a descriptor of the file: all its locks of it go.
  void leave(fuse_ino_t number, u64 owner);
  // So is the handle; what was locked by it is unlocked with its description.
  void closed(const Handle& handle);

 private:
  struct Description {
    SharedFd file;
    int access;
    const Handle* by;  // made for, or of, this one
  };
  using Key = std::pair<fuse_ino_t, u64>;
  using Descriptions = std::vector<Description>;

  Descriptions of(const Key& key);
  int choose(const Handle& handle, const Key& key, bool writes, Description& into);
  bool is_taken(fuse_ino_t number, const SharedFd& file) const;

  Tree& tree_;
  std::mutex lock_;
  std::map<Key, Descriptions> owned_;
};

}  // namespace cob::mount
