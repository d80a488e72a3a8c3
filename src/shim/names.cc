// The calls that name a file: open(2), stat(2), the tree: unlink(2) to readlink(2). Model:
// names_ways.h. Any thread.
#include "shim/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>
#include <utime.h>

#include "glue.h"
#include "shim/names_ways.h"

namespace cob::shim {

namespace {

// By the host, whose files may be leased to other islands.
template <typename Open>
int with_leases(int directory, const char* path, int flags, Open open) {
  const int writer = hold_for_cut(directory, path, flags);
  int fd = open();
  if (fd < 0 && errno == EAGAIN && (flags & O_NONBLOCK) != 0)
    fd = open_behind_lease(directory, path, flags);
  if (writer >= 0) raw::close(writer);
  return fd;
}

bool makes_file(int flags) { return (flags & (O_CREAT | __O_TMPFILE)) != 0; }

bool status_of(Target& target, u32 flags, WireStatus& told, int& result) {
  Ask asked;
  asked.flags = flags & no_follow;
  asked.told = &told;
  asked.told_room = sizeof told;
  const long got = ask(target, asked);
  if (!target.remote) return false;
  result = got < 0                                ? fail(static_cast<int>(-got))
           : got < static_cast<long>(sizeof told) ? fail(EPROTO)
                                                  : 0;
  return true;
}

int stat_at(int directory, const char* path, struct stat* status, int flags) {
  Target target(directory, path, (flags & AT_EMPTY_PATH) != 0);
  WireStatus told{};
  int result = 0;
  if (!target.remote || !status_of(target, static_cast<u32>(flags), told, result))
    return real_fstatat(target.directory, target.path, status, flags);
  if (result == 0) fill_stat(told, status);
  return result;
}

statx_timestamp time_of(const WireTime& from) {
  statx_timestamp to{};
  to.tv_sec = from.seconds;
  to.tv_nsec = from.nanoseconds;
  return to;
}

template <typename Host>
int filesystem_of(Target& target, struct statfs* status, Host host) {
  WireFilesystem told{};
  Ask asked;
  asked.call = NameCall::filesystem;
  asked.told = &told;
  asked.told_room = sizeof told;
  const int result = on_name(target, asked, host);
  if (result < 0 || !target.remote) return result;
  memset(status, 0, sizeof *status);
  status->f_type = static_cast<decltype(status->f_type)>(told.type);
  status->f_bsize = static_cast<decltype(status->f_bsize)>(told.block_bytes);
  status->f_frsize = static_cast<decltype(status->f_frsize)>(told.fragment_bytes);
  status->f_blocks = told.blocks;
  status->f_bfree = told.blocks_free;
  status->f_bavail = told.blocks_available;
  status->f_files = told.files;
  status->f_ffree = told.files_free;
  memcpy(&status->f_fsid, &told.id, sizeof status->f_fsid);
  status->f_namelen = static_cast<decltype(status->f_namelen)>(told.name_bytes);
  status->f_flags = static_cast<decltype(status->f_flags)>(told.flags);
  return 0;
}

void to_statvfs(const struct statfs& from, struct statvfs* to) {
  memset(to, 0, sizeof *to);
  to->f_bsize = static_cast<unsigned long>(from.f_bsize);
  to->f_frsize = static_cast<unsigned long>(from.f_frsize);
  to->f_blocks = from.f_blocks;
  to->f_bfree = from.f_bfree;
  to->f_bavail = from.f_bavail;
  to->f_files = from.f_files;
  to->f_ffree = to->f_favail = from.f_ffree;
  memcpy(&to->f_fsid, &from.f_fsid, sizeof to->f_fsid);
  to->f_namemax = static_cast<unsigned long>(from.f_namelen);
  to->f_flag = static_cast<unsigned long>(from.f_flags);
}

}  // namespace

void fill_statx(const WireStatus& from, struct statx* to) {
  memset(to, 0, sizeof *to);
  to->stx_mask = from.mask;
  to->stx_blksize = from.block_bytes;
  to->stx_attributes = from.attributes;
  to->stx_attributes_mask = from.attributes_mask;
  to->stx_nlink = from.links;
  to->stx_uid = from.uid;
  to->stx_gid = from.gid;
  to->stx_mode = static_cast<u16>(from.mode);
  to->stx_ino = from.inode;
  to->stx_size = from.size;
  to->stx_blocks = from.blocks;
  to->stx_atime = time_of(from.accessed);
  to->stx_mtime = time_of(from.modified);
  to->stx_ctime = time_of(from.changed);
  to->stx_btime = time_of(from.born);
  to->stx_dev_major = static_cast<u32>(from.device >> 32);
  to->stx_dev_minor = static_cast<u32>(from.device);
  to->stx_rdev_major = static_cast<u32>(from.special_device >> 32);
  to->stx_rdev_minor = static_cast<u32>(from.special_device);
}

int open_at(int directory, const char* path, int flags, mode_t mode) {
  Target target(directory, path);
  if (target.remote) {
    const bool unnamed = (flags & (O_PATH | O_TMPFILE)) == O_TMPFILE;
    if (unnamed && (flags & O_ACCMODE) == O_RDONLY) return fail(EINVAL);  // before the path
    const int number = open_target(target, flags, makes_file(flags) ? mode : 0);
    if (target.remote) return number < 0 ? fail(-number) : number;
  }
  host_gives_number();
  return fresh(with_leases(target.directory, target.path, flags, [&] {
    return real_openat(target.directory, target.path, flags, mode);
  }));
}

int own_open(const char* path, int flags, mode_t mode) {
  if (sharing()) return open_at(AT_FDCWD, path, flags, mode);
  host_gives_number();
  return fresh(with_leases(AT_FDCWD, path, flags, [&] { return real_open(path, flags, mode); }));
}
int own_openat(int directory, const char* path, int flags, mode_t mode) {
  if (sharing()) return open_at(directory, path, flags, mode);
  host_gives_number();
  return fresh(with_leases(directory, path, flags,
                           [&] { return real_openat(directory, path, flags, mode); }));
}
int own_creat(const char* path, mode_t mode) {
  if (sharing()) return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
  host_gives_number();
  return fresh(real_creat(path, mode));
}
int own___open_2(const char* path, int flags) {
  if (sharing()) return open_at(AT_FDCWD, path, flags, 0);
  host_gives_number();
  return fresh(with_leases(AT_FDCWD, path, flags, [&] { return real___open_2(path, flags); }));
}
int own___openat_2(int directory, const char* path, int flags) {
  if (sharing()) return open_at(directory, path, flags, 0);
  host_gives_number();
  return fresh(
      with_leases(directory, path, flags, [&] { return real___openat_2(directory, path, flags); }));
}

// ---- status

int own_stat(const char* path, struct stat* status) {
  return sharing() ? stat_at(AT_FDCWD, path, status, 0) : real_stat(path, status);
}
int own_lstat(const char* path, struct stat* status) {
  return sharing() ? stat_at(AT_FDCWD, path, status, AT_SYMLINK_NOFOLLOW)
                   : real_lstat(path, status);
}
int shared_fstatat(int fd, const char* path, struct stat* status, int flags) {
  return stat_at(fd, path, status, flags);
}
int own___xstat(int version, const char* path, struct stat* status) {
  return sharing() ? stat_at(AT_FDCWD, path, status, 0) : real___xstat(version, path, status);
}
int own___lxstat(int version, const char* path, struct stat* status) {
  return sharing() ? stat_at(AT_FDCWD, path, status, AT_SYMLINK_NOFOLLOW)
                   : real___lxstat(version, path, status);
}
int own___fxstatat(int version, int fd, const char* path, struct stat* status, int flags) {
  return sharing() ? stat_at(fd, path, status, flags)
                   : real___fxstatat(version, fd, path, status, flags);
}

int shared_statx(int fd, const char* path, int flags, unsigned mask, struct statx* status) {
  Target target(fd, path, (flags & AT_EMPTY_PATH) != 0);
  WireStatus told{};
  int result = 0;
  if (!target.remote || !status_of(target, static_cast<u32>(flags), told, result))
    return real_statx(target.directory, target.path, flags, mask, status);
  if (result == 0) fill_statx(told, status);
  return result;
}

int own_access(const char* path, int mode) {
  if (!sharing()) return real_access(path, mode);
  return own_faccessat(AT_FDCWD, path, mode, 0);
}
int own_faccessat(int directory, const char* path, int mode, int flags) {
  if ((mode & ~(R_OK | W_OK | X_OK)) != 0) return fail(EINVAL);
  Target target(directory, path, (flags & AT_EMPTY_PATH) != 0);
  Ask asked;
  asked.call = NameCall::access;
  asked.mode = static_cast<u32>(mode);
  asked.flags = static_cast<u32>(flags) & no_follow;
  return on_name(target, asked,
                 [&] { return real_faccessat(target.directory, target.path, mode, flags); });
}
int own_euidaccess(const char* path, int mode) {
  if (!sharing() || !leads_to_share(AT_FDCWD, path)) return real_euidaccess(path, mode);
  return own_faccessat(AT_FDCWD, path, mode, AT_EACCESS);
}

int own_statfs(const char* path, struct statfs* status) {
  Target target(AT_FDCWD, path);
  return filesystem_of(target, status, [&] { return real_statfs(target.path, status); });
}
int own_statvfs(const char* path, struct statvfs* status) {
  Target target(AT_FDCWD, path);
  struct statfs plain{};
  const int result =
      filesystem_of(target, &plain, [&] { return real_statvfs(target.path, status); });
  if (result == 0 && target.remote) to_statvfs(plain, status);
  return result;
}
int cob_fstatfs(int fd, struct statfs* status) {
  if (lookup_file(fd) == nullptr) return real_fstatfs(fd, status);
  Target target(fd);
  return filesystem_of(target, status, [] { return fail(EBADF); });
}
int cob_fstatvfs(int fd, struct statvfs* status) {
  if (lookup_file(fd) == nullptr) return real_fstatvfs(fd, status);
  struct statfs plain{};
  const int result = cob_fstatfs(fd, &plain);
  if (result == 0) to_statvfs(plain, status);
  return result;
}

// ---- the tree

int own_unlink(const char* path) {
  return sharing() ? own_unlinkat(AT_FDCWD, path, 0) : real_unlink(path);
}
int own_rmdir(const char* path) {
  return sharing() ? own_unlinkat(AT_FDCWD, path, AT_REMOVEDIR) : real_rmdir(path);
}
int own_unlinkat(int directory, const char* path, int flags) {
  Target target(directory, path);
  Ask asked;
  asked.call = (flags & AT_REMOVEDIR) != 0 ? NameCall::remove_directory : NameCall::unlink;
  return on_name(target, asked,
                 [&] { return real_unlinkat(target.directory, target.path, flags); });
}
int own_remove(const char* path) {
  if (!sharing() || !leads_to_share(AT_FDCWD, path)) return real_remove(path);
  const int result = own_unlink(path);
  return result < 0 && errno == EISDIR ? own_rmdir(path) : result;
}
int own_mkdir(const char* path, mode_t mode) {
  return sharing() ? own_mkdirat(AT_FDCWD, path, mode) : real_mkdir(path, mode);
}
int own_mkdirat(int directory, const char* path, mode_t mode) {
  Target target(directory, path);
  Ask asked;
  asked.call = NameCall::make_directory;
  asked.mode = mode & 07777;
  return on_name(target, asked, [&] { return real_mkdirat(target.directory, target.path, mode); });
}
int own_mknod(const char* path, mode_t mode, dev_t device) {
  return sharing() ? own_mknodat(AT_FDCWD, path, mode, device) : real_mknod(path, mode, device);
}
int own_mknodat(int directory, const char* path, mode_t mode, dev_t device) {
  Target target(directory, path);
  Ask asked;
  asked.call = NameCall::make_node;
  asked.mode = mode;
  asked.number = u64{major(device)} << 32 | minor(device);
  return on_name(target, asked,
                 [&] { return real_mknodat(target.directory, target.path, mode, device); });
}
int own_mkfifo(const char* path, mode_t mode) {
  return sharing() ? own_mknodat(AT_FDCWD, path, S_IFIFO | (mode & 07777), 0)
                   : real_mkfifo(path, mode);
}
int own_mkfifoat(int directory, const char* path, mode_t mode) {
  return sharing() ? own_mknodat(directory, path, S_IFIFO | (mode & 07777), 0)
                   : real_mkfifoat(directory, path, mode);
}
int own_rename(const char* from, const char* to) {
  return sharing() ? own_renameat2(AT_FDCWD, from, AT_FDCWD, to, 0) : real_rename(from, to);
}
int own_renameat(int from_directory, const char* from, int to_directory, const char* to) {
  return sharing() ? own_renameat2(from_directory, from, to_directory, to, 0)
                   : real_renameat(from_directory, from, to_directory, to);
}
int own_renameat2(int from_directory, const char* from, int to_directory, const char* to,
                  unsigned flags) {
  constexpr unsigned known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
  const bool exchange = (flags & RENAME_EXCHANGE) != 0;
  if ((flags & ~known) != 0 || (exchange && (flags & known) != RENAME_EXCHANGE))
    return fail(EINVAL);  // before anything is looked for
  Target first(from_directory, from);
  Target second(to_directory, to);
  Ask asked;
  asked.call = NameCall::rename;
  asked.flags = flags;
  return on_two(first, second, asked, [&] {
    return real_renameat2(first.directory, first.path, second.directory, second.path, flags);
  });
}
int own_link(const char* from, const char* to) {
  return sharing() ? own_linkat(AT_FDCWD, from, AT_FDCWD, to, 0) : real_link(from, to);
}
int own_linkat(int from_directory, const char* from, int to_directory, const char* to, int flags) {
  Target first(from_directory, from, (flags & AT_EMPTY_PATH) != 0);
  Target second(to_directory, to);
  Ask asked;
  asked.call = NameCall::link;
  asked.flags = static_cast<u32>(flags) & AT_SYMLINK_FOLLOW;
  return on_two(first, second, asked, [&] {
    return real_linkat(first.directory, first.path, second.directory, second.path, flags);
  });
}
int own_symlink(const char* text, const char* path) {
  return sharing() ? own_symlinkat(text, AT_FDCWD, path) : real_symlink(text, path);
}
int own_symlinkat(const char* text, int directory, const char* path) {
  Target target(directory, path);
  if (target.remote && text == nullptr) return fail(EFAULT);
  if (target.remote && text[0] == 0) return fail(ENOENT);
  Ask asked;
  asked.call = NameCall::symlink;
  asked.value = text;
  asked.value_bytes = text == nullptr ? 0 : static_cast<u32>(strlen(text));
  return on_name(target, asked,
                 [&] { return real_symlinkat(text, target.directory, target.path); });
}
ssize_t own_readlink(const char* path, char* buffer, size_t room) {
  return sharing() ? own_readlinkat(AT_FDCWD, path, buffer, room)
                   : real_readlink(path, buffer, room);
}
ssize_t own_readlinkat(int directory, const char* path, char* buffer, size_t room) {
  Target target(directory, path, directory != AT_FDCWD);
  if (target.remote) {
    if (room == 0) return fail(EINVAL);
    Ask asked;
    asked.call = NameCall::read_link;
    asked.told = buffer;
    asked.told_room = static_cast<u32>(room < 65'536 ? room : 65'536);
    const long result = ask(target, asked);
    if (target.remote) return libc_result(result);
  }
  return real_readlinkat(target.directory, target.path, buffer, room);
}

mode_t own_umask(mode_t mask) {
  note_umask(mask);
  return real_umask(mask);
}

}  // namespace cob::shim
