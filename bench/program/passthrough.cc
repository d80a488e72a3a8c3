// cob-bench-passthrough: a minimal passthrough filesystem, what `cob bench files` compares with.
//   cob-bench-passthrough -f -o source=DIRECTORY MOUNTPOINT
// Model: libfuse's low level, a node an inode in use, named by its O_PATH descriptor. Nothing is
// cached: no attribute, name or page outlives its request, as nothing does in a share of cob that
// several use. fuse(4), libfuse 3. One thread: one client asks.
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/types.h"

namespace {

using cob::Fd;
using cob::u64;

struct Node {
  Fd fd;
  u64 lookups = 0;
  std::pair<dev_t, ino_t> identity;
};

// Owns the nodes; the root is the one whose number is FUSE_ROOT_ID.
struct Tree {
  Node root;
  std::map<std::pair<dev_t, ino_t>, std::unique_ptr<Node>> nodes;

  Node& node(fuse_ino_t number) {
    return number == FUSE_ROOT_ID ? root : *reinterpret_cast<Node*>(number);
  }
  int fd(fuse_ino_t number) { return node(number).fd.get(); }
  // 0 or errno.
  int look_up(fuse_ino_t parent, const char* name, fuse_entry_param& entry) {
    entry = {};
    Fd fd(::openat(this->fd(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid() ||
        ::fstatat(fd.get(), "", &entry.attr, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
      return errno;
    const std::pair identity{entry.attr.st_dev, entry.attr.st_ino};
    auto& found = nodes[identity];
    if (found == nullptr)
      found = std::make_unique<Node>(Node{.fd = std::move(fd), .identity = identity});
    ++found->lookups;
    entry.ino = reinterpret_cast<fuse_ino_t>(found.get());
    return 0;
  }
  void forget(fuse_ino_t number, u64 lookups) {
    if (number == FUSE_ROOT_ID) return;
    Node& gone = node(number);
    gone.lookups -= lookups;
    if (gone.lookups == 0) nodes.erase(std::pair(gone.identity));
  }
};

Tree& tree_of(fuse_req_t request) { return *static_cast<Tree*>(fuse_req_userdata(request)); }

std::string path_of(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

void answer_entry(fuse_req_t request, fuse_ino_t parent, const char* name) {
  fuse_entry_param entry;
  const int failed = tree_of(request).look_up(parent, name, entry);
  failed != 0 ? fuse_reply_err(request, failed) : fuse_reply_entry(request, &entry);
}

void getattr(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  (void)file;
  struct stat is{};
  const int failed = ::fstatat(tree_of(request).fd(number), "", &is, AT_EMPTY_PATH);
  failed != 0 ? fuse_reply_err(request, errno) : fuse_reply_attr(request, &is, 0);
}

void setattr(fuse_req_t request, fuse_ino_t number, struct stat* to, int which,
             fuse_file_info* file) {
  const std::string path = path_of(tree_of(request).fd(number));
  int failed = 0;
  if ((which & FUSE_SET_ATTR_MODE) != 0) failed |= ::chmod(path.c_str(), to->st_mode);
  if ((which & FUSE_SET_ATTR_SIZE) != 0) failed |= ::truncate(path.c_str(), to->st_size);
  if ((which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0)
    failed |= ::chown(path.c_str(), (which & FUSE_SET_ATTR_UID) != 0 ? to->st_uid : uid_t(-1),
                      (which & FUSE_SET_ATTR_GID) != 0 ? to->st_gid : gid_t(-1));
  if (failed != 0) {
    fuse_reply_err(request, errno);
  } else {
    getattr(request, number, file);
  }
}

void answer_open(fuse_req_t request, int fd, fuse_file_info* file) {
  if (fd < 0) {
    fuse_reply_err(request, errno);
    return;
  }
  file->fh = static_cast<u64>(fd);
  file->direct_io = 1;
  if (fuse_reply_open(request, file) != 0) ::close(fd);
}

void open(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  const std::string path = path_of(tree_of(request).fd(number));
  answer_open(request, ::open(path.c_str(), (file->flags & ~O_NOFOLLOW) | O_CLOEXEC), file);
}

void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* file) {
  const int fd = ::openat(tree_of(request).fd(parent), name,
                          (file->flags | O_CREAT | O_CLOEXEC) & ~O_NOFOLLOW, mode);
  fuse_entry_param entry;
  const int failed = fd < 0 ? errno : tree_of(request).look_up(parent, name, entry);
  if (failed != 0) {
    if (fd >= 0) ::close(fd);
    fuse_reply_err(request, failed);
    return;
  }
  file->fh = static_cast<u64>(fd);
  file->direct_io = 1;
  fuse_reply_create(request, &entry, file);
}

void read(fuse_req_t request, fuse_ino_t, std::size_t bytes, off_t at, fuse_file_info* file) {
  fuse_bufvec from{};
  from.count = 1;
  from.buf[0].size = bytes;
  from.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
  from.buf[0].fd = static_cast<int>(file->fh);
  from.buf[0].pos = at;
  fuse_reply_data(request, &from, FUSE_BUF_SPLICE_MOVE);
}

void write(fuse_req_t request, fuse_ino_t, const char* from, std::size_t bytes, off_t at,
           fuse_file_info* file) {
  const ssize_t did = ::pwrite(static_cast<int>(file->fh), from, bytes, at);
  did < 0 ? fuse_reply_err(request, errno)
          : fuse_reply_write(request, static_cast<std::size_t>(did));
}

void release(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  ::close(static_cast<int>(file->fh));
  fuse_reply_err(request, 0);
}

void fsync(fuse_req_t request, fuse_ino_t, int data_only, fuse_file_info* file) {
  const int fd = static_cast<int>(file->fh);
  fuse_reply_err(request, (data_only != 0 ? ::fdatasync(fd) : ::fsync(fd)) != 0 ? errno : 0);
}

void look_up(fuse_req_t request, fuse_ino_t parent, const char* name) {
  answer_entry(request, parent, name);
}

void forget(fuse_req_t request, fuse_ino_t number, u64 lookups) {
  tree_of(request).forget(number, lookups);
  fuse_reply_none(request);
}

void make_directory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  if (::mkdirat(tree_of(request).fd(parent), name, mode) != 0) {
    fuse_reply_err(request, errno);
  } else {
    answer_entry(request, parent, name);
  }
}

void unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  fuse_reply_err(request, ::unlinkat(tree_of(request).fd(parent), name, 0) != 0 ? errno : 0);
}

void remove_directory(fuse_req_t request, fuse_ino_t parent, const char* name) {
  fuse_reply_err(request,
                 ::unlinkat(tree_of(request).fd(parent), name, AT_REMOVEDIR) != 0 ? errno : 0);
}

void rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t to,
            const char* new_name, unsigned flags) {
  Tree& tree = tree_of(request);
  fuse_reply_err(request,
                 ::renameat2(tree.fd(parent), name, tree.fd(to), new_name, flags) != 0 ? errno : 0);
}

void link(fuse_req_t request, fuse_ino_t number, fuse_ino_t parent, const char* name) {
  Tree& tree = tree_of(request);
  if (::linkat(AT_FDCWD, path_of(tree.fd(number)).c_str(), tree.fd(parent), name,
               AT_SYMLINK_FOLLOW) != 0) {
    fuse_reply_err(request, errno);
  } else {
    answer_entry(request, parent, name);
  }
}

void read_link(fuse_req_t request, fuse_ino_t number) {
  char target[PATH_MAX];
  const ssize_t bytes = ::readlinkat(tree_of(request).fd(number), "", target, sizeof target - 1);
  if (bytes < 0) {
    fuse_reply_err(request, errno);
    return;
  }
  target[bytes] = '\0';
  fuse_reply_readlink(request, target);
}

void make_link(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  if (::symlinkat(target, tree_of(request).fd(parent), name) != 0) {
    fuse_reply_err(request, errno);
  } else {
    answer_entry(request, parent, name);
  }
}

void open_directory(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  const int fd = ::openat(tree_of(request).fd(number), ".", O_RDONLY | O_CLOEXEC);
  DIR* directory = fd < 0 ? nullptr : ::fdopendir(fd);
  if (directory == nullptr) {
    fuse_reply_err(request, errno);
    return;
  }
  file->fh = reinterpret_cast<u64>(directory);
  fuse_reply_open(request, file);
}

void read_directory(fuse_req_t request, fuse_ino_t, std::size_t bytes, off_t at,
                    fuse_file_info* file) {
  auto* directory = reinterpret_cast<DIR*>(file->fh);
  std::vector<char> buffer(bytes);
  std::size_t used = 0;
  if (at != ::telldir(directory)) ::seekdir(directory, at);
  while (true) {
    const long before = ::telldir(directory);
    const dirent* entry = ::readdir(directory);
    if (entry == nullptr) break;
    struct stat is{};
    is.st_ino = entry->d_ino;
    is.st_mode = static_cast<mode_t>(entry->d_type) << 12;
    const std::size_t takes = fuse_add_direntry(request, buffer.data() + used, bytes - used,
                                                entry->d_name, &is, entry->d_off);
    if (takes > bytes - used) {
      ::seekdir(directory, before);
      break;
    }
    used += takes;
  }
  fuse_reply_buf(request, buffer.data(), used);
}

void release_directory(fuse_req_t request, fuse_ino_t, fuse_file_info* file) {
  ::closedir(reinterpret_cast<DIR*>(file->fh));
  fuse_reply_err(request, 0);
}

void stat_filesystem(fuse_req_t request, fuse_ino_t number) {
  struct statvfs is{};
  const int failed = ::fstatvfs(tree_of(request).fd(number), &is);
  failed != 0 ? fuse_reply_err(request, errno) : fuse_reply_statfs(request, &is);
}

constexpr fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops of{};
  of.lookup = look_up;
  of.forget = forget;
  of.getattr = getattr;
  of.setattr = setattr;
  of.readlink = read_link;
  of.mkdir = make_directory;
  of.unlink = unlink;
  of.rmdir = remove_directory;
  of.symlink = make_link;
  of.rename = rename;
  of.link = link;
  of.open = open;
  of.read = read;
  of.write = write;
  of.release = release;
  of.fsync = fsync;
  of.opendir = open_directory;
  of.readdir = read_directory;
  of.releasedir = release_directory;
  of.statfs = stat_filesystem;
  of.create = create;
  return of;
}

int serve(fuse_args& arguments) {
  fuse_cmdline_opts options{};
  char* source = nullptr;
  constexpr std::array<fuse_opt, 2> known{{{"source=%s", 0, 0}, FUSE_OPT_END}};
  if (fuse_opt_parse(&arguments, static_cast<void*>(&source), known.data(), nullptr) != 0 ||
      fuse_parse_cmdline(&arguments, &options) != 0 || source == nullptr ||
      options.mountpoint == nullptr) {
    std::fprintf(stderr, "usage: cob-bench-passthrough -f -o source=DIRECTORY MOUNTPOINT\n");
    return 2;
  }
  Tree tree;
  tree.root.fd = Fd(::open(source, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!tree.root.fd.valid()) {
    std::perror(source);
    return 1;
  }
  ::umask(0);
  constexpr fuse_lowlevel_ops of = operations();
  fuse_session* session = fuse_session_new(&arguments, &of, sizeof of, &tree);
  if (session == nullptr) return 1;
  int failed = fuse_set_signal_handlers(session);
  if (failed == 0) failed = fuse_session_mount(session, options.mountpoint);
  if (failed == 0) {
    failed = fuse_session_loop(session);
    fuse_session_unmount(session);
  }
  fuse_remove_signal_handlers(session);
  fuse_session_destroy(session);
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  fuse_args arguments = FUSE_ARGS_INIT(argc, argv);
  const int status = serve(arguments);
  fuse_opt_free_args(&arguments);
  return status;
}
