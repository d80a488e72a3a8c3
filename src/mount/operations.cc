// The table of operations, and what this server wants of the host's kernel.
#include "mount/server.h"

namespace cob::mount {

namespace {

void begin(void*, fuse_conn_info* connection) {
  // A new file's mode goes on as it was asked for: its home knows the umask, and default ACLs.
  connection->want |= connection->capable & FUSE_CAP_DONT_MASK;
  // Set-id bits go where the write is done, which is as the writer.
  connection->want |= connection->capable & FUSE_CAP_HANDLE_KILLPRIV;
  // Truncated is what was opened, not what has its name by then.
  connection->want &= ~static_cast<unsigned>(FUSE_CAP_ATOMIC_O_TRUNC);
}

}  // namespace

// Without readdirplus: what it told would be forgotten at once.
const fuse_lowlevel_ops& operations() {
  static const fuse_lowlevel_ops all = [] {
    fuse_lowlevel_ops of{};
    of.init = begin;
    of.lookup = look_up;
    of.forget = forget;
    of.forget_multi = forget_many;
    of.mknod = make_node;
    of.mkdir = make_directory;
    of.symlink = make_symlink;
    of.unlink = unlink;
    of.rmdir = remove_directory;
    of.rename = rename;
    of.link = link;
    of.readlink = read_link;
    of.getattr = get_attributes;
    of.setattr = set_attributes;
    of.access = check_access;
    of.statfs = stat_filesystem;
    of.getxattr = get_extended;
    of.listxattr = list_extended;
    of.setxattr = set_extended;
    of.removexattr = remove_extended;
    of.open = open;
    of.create = create;
    of.read = read;
    of.write = write;
    of.flush = flush;
    of.release = release;
    of.fsync = sync;
    of.fallocate = allocate;
    of.lseek = seek;
    of.copy_file_range = copy_range;
    of.opendir = open_directory;
    of.readdir = read_directory;
    of.releasedir = release_directory;
    of.fsyncdir = sync_directory;
    of.getlk = get_lock;
    of.setlk = set_lock;
    of.flock = lock_whole;
    return of;
  }();
  return all;
}

}  // namespace cob::mount
