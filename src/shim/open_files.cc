// What is done with an open file beside its bytes: ftruncate(2), fsync(2), fallocate(2), flock(2),
// copy_file_range(2). Model: of another island a call to the kernel (file.h), else the host's. Any
// thread.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include <utime.h>

#include "glue.h"
#include "shim/locks.h"
#include "shim/names.h"
#include "shim/names_ways.h"

namespace cob::shim {

namespace {

// copy_file_range(2), ERRORS: in the order in which Linux looks. 0: it may be done. Of a file to
// itself what is there at the beginning is copied, not what comes by copying: `bytes`.
int copy_refused(int in, const off64_t* in_offset, int out, const off64_t* out_offset,
                 size_t& bytes) {
  const int in_flags = cob_fcntl(in, F_GETFL, nullptr);
  const int out_flags = cob_fcntl(out, F_GETFL, nullptr);
  if (in_flags < 0 || out_flags < 0 || ((in_flags | out_flags) & O_PATH) != 0) return EBADF;
  struct stat from{}, to{};
  if (cob_fstat(in, &from) < 0 || cob_fstat(out, &to) < 0) return errno;
  if (S_ISDIR(from.st_mode) || S_ISDIR(to.st_mode)) return EISDIR;
  if (!S_ISREG(from.st_mode) || !S_ISREG(to.st_mode)) return EINVAL;
  if ((in_flags & O_ACCMODE) == O_WRONLY || (out_flags & O_ACCMODE) == O_RDONLY) return EBADF;
  if ((out_flags & O_APPEND) != 0) return EBADF;
  if (from.st_dev != to.st_dev || from.st_ino != to.st_ino) return 0;
  const off_t begin = in_offset != nullptr ? *in_offset : cob_lseek(in, 0, SEEK_CUR);
  const off_t end = out_offset != nullptr ? *out_offset : cob_lseek(out, 0, SEEK_CUR);
  const off_t there = from.st_size - begin, asked = static_cast<off_t>(bytes);
  const off_t count = there < asked ? there : asked;
  if (count > 0 && end + count > begin && end < begin + count) return EINVAL;
  bytes = count > 0 ? static_cast<size_t>(count) : 0;
  return 0;
}

}  // namespace

int cob_ftruncate(int fd, off_t bytes) {
  const Socket* file = lookup_file(fd);
  if (file == nullptr) return real_ftruncate(fd, bytes);
  if (is_path(fd)) return fail(EBADF);
  if (bytes < 0 || (file->status_flags & O_ACCMODE) == O_RDONLY) return fail(EINVAL);
  Target target(fd);
  Ask asked;
  asked.call = NameCall::truncate;
  asked.number = static_cast<u64>(bytes);
  return on_name(target, asked, lost);
}
int cob_fsync(int fd) {
  if (lookup_file(fd) == nullptr) return real_fsync(fd);
  return file_control(fd, static_cast<u32>(call::FileControl::sync), 0, 0);
}
int cob_fdatasync(int fd) {
  if (lookup_file(fd) == nullptr) return real_fdatasync(fd);
  return file_control(fd, static_cast<u32>(call::FileControl::data_sync), 0, 0);
}
int cob_syncfs(int fd) { return lookup_file(fd) == nullptr ? real_syncfs(fd) : cob_fsync(fd); }
int cob_fallocate(int fd, int mode, off_t offset, off_t bytes) {
  if (lookup_file(fd) == nullptr) return real_fallocate(fd, mode, offset, bytes);
  if (is_path(fd)) return fail(EBADF);
  if (offset < 0 || bytes <= 0) return fail(EINVAL);
  return file_control(fd, static_cast<u32>(call::FileControl::allocate), static_cast<u64>(offset),
                      static_cast<u64>(bytes), static_cast<u16>(mode));
}
int cob_posix_fallocate(int fd, off_t offset, off_t bytes) {
  if (lookup_file(fd) == nullptr) return real_posix_fallocate(fd, offset, bytes);
  const int saved = errno;
  const int result = cob_fallocate(fd, 0, offset, bytes) < 0 ? errno : 0;
  errno = saved;
  return result;
}
int cob_posix_fadvise(int fd, off_t offset, off_t bytes, int advice) {
  return lookup_file(fd) == nullptr ? real_posix_fadvise(fd, offset, bytes, advice) : 0;
}
ssize_t cob_readahead(int fd, off64_t offset, size_t bytes) {
  return lookup_file(fd) == nullptr ? real_readahead(fd, offset, bytes) : 0;
}
int cob_flock(int fd, int operation) {
  return lookup_file(fd) == nullptr ? real_flock(fd, operation) : file_flock(fd, operation);
}
int cob_lockf(int fd, int command, off_t bytes) {
  return lookup_file(fd) == nullptr ? real_lockf(fd, command, bytes)
                                    : file_lockf(fd, command, bytes);
}
ssize_t cob_copy_file_range(int in, off64_t* in_offset, int out, off64_t* out_offset, size_t bytes,
                            unsigned flags) {
  if (lookup_file(in) == nullptr && lookup_file(out) == nullptr)
    return real_copy_file_range(in, in_offset, out, out_offset, bytes, flags);
  if (flags != 0) return fail(EINVAL);
  const int error = copy_refused(in, in_offset, out, out_offset, bytes);
  return error != 0 ? fail(error) : copy_file(out, out_offset, in, in_offset, bytes);
}
ssize_t cob_getdents64(int fd, void* data, size_t room) {
  return lookup_file(fd) == nullptr ? real_getdents64(fd, data, room)
                                    : file_entries(fd, data, room);
}

}  // namespace cob::shim
