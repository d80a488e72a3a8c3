/* What file_calls does for its conductor (files_oracle_test.py): one step at a time, over a pair of
 * FIFOs. The conductor reads the names of the calls from this file. */
#pragma once
#include <stdint.h>

enum file_call {
  call_open,     /* name, flags, bytes: mode -> slot; other: a directory's slot, or -1 */
  call_close,    /* slot */
  call_dup,      /* other -> slot */
  call_dup2,     /* other, to the number in slot */
  call_read,     /* bytes */
  call_pread,    /* bytes, offset */
  call_readv,    /* bytes, in three pieces */
  call_write,    /* bytes */
  call_pwrite,   /* bytes, offset */
  call_writev,   /* bytes, in three pieces */
  call_seek,     /* offset, flags: whence */
  call_truncate, /* name, offset */
  call_ftruncate,
  call_fallocate, /* flags: mode, offset, bytes */
  call_fsync,     /* flags: 1: fdatasync */
  call_fstat,
  call_stat,    /* name; flags: 1: lstat */
  call_access,  /* name, flags */
  call_link,    /* name, name2 */
  call_symlink, /* a target (name), name2 */
  call_readlink,
  call_rename, /* name, name2, flags of renameat2 */
  call_unlink, /* name */
  call_mkdir,
  call_rmdir,
  call_chmod, /* name, flags: mode */
  call_fchmod,
  call_utimens,   /* name, offset: seconds */
  call_set_xattr, /* name, bytes */
  call_get_xattr,
  call_list,   /* name: a directory's entries */
  call_chdir,  /* name */
  call_fchdir, /* slot */
  call_getcwd,
  call_umask,     /* flags */
  call_get_flags, /* F_GETFL, F_GETFD */
  call_set_flags, /* F_SETFL: flags */
  call_flock,     /* flags */
  call_lock, /* flags: 0 to 5: F_RDLCK, F_WRLCK, F_UNLCK as POSIX, then as OFD; offset, bytes */
  call_test_lock,  /* the same */
  call_map,        /* bytes, offset: private, its sum */
  call_copy_range, /* slot to other, bytes */
  call_sendfile,   /* slot to other, bytes */
  call_poll,
  call_epoll_add,
  call_pipe,         /* slot, other */
  call_stream_write, /* name: fopen "a", text of `bytes`, fclose */
  call_stream_read,  /* name: lines, counted */
  call_fork,         /* a child serves the pair `other` */
  call_exec,
  call_exit,
  file_calls,
};
enum { file_slots = 8, file_names = 28, pair_names = 24 };

struct file_step {
  int32_t call, slot, other, name, name2, flags, bytes, reserved;
  int64_t offset;
};
struct file_result {
  int64_t result, more;
  int32_t error; /* of a failed call */
  uint32_t sum;  /* of the bytes that came */
};
