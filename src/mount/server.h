// What the operations of a mount share. Model: libfuse calls them on its threads, several at a
// time; each asks as the sender of its request and replies exactly once, last of all: what was open
// may be closed, on another thread, before the reply returns. Operations are listed in
// operations.cc, and are kept by family: names.cc, attributes.cc, files.cc, directories.cc,
// locking.cc.
#pragma once

#include "mount/lock_owners.h"
#include "mount/tree.h"

namespace cob::mount {

struct Server {
  explicit Server(std::string path) : tree(std::move(path)), locks(tree) {}
  Tree tree;
  LockOwners locks;
};

inline Server& server_of(fuse_req_t request) {
  return *static_cast<Server*>(fuse_req_userdata(request));
}
inline Tree& tree_of(fuse_req_t request) { return server_of(request).tree; }
inline Handle& handle_of(const fuse_file_info* file) {
  return *reinterpret_cast<Handle*>(file->fh);
}

// Nothing of a name or of attributes outlives its reply: they have no lease (docs/descriptors.md,
// 3).
inline constexpr double kept_seconds = 0;
fuse_entry_param entry_of(Tree& tree, fuse_ino_t parent, const char* name,
                          const struct statx& status);
// Looks the name up, as the sender, and answers with it.
void reply_entry(fuse_req_t request, fuse_ino_t parent, const char* name);

const fuse_lowlevel_ops& operations();

// --- names.cc
void look_up(fuse_req_t request, fuse_ino_t parent, const char* name);
void forget(fuse_req_t request, fuse_ino_t number, u64 lookups);
void forget_many(fuse_req_t request, std::size_t count, fuse_forget_data* forgets);
void make_node(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device);
void make_directory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode);
void make_symlink(fuse_req_t request, const char* text, fuse_ino_t parent, const char* name);
void unlink(fuse_req_t request, fuse_ino_t parent, const char* name);
void remove_directory(fuse_req_t request, fuse_ino_t parent, const char* name);
void rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t to,
            const char* new_name, unsigned flags);
void link(fuse_req_t request, fuse_ino_t number, fuse_ino_t parent, const char* name);
void read_link(fuse_req_t request, fuse_ino_t number);

// --- attributes.cc
void get_attributes(fuse_req_t request, fuse_ino_t number, fuse_file_info* file);
void set_attributes(fuse_req_t request, fuse_ino_t number, struct stat* to, int which,
                    fuse_file_info* file);
void check_access(fuse_req_t request, fuse_ino_t number, int mask);
void stat_filesystem(fuse_req_t request, fuse_ino_t number);
void get_extended(fuse_req_t request, fuse_ino_t number, const char* name, std::size_t room);
void list_extended(fuse_req_t request, fuse_ino_t number, std::size_t room);
void set_extended(fuse_req_t request, fuse_ino_t number, const char* name, const char* value,
                  std::size_t bytes, int flags);
void remove_extended(fuse_req_t request, fuse_ino_t number, const char* name);

// --- files.cc
void open(fuse_req_t request, fuse_ino_t number, fuse_file_info* file);
void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* file);
void read(fuse_req_t request, fuse_ino_t number, std::size_t bytes, off_t at, fuse_file_info* file);
void write(fuse_req_t request, fuse_ino_t number, const char* from, std::size_t bytes, off_t at,
           fuse_file_info* file);
void flush(fuse_req_t request, fuse_ino_t number, fuse_file_info* file);
void release(fuse_req_t request, fuse_ino_t number, fuse_file_info* file);
void sync(fuse_req_t request, fuse_ino_t number, int data_only, fuse_file_info* file);
void allocate(fuse_req_t request, fuse_ino_t number, int mode, off_t at, off_t bytes,
              fuse_file_info* file);
void seek(fuse_req_t request, fuse_ino_t number, off_t at, int whence, fuse_file_info* file);
void copy_range(fuse_req_t request, fuse_ino_t from, off_t from_at, fuse_file_info* from_file,
                fuse_ino_t to, off_t to_at, fuse_file_info* to_file, std::size_t bytes, int flags);

// --- directories.cc
void open_directory(fuse_req_t request, fuse_ino_t number, fuse_file_info* file);
void read_directory(fuse_req_t request, fuse_ino_t number, std::size_t bytes, off_t at,
                    fuse_file_info* file);
void release_directory(fuse_req_t request, fuse_ino_t number, fuse_file_info* file);
void sync_directory(fuse_req_t request, fuse_ino_t number, int data_only, fuse_file_info* file);

// --- locking.cc
void get_lock(fuse_req_t request, fuse_ino_t number, fuse_file_info* file, struct flock* wanted);
void set_lock(fuse_req_t request, fuse_ino_t number, fuse_file_info* file, struct flock* wanted,
              int waits);
void lock_whole(fuse_req_t request, fuse_ino_t number, fuse_file_info* file, int operation);

}  // namespace cob::mount
