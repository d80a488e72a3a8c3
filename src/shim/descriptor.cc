// Descriptor functions that need more than "is it cob's?": stat by an empty path, terminals put on
// 0-2. stat(2), statx(2), login_tty(3), forkpty(3). Model: what libc changes by itself is told to
// the table afterwards. Any thread.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "glue.h"
#include "shim/names.h"

namespace cob::shim {

namespace {

bool means_itself(int fd, const char* path, int flags) {
  return is_cob(fd) && (flags & AT_EMPTY_PATH) != 0 && (path == nullptr || path[0] == 0);
}

bool names_hidden(int fd, const char* path) {
  return is_hidden(fd) && (path == nullptr || path[0] != '/');
}

// 0, 1 and 2 were dup2'd over by libc.
void standard_numbers_replaced() {
  for (int fd = 0; fd <= 2; ++fd) fresh(fd);
}

}  // namespace

int own_fstatat(int fd, const char* path, struct stat* status, int flags) {
  if (names_hidden(fd, path)) return hidden_number();
  if (means_itself(fd, path, flags)) return cob_fstat(fd, status);
  if (load(remote_shares) != 0) return shared_fstatat(fd, path, status, flags);
  return real_fstatat(fd, path, status, flags);
}

int own___fxstat(int version, int fd, struct stat* status) {
  if (is_cob(fd)) return cob_fstat(fd, status);
  if (is_hidden(fd)) return hidden_number();
  return real___fxstat(version, fd, status);
}

int own_statx(int fd, const char* path, int flags, unsigned mask, struct statx* status) {
  if (names_hidden(fd, path)) return hidden_number();
  if (load(remote_shares) != 0 && lookup_socket(fd) == nullptr)
    return shared_statx(fd, path, flags, mask, status);
  if (!means_itself(fd, path, flags)) return real_statx(fd, path, flags, mask, status);
  struct stat plain{};
  if (cob_fstat(fd, &plain) < 0) return -1;
  memset(status, 0, sizeof *status);
  status->stx_mask = STATX_BASIC_STATS;
  status->stx_blksize = static_cast<u32>(plain.st_blksize);
  status->stx_nlink = static_cast<u32>(plain.st_nlink);
  status->stx_uid = plain.st_uid;
  status->stx_gid = plain.st_gid;
  status->stx_mode = static_cast<u16>(plain.st_mode);
  status->stx_ino = plain.st_ino;
  status->stx_dev_major = major(plain.st_dev);
  status->stx_dev_minor = minor(plain.st_dev);
  return 0;
}

int own_login_tty(int fd) {
  const int result = real_login_tty(fd);
  if (attached()) standard_numbers_replaced();
  return result;
}

int own_forkpty(int* leader, char* name, const termios* mode, const winsize* size) {
  host_gives_number();
  const int pid = real_forkpty(leader, name, mode, size);
  if (attached() && pid == 0) standard_numbers_replaced();
  if (attached() && pid > 0) fresh(*leader);
  return pid;
}

}  // namespace cob::shim
