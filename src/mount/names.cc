// The calls on a name in its directory: lookup to readlink. fuse_lowlevel.h.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdio>

#include "mount/server.h"

namespace cob::mount {

namespace {

// make(directory), as the sender; then what it made is looked up.
template <typename Make>
void reply_made(fuse_req_t request, fuse_ino_t parent, const char* name, Make make) {
  const int error = tree_of(request).at(parent, [&](int directory) {
    const Asking sender(request);
    return error_of(make(directory));
  });
  error != 0 ? reply_error(request, error) : reply_entry(request, parent, name);
}

template <typename Do>
void reply_done(fuse_req_t request, fuse_ino_t parent, Do what) {
  reply_error(request, tree_of(request).at(parent, [&](int directory) {
    const Asking sender(request);
    return error_of(what(directory));
  }));
}

}  // namespace

fuse_entry_param entry_of(Tree& tree, fuse_ino_t parent, const char* name,
                          const struct statx& status) {
  fuse_entry_param entry{};
  entry.ino = tree.note(parent, name, status);
  entry.attr = attributes_of(status);
  entry.attr_timeout = entry.entry_timeout = kept_seconds;
  return entry;
}

void reply_entry(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Tree& tree = tree_of(request);
  struct statx status{};
  const int error = tree.at(parent, [&](int directory) {
    const Asking sender(request);
    return error_of(
        ::statx(directory, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &status));
  });
  if (error != 0) return reply_error(request, error);
  const fuse_entry_param entry = entry_of(tree, parent, name, status);
  // Nobody is there to take it (an interrupted request), so nobody will forget it.
  if (fuse_reply_entry(request, &entry) != 0) tree.forget(entry.ino, 1);
}

void look_up(fuse_req_t request, fuse_ino_t parent, const char* name) {
  reply_entry(request, parent, name);
}

void forget(fuse_req_t request, fuse_ino_t number, u64 lookups) {
  tree_of(request).forget(number, lookups);
  fuse_reply_none(request);
}

void forget_many(fuse_req_t request, std::size_t count, fuse_forget_data* forgets) {
  for (std::size_t i = 0; i < count; ++i)
    tree_of(request).forget(forgets[i].ino, forgets[i].nlookup);
  fuse_reply_none(request);
}

void make_node(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  reply_made(request, parent, name,
             [&](int directory) { return ::mknodat(directory, name, mode, device); });
}

void make_directory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  reply_made(request, parent, name,
             [&](int directory) { return ::mkdirat(directory, name, mode); });
}

void make_symlink(fuse_req_t request, const char* text, fuse_ino_t parent, const char* name) {
  reply_made(request, parent, name,
             [&](int directory) { return ::symlinkat(text, directory, name); });
}

void unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  reply_done(request, parent, [&](int directory) { return ::unlinkat(directory, name, 0); });
}

void remove_directory(fuse_req_t request, fuse_ino_t parent, const char* name) {
  reply_done(request, parent,
             [&](int directory) { return ::unlinkat(directory, name, AT_REMOVEDIR); });
}

void rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t to,
            const char* new_name, unsigned flags) {
  Tree& tree = tree_of(request);
  const int error = tree.at(parent, [&](int from_directory) {
    return tree.at(to, [&](int to_directory) {
      const Asking sender(request);
      return error_of(::renameat2(from_directory, name, to_directory, new_name, flags));
    });
  });
  if (error == 0) tree.renamed(parent, name, to, new_name, (flags & RENAME_EXCHANGE) != 0);
  reply_error(request, error);
}

void link(fuse_req_t request, fuse_ino_t number, fuse_ino_t parent, const char* name) {
  Tree& tree = tree_of(request);
  const int error = tree.on(number, [&](int file) {
    return tree.at(parent, [&](int directory) {
      const Asking sender(request);
      return error_of(::linkat(file, "", directory, name, AT_EMPTY_PATH));
    });
  });
  error != 0 ? reply_error(request, error) : reply_entry(request, parent, name);
}

void read_link(fuse_req_t request, fuse_ino_t number) {
  Tree& tree = tree_of(request);
  const auto name = tree.name_of(number);
  if (!name) return reply_error(request, not_it);
  char text[PATH_MAX + 1];
  ssize_t bytes = 0;
  const int error = tree.at(name->parent, [&](int directory) {
    const Asking sender(request);
    bytes = ::readlinkat(directory, name->name.c_str(), text, sizeof text - 1);
    return error_of(bytes);
  });
  if (error != 0) return reply_error(request, error);
  text[bytes] = '\0';
  fuse_reply_readlink(request, text);
}

}  // namespace cob::mount
