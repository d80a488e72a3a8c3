// The calls by name. On a name in its directory (mkdirat(2), unlinkat(2), renameat2(2) ...), or on
// what a path leads to, opened O_PATH and then named by its descriptor or by /proc/self/fd: the
// host judges each by the thread's credentials. All may wait for storage.
#include "fs/share_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>

#include "fs/proc_path.h"

namespace cob::fs {
namespace {

Result<u64> done(long result) {
  if (result < 0) return Error::from_errno("the host");
  return static_cast<u64>(result);
}

template <typename T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// One request under way.
struct Doing {
  const NameWanted& wanted;
  NameOutcome& outcome;
  Resolver resolver = wanted.start.resolver();
  Resolver second = wanted.second_start.resolver();

  // What the path leads to; with an empty path what the handle is of.
  Result<Fd> target(bool follows, bool cached = false) {
    if (is_handle()) {
      const int fd = ::fcntl(wanted.start.held.get(), F_DUPFD_CLOEXEC, 0);
      if (fd < 0) return Error::from_errno("dup");
      return Fd(fd);
    }
    return resolver.open(wanted.path,
                         {.flags = O_PATH | (follows ? 0 : O_NOFOLLOW), .cached = cached});
  }
  bool is_handle() const { return wanted.path.empty() && wanted.start.held.valid(); }
  bool follows() const { return (wanted.flags & no_follow) == 0; }
  Result<void> writable() const {
    if (wanted.start.share->read_only) return Error::of(EROFS, "the share is read only");
    return {};
  }
  // The name in `parent` that is to be made; EEXIST comes before EROFS.
  Result<void> may_make(const Parent& parent) const {
    struct stat status{};
    if (!wanted.start.share->read_only) return {};
    const bool exists =
        ::fstatat(parent.directory.get(), parent.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
    return Error::of(exists ? EEXIST : EROFS, "the share is read only");
  }
};

// --- On a name in its directory.

Result<u64> make_name(Doing& d) {
  const NameWanted& w = d.wanted;
  const Parent parent = TRY(d.resolver.parent(w.path));
  TRY(d.may_make(parent));
  const int directory = parent.directory.get();
  const char* const name = parent.name.c_str();
  switch (w.call) {
    case NameCall::make_directory:
      return done(::mkdirat(directory, name, w.mode & 07777));
    case NameCall::make_node:
      return done(::mknodat(directory, name, w.mode & (S_IFMT | 07777),
                            makedev(static_cast<u32>(w.number >> 32), static_cast<u32>(w.number))));
    default:
      return done(::symlinkat(w.value.c_str(), directory, name));
  }
}

Result<u64> remove_name(Doing& d) {
  const Parent parent = TRY(d.resolver.parent(d.wanted.path));
  TRY(d.writable());
  return done(::unlinkat(parent.directory.get(), parent.name.c_str(),
                         d.wanted.call == NameCall::remove_directory ? AT_REMOVEDIR : 0));
}

Result<Parent> second_parent(Doing& d) {
  auto parent = d.second.parent(d.wanted.second);
  d.outcome.second = parent.is_error();
  return parent;
}

bool one_share(const Doing& d) { return d.wanted.start.share == d.wanted.second_start.share; }

Result<u64> rename_name(Doing& d) {
  const Parent from = TRY(d.resolver.parent(d.wanted.path));
  const Parent to = TRY(second_parent(d));
  if (!one_share(d)) return Error::of(EXDEV, "shares differ");
  TRY(d.writable());
  return done(::renameat2(from.directory.get(), from.name.c_str(), to.directory.get(),
                          to.name.c_str(), d.wanted.flags & own_flags));
}

Result<u64> link_name(Doing& d) {
  const Fd old = TRY(d.target((d.wanted.flags & follow) != 0));
  const Parent to = TRY(second_parent(d));
  if (!one_share(d)) return Error::of(EXDEV, "shares differ");
  TRY(d.may_make(to));
  return done(::linkat(AT_FDCWD, ProcPath(old.ref()).c_str(), to.directory.get(), to.name.c_str(),
                       AT_SYMLINK_FOLLOW));
}

// --- On what a path leads to.

Result<u64> tell_status(Doing& d, bool cached) {
  if (d.is_handle()) {
    d.outcome.value = bytes_of(TRY(status_of(d.wanted.start.held)));
    return u64{0};
  }
  if (cached && d.wanted.in_memory) {
    const Status status = TRY(status_of(d.wanted.start.base(), d.wanted.path.c_str()));
    if (!d.follows() || !S_ISLNK(status.mode.get())) {
      d.outcome.value = bytes_of(status);
      return u64{0};
    }
  }
  Fd fd = TRY(d.target(d.follows(), cached));
  d.outcome.value = bytes_of(TRY(status_of(fd.ref())));
  if (cached) d.outcome.used = std::move(fd);
  return u64{0};
}

Result<u64> check_access(Doing& d, bool cached) {
  Fd fd = TRY(d.target(d.follows(), cached));
  if (d.wanted.start.share->read_only && (d.wanted.mode & W_OK) != 0) {
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return Error::from_errno("fstat");
    const u32 type = status.st_mode & S_IFMT;
    if (type == S_IFREG || type == S_IFDIR || type == S_IFLNK)
      return Error::of(EROFS, "the share is read only");
  }
  // The C library's own may do without the host; the effective ids are the asker's.
  const auto result =
      done(::syscall(SYS_faccessat2, fd.get(), "", d.wanted.mode, AT_EMPTY_PATH | AT_EACCESS));
  if (cached) d.outcome.used = std::move(fd);
  return result;
}

Result<u64> tell_link(Doing& d) {
  const Fd fd = TRY(d.target(false));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return Error::from_errno("fstat");
  if (!S_ISLNK(status.st_mode)) return Error::of(EINVAL, "no symbolic link");
  std::array<char, PATH_MAX> text;
  const u64 bytes = TRY(done(::readlinkat(fd.get(), "", text.data(), text.size())));
  d.outcome.value.assign(text.data(), bytes);
  return bytes;
}

Result<u64> set_times(Doing& d, const Fd& fd) {
  std::array<TimeField, 2> fields;
  if (d.wanted.value.size() != sizeof(fields)) return Error::of(EINVAL, "times");
  std::memcpy(&fields, d.wanted.value.data(), sizeof(fields));
  std::array<timespec, 2> times{};
  for (std::size_t i = 0; i < 2; ++i)
    times[i] = {.tv_sec = fields[i].seconds,
                .tv_nsec = static_cast<long>(fields[i].nanoseconds.get())};
  return done(::utimensat(fd.get(), "", times.data(), AT_EMPTY_PATH));
}

Result<u64> change_target(Doing& d) {
  const NameWanted& w = d.wanted;
  const Fd fd = TRY(d.target(d.follows()));
  TRY(d.writable());
  const ProcPath path(fd.ref());
  switch (w.call) {
    case NameCall::change_mode:
      return done(::chmod(path.c_str(), w.mode & 07777));
    case NameCall::change_owner:
      return done(::fchownat(fd.get(), "", w.uid, w.gid, AT_EMPTY_PATH));
    case NameCall::set_times:
      return set_times(d, fd);
    case NameCall::truncate:
      return done(::truncate(path.c_str(), static_cast<off_t>(w.number)));
    case NameCall::set_attribute:
      return done(::setxattr(path.c_str(), w.second.c_str(), w.value.data(), w.value.size(),
                             static_cast<int>(w.flags & own_flags)));
    default:
      return done(::removexattr(path.c_str(), w.value.c_str()));
  }
}

Result<u64> tell_attributes(Doing& d) {
  const Fd fd = TRY(d.target(d.follows()));
  const ProcPath path(fd.ref());
  std::string room(std::min<u64>(d.wanted.number, max_value_bytes), '\0');
  const auto bytes =
      d.wanted.call == NameCall::get_attribute
          ? done(::getxattr(path.c_str(), d.wanted.value.c_str(), room.data(), room.size()))
          : done(::listxattr(path.c_str(), room.data(), room.size()));
  if (bytes.is_error()) return bytes;
  if (!room.empty()) d.outcome.value.assign(room, 0, bytes.value());
  return bytes;
}

// Of the handle itself: nothing is looked for, so nothing can wait.
Result<u64> tell_name(Doing& d) {
  if (!d.is_handle()) return Error::of(EINVAL, "the name of no handle");
  d.outcome.value = TRY(d.resolver.name_of_base());
  return u64{0};
}

Result<u64> tell_filesystem(Doing& d) {
  const Fd fd = TRY(d.target(true));
  d.outcome.value = bytes_of(TRY(filesystem_of(fd.ref())));
  return u64{0};
}

Result<u64> call(Doing& d, bool cached) {
  switch (d.wanted.call) {
    case NameCall::status:
      return tell_status(d, cached);
    case NameCall::access:
      return check_access(d, cached);
    case NameCall::make_directory:
    case NameCall::make_node:
    case NameCall::symlink:
      return make_name(d);
    case NameCall::unlink:
    case NameCall::remove_directory:
      return remove_name(d);
    case NameCall::rename:
      return rename_name(d);
    case NameCall::link:
      return link_name(d);
    case NameCall::read_link:
      return tell_link(d);
    case NameCall::change_mode:
    case NameCall::change_owner:
    case NameCall::set_times:
    case NameCall::truncate:
    case NameCall::set_attribute:
    case NameCall::remove_attribute:
      return change_target(d);
    case NameCall::get_attribute:
    case NameCall::list_attributes:
      return tell_attributes(d);
    case NameCall::filesystem:
      return tell_filesystem(d);
    case NameCall::name:
      return tell_name(d);
  }
  return Error::of(EINVAL, "no such call");
}

}  // namespace

Result<void> Start::keep() {
  if (!held.valid() || kept != nullptr) return {};
  Fd copy(::fcntl(held.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return Error::from_errno("dup");
  kept = std::make_shared<const Fd>(std::move(copy));
  held = kept->ref();
  return {};
}

NameOutcome call_in_share(const NameWanted& wanted, bool cached) {
  NameOutcome outcome;
  Doing doing{.wanted = wanted, .outcome = outcome};
  outcome.number = call(doing, cached);
  if (outcome.number.is_error())
    outcome.outside = outcome.second ? doing.second.outside() : doing.resolver.outside();
  return outcome;
}

}  // namespace cob::fs
