// What is changed of what a path leads to: chmod(2), chown(2), utimensat(2), truncate(2). Model:
// names_ways.h. Any thread.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include <utime.h>

#include "glue.h"
#include "shim/names.h"
#include "shim/names_ways.h"

namespace cob::shim {

namespace {

int set_times(Target& target, const timespec* times, int flags,
              int (*host)(Target&, const timespec*, int)) {
  WireTime wire[2]{};
  for (int i = 0; i < 2; ++i) {
    wire[i].seconds = times == nullptr ? 0 : times[i].tv_sec;
    wire[i].nanoseconds = static_cast<u32>(times == nullptr ? UTIME_NOW : times[i].tv_nsec);
  }
  Ask asked;
  asked.call = NameCall::set_times;
  asked.flags = static_cast<u32>(flags) & no_follow;
  asked.value = wire;
  asked.value_bytes = sizeof wire;
  return on_name(target, asked, [&] { return host(target, times, flags); });
}

int host_times(Target& target, const timespec* times, int flags) {
  return real_utimensat(target.directory, target.path, times, flags);
}

int times_by_micro(int directory, const char* path, const timeval* times, int flags) {
  Target target(directory, path);
  timespec fine[2];
  if (times != nullptr) {
    for (int i = 0; i < 2; ++i) fine[i] = {times[i].tv_sec, times[i].tv_usec * 1'000};
  }
  return set_times(target, times == nullptr ? nullptr : fine, flags, host_times);
}

template <typename Host>
int change_mode(Target& target, mode_t mode, int flags, Host host) {
  Ask asked;
  asked.call = NameCall::change_mode;
  asked.mode = mode & 07777;
  asked.flags = static_cast<u32>(flags) & no_follow;
  return on_name(target, asked, host);
}
template <typename Host>
int change_owner(Target& target, uid_t user, gid_t group, int flags, Host host) {
  Ask asked;
  asked.call = NameCall::change_owner;
  asked.uid = user;
  asked.gid = group;
  asked.flags = static_cast<u32>(flags) & no_follow;
  return on_name(target, asked, host);
}
}  // namespace

int own_chmod(const char* path, mode_t mode) {
  return sharing() ? own_fchmodat(AT_FDCWD, path, mode, 0) : real_chmod(path, mode);
}
int own_fchmodat(int directory, const char* path, mode_t mode, int flags) {
  Target target(directory, path, (flags & AT_EMPTY_PATH) != 0);  // as fchmodat2(2) has it
  return change_mode(target, mode, flags,
                     [&] { return real_fchmodat(target.directory, target.path, mode, flags); });
}
int cob_fchmod(int fd, mode_t mode) {
  if (lookup_file(fd) == nullptr) return real_fchmod(fd, mode);
  if (is_path(fd)) return fail(EBADF);
  Target target(fd);
  return change_mode(target, mode, 0, lost);
}
int own_chown(const char* path, uid_t user, gid_t group) {
  return sharing() ? own_fchownat(AT_FDCWD, path, user, group, 0) : real_chown(path, user, group);
}
int own_lchown(const char* path, uid_t user, gid_t group) {
  return sharing() ? own_fchownat(AT_FDCWD, path, user, group, AT_SYMLINK_NOFOLLOW)
                   : real_lchown(path, user, group);
}
int own_fchownat(int directory, const char* path, uid_t user, gid_t group, int flags) {
  Target target(directory, path, (flags & AT_EMPTY_PATH) != 0);
  return change_owner(target, user, group, flags, [&] {
    return real_fchownat(target.directory, target.path, user, group, flags);
  });
}
int cob_fchown(int fd, uid_t user, gid_t group) {
  if (lookup_file(fd) == nullptr) return real_fchown(fd, user, group);
  if (is_path(fd)) return fail(EBADF);
  Target target(fd);
  return change_owner(target, user, group, 0, lost);
}
int own_utimensat(int directory, const char* path, const timespec* times, int flags) {
  Target target(directory, path, (flags & AT_EMPTY_PATH) != 0 || path == nullptr);
  return set_times(target, times, flags, host_times);
}
int cob_futimens(int fd, const timespec* times) {
  if (lookup_file(fd) == nullptr) return real_futimens(fd, times);
  if (is_path(fd)) return fail(EBADF);
  Target target(fd);
  return set_times(target, times, 0, [](Target&, const timespec*, int) { return fail(EBADF); });
}
int cob_futimes(int fd, const timeval* times) {
  if (lookup_file(fd) == nullptr) return real_futimes(fd, times);
  timespec fine[2];
  for (int i = 0; times != nullptr && i < 2; ++i)
    fine[i] = {times[i].tv_sec, times[i].tv_usec * 1'000};
  return cob_futimens(fd, times == nullptr ? nullptr : fine);
}
int own_utimes(const char* path, const timeval* times) {
  return sharing() ? times_by_micro(AT_FDCWD, path, times, 0) : real_utimes(path, times);
}
int own_lutimes(const char* path, const timeval* times) {
  return sharing() ? times_by_micro(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW)
                   : real_lutimes(path, times);
}
int own_futimesat(int directory, const char* path, const timeval* times) {
  return sharing() ? times_by_micro(directory, path, times, 0)
                   : real_futimesat(directory, path, times);
}
int own_utime(const char* path, const utimbuf* times) {
  if (!sharing()) return real_utime(path, times);
  timeval both[2];
  if (times != nullptr) {
    both[0] = {times->actime, 0};
    both[1] = {times->modtime, 0};
  }
  return times_by_micro(AT_FDCWD, path, times == nullptr ? nullptr : both, 0);
}
int own_truncate(const char* path, off_t bytes) {
  Target target(AT_FDCWD, path);
  if (target.remote && bytes < 0) return fail(EINVAL);
  Ask asked;
  asked.call = NameCall::truncate;
  asked.number = static_cast<u64>(bytes);
  return on_name(target, asked, [&] { return real_truncate(target.path, bytes); });
}

}  // namespace cob::shim
