// Status: what statx(2) tells of a file; the same bytes on every ISA. Modes, attributes and mask
// bits are Linux's numbers, which are the same on all of them.
#pragma once

#include "base/fd.h"
#include "base/result.h"
#include "message/flat.h"

struct statx;

namespace cob::fs {

struct TimeField {
  message::le<i64> seconds;
  message::le<u32> nanoseconds;
  message::le<u32> reserved;
};

struct Status {
  message::le<u64> device;  // the storing island's: major in the upper half, minor in the lower
  message::le<u64> inode;
  message::le<u64> size;
  message::le<u64> blocks;  // of 512 bytes
  message::le<u64> special_device;
  message::le<u64> attributes;
  message::le<u64> attributes_mask;
  message::le<u64> mount;
  message::le<u32> mask;  // STATX_*: what is known of the above and below
  message::le<u32> mode;
  message::le<u32> links;
  message::le<u32> uid;
  message::le<u32> gid;
  message::le<u32> block_bytes;
  message::le<u32> direct_memory_align;  // of O_DIRECT; 0: not known
  message::le<u32> direct_offset_align;
  TimeField accessed;
  TimeField modified;
  TimeField changed;
  TimeField born;
};
static_assert(message::FlatStruct<Status> && sizeof(Status) == 160);

// Of statfs(2).
struct FilesystemStatus {
  message::le<u64> type;
  message::le<u64> block_bytes;
  message::le<u64> fragment_bytes;
  message::le<u64> blocks;
  message::le<u64> blocks_free;
  message::le<u64> blocks_available;
  message::le<u64> files;
  message::le<u64> files_free;
  message::le<u64> id;
  message::le<u64> name_bytes;
  message::le<u64> flags;
};
static_assert(message::FlatStruct<FilesystemStatus>);

// statx(2) of what `fd` is, O_PATH or not; may wait where the filesystem asks another machine. With
// a `name` of what has that name in the directory `fd`, a symbolic link itself; may wait for
// storage.
Result<Status> status_of(FdRef fd, const char* name = "");
Result<FilesystemStatus> filesystem_of(FdRef fd);

// What a filesystem makes callers wait for.
struct Waits {
  bool for_storage = true;  // reads and writes; false: memory only (tmpfs, ramfs)
  bool for_status = false;  // fstat too: asks another machine or program (NFS, FUSE, ...)
  // Not a wait: a regular file that was just opened has an offset, which is 0 (ext4, tmpfs, ...;
  // not what looks like a regular file on proc).
  bool from_the_start = false;
};
Waits waits_of(FdRef fd);

}  // namespace cob::fs
