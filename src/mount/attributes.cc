// What is told and changed of a file itself: attributes, permissions, extended attributes. Model:
// by what is open of it, else by its place (tree.h), judged at its home as the sender.
// fuse_lowlevel.h.
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>

#include "mount/server.h"

namespace cob::mount {

namespace {

constexpr std::size_t max_value_bytes = std::size_t{64} * 1'024;  // as Linux's

void reply_attributes(fuse_req_t request, fuse_ino_t number) {
  struct statx status{};
  const int error = tree_of(request).status(number, status);
  if (error != 0) return reply_error(request, error);
  const struct stat is = attributes_of(status);
  fuse_reply_attr(request, &is, kept_seconds);
}

// A change at a time, as the sender: of the open file, if it is meant, else of what the number is.
class Change {
 public:
  Change(fuse_req_t request, fuse_ino_t number, const fuse_file_info* file)
      : request_(request), number_(number), file_(file) {}

  template <typename Use>
  int on_file(Use use) {
    const auto as_sender = [&](int fd) {
      const Asking sender(request_);
      return error_of(use(fd));
    };
    if (file_ != nullptr) return as_sender(handle_of(file_).file->get());
    return tree_of(request_).on(number_, as_sender);
  }
  // truncate(2) asks for the right to write.
  int size(off_t bytes) {
    const Asking sender(request_);
    if (file_ != nullptr) return error_of(::ftruncate(handle_of(file_).file->get(), bytes));
    Fd fd;
    const int error = tree_of(request_).open(number_, O_WRONLY, fd);
    return error != 0 ? error : error_of(::ftruncate(fd.get(), bytes));
  }

 private:
  fuse_req_t request_;
  fuse_ino_t number_;
  const fuse_file_info* file_;
};

timespec wanted_time(const timespec& to, bool set, bool now) {
  if (!set) return {.tv_sec = 0, .tv_nsec = UTIME_OMIT};
  return now ? timespec{.tv_sec = 0, .tv_nsec = UTIME_NOW} : to;
}

int change(Change& file, const struct stat& to, int which) {
  const auto wants = [&](int bit) { return (which & bit) != 0; };
  if (wants(FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
    const uid_t user = wants(FUSE_SET_ATTR_UID) ? to.st_uid : static_cast<uid_t>(-1);
    const gid_t group = wants(FUSE_SET_ATTR_GID) ? to.st_gid : static_cast<gid_t>(-1);
    const int error = file.on_file([&](int fd) {
      return ::fchownat(fd, "", user, group, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
    });
    if (error != 0) return error;
  }
  if (wants(FUSE_SET_ATTR_MODE)) {
    const int error =
        file.on_file([&](int fd) { return ::fchmodat(fd, "", to.st_mode & 07777, AT_EMPTY_PATH); });
    if (error != 0) return error;
  }
  if (wants(FUSE_SET_ATTR_SIZE)) {
    const int error = file.size(to.st_size);
    if (error != 0) return error;
  }
  if (!wants(FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)) return 0;
  const std::array<timespec, 2> times{
      wanted_time(to.st_atim, wants(FUSE_SET_ATTR_ATIME), wants(FUSE_SET_ATTR_ATIME_NOW)),
      wanted_time(to.st_mtim, wants(FUSE_SET_ATTR_MTIME), wants(FUSE_SET_ATTR_MTIME_NOW))};
  return file.on_file([&](int fd) {
    return ::utimensat(fd, "", times.data(), AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
  });
}

// Extended attributes want an open file. This program opens it, and the home judges the sender.
template <typename Use>
int on_opened(fuse_req_t request, fuse_ino_t number, Use use) {
  Tree& tree = tree_of(request);
  const auto as_sender = [&](int fd) {
    const Asking sender(request);
    return error_of(use(fd));
  };
  if (const SharedFd file = tree.open_of(number)) {
    const int error = as_sender(file->get());
    if (error != ESTALE && error != EBADF) return error;
  }
  struct statx status{};
  if (const int error = tree.status(number, status); error != 0) return error;
  if (!S_ISREG(status.stx_mode) && !S_ISDIR(status.stx_mode)) return EOPNOTSUPP;
  const Asking self;
  Fd fd;
  const int error = tree.open(number, O_RDONLY | O_NONBLOCK, fd);
  return error != 0 ? error : as_sender(fd.get());
}

template <typename Ask>
void reply_value(fuse_req_t request, fuse_ino_t number, std::size_t room, Ask ask) {
  std::string value(std::min(room, max_value_bytes), '\0');
  ssize_t bytes = 0;
  const int error = on_opened(request, number,
                              [&](int fd) { return bytes = ask(fd, value.data(), value.size()); });
  if (error != 0) return reply_error(request, error);
  const auto told = static_cast<std::size_t>(bytes);
  if (room == 0) {
    fuse_reply_xattr(request, told);
  } else {
    fuse_reply_buf(request, value.data(), told);
  }
}

}  // namespace

void get_attributes(fuse_req_t request, fuse_ino_t number, fuse_file_info*) {
  reply_attributes(request, number);
}

void set_attributes(fuse_req_t request, fuse_ino_t number, struct stat* to, int which,
                    fuse_file_info* file) {
  Change changed(request, number, file);
  const int error = change(changed, *to, which);
  error != 0 ? reply_error(request, error) : reply_attributes(request, number);
}

void check_access(fuse_req_t request, fuse_ino_t number, int mask) {
  reply_error(request, tree_of(request).on(number, [&](int fd) {
    const Asking sender(request);
    return error_of(::faccessat(fd, "", mask, AT_EMPTY_PATH | AT_EACCESS));
  }));
}

void stat_filesystem(fuse_req_t request, fuse_ino_t number) {
  struct statvfs is{};
  const int error =
      tree_of(request).on(number, [&](int fd) { return error_of(::fstatvfs(fd, &is)); });
  if (error != 0) return reply_error(request, error);
  fuse_reply_statfs(request, &is);
}

void get_extended(fuse_req_t request, fuse_ino_t number, const char* name, std::size_t room) {
  reply_value(request, number, room, [&](int fd, char* into, std::size_t bytes) {
    return ::fgetxattr(fd, name, into, bytes);
  });
}

void list_extended(fuse_req_t request, fuse_ino_t number, std::size_t room) {
  reply_value(request, number, room,
              [&](int fd, char* into, std::size_t bytes) { return ::flistxattr(fd, into, bytes); });
}

void set_extended(fuse_req_t request, fuse_ino_t number, const char* name, const char* value,
                  std::size_t bytes, int flags) {
  reply_error(request, on_opened(request, number, [&](int fd) {
                return ::fsetxattr(fd, name, value, bytes, flags);
              }));
}

void remove_extended(fuse_req_t request, fuse_ino_t number, const char* name) {
  reply_error(request,
              on_opened(request, number, [&](int fd) { return ::fremovexattr(fd, name); }));
}

}  // namespace cob::mount
