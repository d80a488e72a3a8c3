// From the host's structs to ours.
#include "fs/status.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>

namespace cob::fs {
namespace {

TimeField time_of(const statx_timestamp& t) {
  return {.seconds = i64{t.tv_sec}, .nanoseconds = u32{t.tv_nsec}, .reserved = 0U};
}

u64 device_of(u32 major, u32 minor) { return u64{major} << 32 | minor; }

// statfs(2); those that <linux/magic.h> lacks.
constexpr u64 ramfs = 0x858458f6, cifs = 0xff534d42, smb2 = 0xfe534d42, ceph = 0x00c36400,
              lustre = 0x0bd00bd0, gpfs = 0x47504653;
constexpr std::array<u64, 10> remote{NFS_SUPER_MAGIC,
                                     FUSE_SUPER_MAGIC,
                                     V9FS_MAGIC,
                                     AFS_SUPER_MAGIC,
                                     CODA_SUPER_MAGIC,
                                     cifs,
                                     smb2,
                                     ceph,
                                     lustre,
                                     gpfs};

// With offsets of regular files as POSIX has them.
constexpr u64 xfs = 0x58465342, overlay = 0x794c7630;
constexpr std::array<u64, 7> plain{
    EXT4_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC, ramfs, xfs, overlay};

u64 type_of(FdRef fd) {
  struct statfs filesystem{};
  if (::fstatfs(fd.get(), &filesystem) != 0) return NFS_SUPER_MAGIC;  // the most cautious
  return static_cast<u32>(filesystem.f_type);
}

}  // namespace

Result<Status> status_of(FdRef fd, const char* name) {
  struct statx s{};
  constexpr u32 wanted = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID | STATX_DIOALIGN;
  const int how = *name == '\0' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
  if (::statx(fd.get(), name, how, wanted, &s) != 0) return Error::from_errno("statx");
  return Status{.device = device_of(s.stx_dev_major, s.stx_dev_minor),
                .inode = u64{s.stx_ino},
                .size = u64{s.stx_size},
                .blocks = u64{s.stx_blocks},
                .special_device = device_of(s.stx_rdev_major, s.stx_rdev_minor),
                .attributes = u64{s.stx_attributes},
                .attributes_mask = u64{s.stx_attributes_mask},
                .mount = u64{s.stx_mnt_id},
                .mask = u32{s.stx_mask},
                .mode = u32{s.stx_mode},
                .links = u32{s.stx_nlink},
                .uid = u32{s.stx_uid},
                .gid = u32{s.stx_gid},
                .block_bytes = u32{s.stx_blksize},
                .direct_memory_align = u32{s.stx_dio_mem_align},
                .direct_offset_align = u32{s.stx_dio_offset_align},
                .accessed = time_of(s.stx_atime),
                .modified = time_of(s.stx_mtime),
                .changed = time_of(s.stx_ctime),
                .born = time_of(s.stx_btime)};
}

Result<FilesystemStatus> filesystem_of(FdRef fd) {
  struct statfs f{};
  if (::fstatfs(fd.get(), &f) != 0) return Error::from_errno("fstatfs");
  u64 id = 0;
  static_assert(sizeof(f.f_fsid) == sizeof(id));
  std::memcpy(&id, &f.f_fsid, sizeof(id));
  const auto number = [](auto value) { return static_cast<u64>(value); };
  return FilesystemStatus{.type = u64{static_cast<u32>(f.f_type)},
                          .block_bytes = number(f.f_bsize),
                          .fragment_bytes = number(f.f_frsize),
                          .blocks = number(f.f_blocks),
                          .blocks_free = number(f.f_bfree),
                          .blocks_available = number(f.f_bavail),
                          .files = number(f.f_files),
                          .files_free = number(f.f_ffree),
                          .id = id,
                          .name_bytes = number(f.f_namelen),
                          .flags = number(f.f_flags)};
}

Waits waits_of(FdRef fd) {
  const u64 type = type_of(fd);
  return {.for_storage = type != TMPFS_MAGIC && type != ramfs,
          .for_status = std::find(remote.begin(), remote.end(), type) != remote.end(),
          .from_the_start = std::find(plain.begin(), plain.end(), type) != plain.end()};
}

}  // namespace cob::fs
