// Tree: the files that the host's kernel knows of a mount: its nodes, and how each is reached.
// Model: a node is a file (device, inode, time of birth), known by a number that is never used
// again, and lies where it was last looked up: a name in another node. A directory's node may keep
// its place, an O_PATH descriptor; what a name leads to is compared with the node before it is used
// as that (not_it). Descriptors that were lost with a kernel (ESTALE) are opened anew by their
// names. Any thread; the lock is never held over a call to a kernel.
#pragma once

#include <compare>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "mount/asking.h"

namespace cob::mount {

struct Identity {
  u64 device = 0, inode = 0;
  i64 born_seconds = 0;  // 0: the filesystem does not tell
  u32 born_nanoseconds = 0;
  auto operator<=>(const Identity&) const = default;
};
Identity identity_of(const struct statx& status);
struct stat attributes_of(const struct statx& status);

using SharedFd = std::shared_ptr<const Fd>;

class Tree {
 public:
  static constexpr std::size_t max_places = 1'024;  // reaction when full: all are given up
  struct Name {
    fuse_ino_t parent = 0;
    std::string name;
    Identity identity;
  };

  // `path`: of a directory in a share of another island.
  explicit Tree(std::string path);

  // --- Nodes.
  // The file that was found by this name, looked up once more by the host's kernel.
  fuse_ino_t note(fuse_ino_t parent, const char* name, const struct statx& status);
  void forget(fuse_ino_t number, u64 lookups);
  void renamed(fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
               bool exchanged);
  // nullopt: no such node, or the root.
  std::optional<Name> name_of(fuse_ino_t number);

  // --- How a node is reached. The result of each: 0 or an error.
  // Its place.
  int place(fuse_ino_t number, SharedFd& into);
  // What programs have open of it, for calls on the file itself whatever its name is by now.
  void opened(fuse_ino_t number, SharedFd file);
  void closed(fuse_ino_t number, const SharedFd& file);
  // nullptr: nothing.
  SharedFd open_of(fuse_ino_t number);
  int status(fuse_ino_t number, struct statx& into);
  // use(descriptor) of its place; again when that was lost with a kernel.
  template <typename Use>
  int at(fuse_ino_t number, Use use) {
    for (int attempt = 0;; ++attempt) {
      SharedFd there;
      int error = place(number, there);
      if (error == 0) error = use(there->get());
      if (error != ESTALE || attempt == 1) return error;
      give_up_places();
    }
  }
  // use(descriptor) of what is open of it, else of its place.
  template <typename Use>
  int on(fuse_ino_t number, Use use) {
    if (const SharedFd file = open_of(number)) {
      const int error = use(file->get());
      if (error != ESTALE) return error;
    }
    return at(number, use);
  }
  // open(2) by its name, as whom the thread asks. not_it.
  int open(fuse_ino_t number, int flags, Fd& into);

 private:
  struct Node {
    Identity identity;
    u64 lookups = 0;
    fuse_ino_t parent = 0;
    std::string name;
    SharedFd place;
    std::vector<SharedFd> open;
  };
  using Key = std::pair<fuse_ino_t, std::string>;

  Node* find(fuse_ino_t number);
  void lies(fuse_ino_t number, Node& node, fuse_ino_t parent, std::string name);
  void leaves_name(fuse_ino_t number, const Node& node);
  int open_root(SharedFd& into);
  void keep_place(fuse_ino_t number, const SharedFd& place);
  void give_up_places();

  const std::string path_;
  std::mutex lock_;
  std::unordered_map<fuse_ino_t, Node> nodes_;
  std::map<Identity, fuse_ino_t> numbers_;
  std::map<Key, fuse_ino_t> names_;
  fuse_ino_t last_number_ = FUSE_ROOT_ID;
  std::size_t places_ = 0;
};

}  // namespace cob::mount
