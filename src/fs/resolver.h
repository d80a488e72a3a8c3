// Resolver: a path behind a share's root or an open directory, which never leads out of the share.
// openat2(2), path_resolution(7).
// Model: the host resolves (RESOLVE_BENEATH); only where a path leads out is it walked here, for
// the text to go on with: nothing is opened by that walk. May wait for storage unless `cached`: on
// a worker, as its user. A value of one request.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "base/types.h"

namespace cob::fs {

inline constexpr u32 max_links = 40;  // as Linux has it

// A name's directory and the name in it, with the slashes that were behind it.
struct Parent {
  Fd directory;
  std::string name;
};

class Resolver {
 public:
  struct How {
    int flags = 0;  // the host's
    u32 mode = 0;
    bool cached = false;  // EAGAIN rather than wait
  };

  // `base`: the root itself, or a directory of the share, or beside it.
  Resolver(FdRef root, FdRef base) : root_(root), base_(base) {}

  // EXDEV: it leads out, to outside(). EAGAIN: the host says so (also: `cached`).
  Result<Fd> open(const std::string& path, const How& how);
  // Likewise. ENOENT: an empty path.
  Result<Parent> parent(const std::string& path);
  // What the host calls the base now, behind the root; empty: the root itself. ENOENT: it is
  // removed, or not below the root. Never waits.
  Result<std::string> name_of_base() const;
  // The path to go on with; empty: none.
  const std::string& outside() const { return outside_; }

 private:
  Result<std::string> path_of_base() const;
  // Where a path behind the root leads out; empty: it does not, any more.
  Result<std::string> way_out(const std::string& path, bool follow_last) const;

  FdRef root_;
  FdRef base_;
  std::string outside_;
};

}  // namespace cob::fs
