// What is done with open files. Model: an open of the host's is a description of ours, and every
// read and write of it is one of that description: the home's leases, its rule for appends and its
// offset rules hold by themselves. The host caches no page (decision 0007). fuse_lowlevel.h.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "mount/server.h"

namespace cob::mount {

namespace {

// What of the flags is the description's business: the rest has been done by the host, or is not
// done here (O_DIRECT).
constexpr int kept_flags = O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC | O_NOATIME;
constexpr int for_execution = 040;  // the kernel's __FMODE_EXEC

void reply_with(fuse_req_t request, fuse_ino_t number, std::unique_ptr<Handle> handle,
                fuse_file_info* file, const fuse_entry_param* made) {
  Server& server = server_of(request);
  const SharedFd there = handle->file;
  server.tree.opened(number, there);
  Handle* const kept = handle.release();  // `release` deletes it
  file->fh = reinterpret_cast<u64>(kept);
  file->direct_io = 1;
  file->keep_cache = 0;
  const int failed =
      made != nullptr ? fuse_reply_create(request, made, file) : fuse_reply_open(request, file);
  if (failed == 0) return;
  delete kept;
  server.tree.closed(number, there);
  if (made != nullptr) server.tree.forget(number, 1);
}

std::unique_ptr<Handle> make_handle(fuse_ino_t number, Fd fd, int flags) {
  return std::make_unique<Handle>(number, std::make_shared<const Fd>(std::move(fd)),
                                  flags & O_ACCMODE, (flags & O_APPEND) != 0);
}

// A home does not change O_APPEND of what is open (EOPNOTSUPP); fcntl(2) on the host does. Then it
// is written by one more description of the same file, opened as the sender.
int to_write_by(fuse_req_t request, Handle& handle, bool appends, SharedFd& into) {
  into = handle.file;
  if (handle.appends == appends) return 0;
  const std::scoped_lock lock(handle.lock);
  if (handle.otherwise == nullptr) {
    const Asking sender(request);
    Fd fd;
    const int flags = handle.access | (appends ? O_APPEND : 0);
    const int error = tree_of(request).open(handle.number, flags, fd);
    if (error != 0) return error == not_it ? EOPNOTSUPP : error;  // it has no name any more
    handle.otherwise = std::make_shared<const Fd>(std::move(fd));
  }
  into = handle.otherwise;
  return 0;
}

}  // namespace

void open(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  Tree& tree = tree_of(request);
  Fd fd;
  const int error = [&] {
    const Asking sender(request);
    if ((file->flags & for_execution) != 0) {
      const int refused = tree.on(number, [](int there) {
        return error_of(::faccessat(there, "", X_OK, AT_EMPTY_PATH | AT_EACCESS));
      });
      if (refused != 0) return refused;
    }
    return tree.open(number, file->flags & kept_flags, fd);
  }();
  if (error != 0) return reply_error(request, error);
  reply_with(request, number, make_handle(number, std::move(fd), file->flags), file, nullptr);
}

void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* file) {
  Tree& tree = tree_of(request);
  const int flags =
      (file->flags & (kept_flags | O_EXCL | O_TRUNC)) | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
  Fd fd;
  struct statx status{};
  const int error = tree.at(parent, [&](int directory) {
    const Asking sender(request);
    fd = Fd(::openat(directory, name, flags, mode));
    if (!fd.valid()) return errno;
    opened_status(status);
    return 0;
  });
  if (error != 0) return reply_error(request, error);
  const fuse_entry_param entry = entry_of(tree, parent, name, status);
  reply_with(request, entry.ino, make_handle(entry.ino, std::move(fd), file->flags), file, &entry);
}

void read(fuse_req_t request, fuse_ino_t, std::size_t bytes, off_t at, fuse_file_info* file) {
  thread_local std::vector<char> buffer;
  if (buffer.size() < bytes) buffer.resize(bytes);
  const ssize_t got = ::pread(handle_of(file).file->get(), buffer.data(), bytes, at);
  if (got < 0) return reply_error(request, errno);
  fuse_reply_buf(request, buffer.data(), static_cast<std::size_t>(got));
}

void write(fuse_req_t request, fuse_ino_t, const char* from, std::size_t bytes, off_t at,
           fuse_file_info* file) {
  const bool appends = (file->flags & O_APPEND) != 0;
  SharedFd there;
  const int error = to_write_by(request, handle_of(file), appends, there);
  if (error != 0) return reply_error(request, error);
  const ssize_t did =
      appends ? ::write(there->get(), from, bytes) : ::pwrite(there->get(), from, bytes, at);
  if (did < 0) return reply_error(request, errno);
  fuse_reply_write(request, static_cast<std::size_t>(did));
}

// A number of the file was closed somewhere: its program's record locks go.
void flush(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  server_of(request).locks.leave(number, file->lock_owner);
  reply_error(request, 0);
}

void release(fuse_req_t request, fuse_ino_t number, fuse_file_info* file) {
  std::unique_ptr<Handle> handle(&handle_of(file));
  Server& server = server_of(request);
  server.locks.closed(*handle);
  server.tree.closed(number, handle->file);
  handle = nullptr;
  reply_error(request, 0);
}

void sync(fuse_req_t request, fuse_ino_t, int data_only, fuse_file_info* file) {
  const int fd = handle_of(file).file->get();
  reply_error(request, error_of(data_only != 0 ? ::fdatasync(fd) : ::fsync(fd)));
}

void allocate(fuse_req_t request, fuse_ino_t, int mode, off_t at, off_t bytes,
              fuse_file_info* file) {
  reply_error(request, error_of(::fallocate(handle_of(file).file->get(), mode, at, bytes)));
}

void seek(fuse_req_t request, fuse_ino_t, off_t at, int whence, fuse_file_info* file) {
  const off_t found = ::lseek(handle_of(file).file->get(), at, whence);
  if (found < 0) return reply_error(request, errno);
  fuse_reply_lseek(request, found);
}

void copy_range(fuse_req_t request, fuse_ino_t, off_t from_at, fuse_file_info* from_file,
                fuse_ino_t, off_t to_at, fuse_file_info* to_file, std::size_t bytes, int flags) {
  off64_t from = from_at, to = to_at;
  const ssize_t did =
      ::copy_file_range(handle_of(from_file).file->get(), &from, handle_of(to_file).file->get(),
                        &to, bytes, static_cast<unsigned>(flags));
  if (did < 0) return reply_error(request, errno);
  fuse_reply_write(request, static_cast<std::size_t>(did));
}

}  // namespace cob::mount
