// Nodes and how they are reached; tree.h. openat(2), statx(2).
#include "mount/tree.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace cob::mount {

namespace {

timespec time_of(const statx_timestamp& time) {
  return {.tv_sec = time.tv_sec, .tv_nsec = static_cast<long>(time.tv_nsec)};
}

// The shim's descriptors of other islands' files are eventfds to the host.
bool is_of_another_island(const Fd& fd) {
  std::array<char, 64> text{};
  const std::string name = "/proc/self/fd/" + std::to_string(fd.get());
  const ssize_t bytes = ::readlink(name.c_str(), text.data(), text.size());
  return bytes > 0 &&
         std::string_view(text.data(), static_cast<std::size_t>(bytes)).starts_with("anon_inode:");
}

}  // namespace

Identity identity_of(const struct statx& status) {
  Identity identity{.device = u64{status.stx_dev_major} << 32 | status.stx_dev_minor,
                    .inode = status.stx_ino};
  if ((status.stx_mask & STATX_BTIME) != 0) {
    identity.born_seconds = status.stx_btime.tv_sec;
    identity.born_nanoseconds = status.stx_btime.tv_nsec;
  }
  return identity;
}

struct stat attributes_of(const struct statx& status) {
  struct stat is{};
  is.st_ino = status.stx_ino;
  is.st_mode = status.stx_mode;
  is.st_nlink = status.stx_nlink;
  is.st_uid = status.stx_uid;
  is.st_gid = status.stx_gid;
  is.st_rdev = ::makedev(status.stx_rdev_major, status.stx_rdev_minor);
  is.st_size = static_cast<off_t>(status.stx_size);
  is.st_blksize = static_cast<blksize_t>(status.stx_blksize);
  is.st_blocks = static_cast<blkcnt_t>(status.stx_blocks);
  is.st_atim = time_of(status.stx_atime);
  is.st_mtim = time_of(status.stx_mtime);
  is.st_ctim = time_of(status.stx_ctime);
  return is;
}

Tree::Tree(std::string path) : path_(std::move(path)) { nodes_[FUSE_ROOT_ID].lookups = 1; }

// ---- Nodes.

Tree::Node* Tree::find(fuse_ino_t number) {
  const auto found = nodes_.find(number);
  return found == nodes_.end() ? nullptr : &found->second;
}

void Tree::leaves_name(fuse_ino_t number, const Node& node) {
  const auto found = names_.find(Key(node.parent, node.name));
  if (found != names_.end() && found->second == number) names_.erase(found);
}

void Tree::lies(fuse_ino_t number, Node& node, fuse_ino_t parent, std::string name) {
  leaves_name(number, node);
  node.parent = parent;
  node.name = std::move(name);
  names_[Key(parent, node.name)] = number;
}

fuse_ino_t Tree::note(fuse_ino_t parent, const char* name, const struct statx& status) {
  const Identity identity = identity_of(status);
  const std::scoped_lock lock(lock_);
  const auto [at, is_new] = numbers_.try_emplace(identity, 0);
  if (is_new) at->second = ++last_number_;
  const fuse_ino_t number = at->second;
  Node& node = nodes_[number];
  node.identity = identity;
  ++node.lookups;
  lies(number, node, parent, name);
  return number;
}

void Tree::forget(fuse_ino_t number, u64 lookups) {
  SharedFd given_up;  // closes after the lock is given back
  const std::scoped_lock lock(lock_);
  Node* node = find(number);
  if (node == nullptr || number == FUSE_ROOT_ID) return;
  node->lookups -= std::min(lookups, node->lookups);
  if (node->lookups > 0) return;
  given_up = std::move(node->place);
  if (given_up != nullptr) --places_;
  leaves_name(number, *node);
  numbers_.erase(node->identity);
  nodes_.erase(number);
}

void Tree::renamed(fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
                   bool exchanged) {
  const std::scoped_lock lock(lock_);
  const auto number_at = [&](fuse_ino_t parent, const char* at) {
    const auto found = names_.find(Key(parent, at));
    return found == names_.end() ? fuse_ino_t{0} : found->second;
  };
  const fuse_ino_t moved = number_at(from, name), other = number_at(to, new_name);
  if (Node* node = find(moved)) lies(moved, *node, to, new_name);
  if (!exchanged || other == moved) return;
  if (Node* node = find(other)) lies(other, *node, from, name);
}

std::optional<Tree::Name> Tree::name_of(fuse_ino_t number) {
  const std::scoped_lock lock(lock_);
  const Node* node = find(number);
  if (node == nullptr || number == FUSE_ROOT_ID) return std::nullopt;
  return Name{.parent = node->parent, .name = node->name, .identity = node->identity};
}

// ---- Places.

int Tree::open_root(SharedFd& into) {
  const Asking self;
  Fd fd(::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return errno;
  if (!is_of_another_island(fd)) return ENODEV;
  into = std::make_shared<const Fd>(std::move(fd));
  keep_place(FUSE_ROOT_ID, into);
  return 0;
}

int Tree::place(fuse_ino_t number, SharedFd& into) {
  {
    const std::scoped_lock lock(lock_);
    const Node* node = find(number);
    if (node == nullptr) return not_it;
    into = node->place;
    if (into != nullptr) return 0;
  }
  if (number == FUSE_ROOT_ID) return open_root(into);
  const auto name = name_of(number);
  if (!name) return not_it;
  SharedFd parent;
  if (const int error = place(name->parent, parent); error != 0) return error;
  const Asking self;
  Fd fd(::openat(parent->get(), name->name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return errno == ENOENT ? not_it : errno;
  struct statx status;
  opened_status(status);
  if (identity_of(status) != name->identity) return not_it;
  into = std::make_shared<const Fd>(std::move(fd));
  if (S_ISDIR(status.stx_mode)) keep_place(number, into);
  return 0;
}

void Tree::keep_place(fuse_ino_t number, const SharedFd& place) {
  std::vector<SharedFd> given_up;
  const std::scoped_lock lock(lock_);
  if (places_ >= max_places) {
    for (auto& [other, node] : nodes_)
      if (node.place != nullptr) given_up.push_back(std::move(node.place));
    places_ = 0;
  }
  Node* node = find(number);
  if (node == nullptr || node->place != nullptr) return;
  node->place = place;
  ++places_;
}

void Tree::give_up_places() {
  std::vector<SharedFd> given_up;
  const std::scoped_lock lock(lock_);
  for (auto& [number, node] : nodes_)
    if (node.place != nullptr) given_up.push_back(std::move(node.place));
  places_ = 0;
}

// ---- What is open.

void Tree::opened(fuse_ino_t number, SharedFd file) {
  const std::scoped_lock lock(lock_);
  if (Node* node = find(number)) node->open.push_back(std::move(file));
}

void Tree::closed(fuse_ino_t number, const SharedFd& file) {
  const std::scoped_lock lock(lock_);
  Node* node = find(number);
  if (node == nullptr) return;
  const auto found = std::ranges::find(node->open, file);
  if (found != node->open.end()) node->open.erase(found);
}

SharedFd Tree::open_of(fuse_ino_t number) {
  const std::scoped_lock lock(lock_);
  const Node* node = find(number);
  return node == nullptr || node->open.empty() ? nullptr : node->open.back();
}

int Tree::status(fuse_ino_t number, struct statx& into) {
  constexpr unsigned wanted = STATX_BASIC_STATS | STATX_BTIME;
  const Asking self;
  SharedFd there = open_of(number);
  if (there == nullptr) {
    const std::scoped_lock lock(lock_);
    if (const Node* node = find(number)) there = node->place;
  }
  if (there != nullptr) {
    const int error = error_of(::statx(there->get(), "", AT_EMPTY_PATH, wanted, &into));
    if (error != ESTALE) return error;
  }
  const auto name = name_of(number);
  if (!name)
    return at(number,
              [&](int fd) { return error_of(::statx(fd, "", AT_EMPTY_PATH, wanted, &into)); });
  return at(name->parent, [&](int fd) {
    if (::statx(fd, name->name.c_str(), AT_SYMLINK_NOFOLLOW, wanted, &into) != 0)
      return errno == ENOENT ? not_it : errno;
    return identity_of(into) == name->identity ? 0 : not_it;
  });
}

int Tree::open(fuse_ino_t number, int flags, Fd& into) {
  const auto name = name_of(number);
  const auto open_there = [&](int fd, const char* text) {
    into = Fd(::openat(fd, text, flags | O_NOFOLLOW | O_CLOEXEC));
    return into.valid() ? 0 : errno;
  };
  if (!name) return at(number, [&](int fd) { return open_there(fd, "."); });
  return at(name->parent, [&](int fd) {
    const int error = open_there(fd, name->name.c_str());
    if (error != 0) return error == ENOENT ? not_it : error;
    struct statx status;
    opened_status(status);
    return identity_of(status) == name->identity ? 0 : not_it;
  });
}

}  // namespace cob::mount
