// Opening. Everything is opened with O_NONBLOCK at first, so that no FIFO, device or lease holds
// anybody up. open(2), fifo(7), fcntl(2) "Leases".
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/open_flags.h"
#include "fs/proc_path.h"
#include "fs/share_calls.h"

namespace cob::fs {
namespace {

u32 type_of(FdRef fd) {
  struct stat status{};
  return ::fstat(fd.get(), &status) == 0 ? status.st_mode & S_IFMT : 0;
}

Resolver::How how_of(const OpenWanted& wanted, bool cached) {
  const int asked = *host_flags(wanted.flags);
  if ((asked & O_PATH) != 0)
    return {.flags = asked & (O_PATH | O_DIRECTORY | O_NOFOLLOW), .mode = 0, .cached = cached};
  const bool makes = (asked & O_CREAT) != 0 || (asked & O_TMPFILE) == O_TMPFILE;
  return {.flags = asked | O_NONBLOCK | O_NOCTTY,
          .mode = makes ? wanted.mode & 07777 : 0,
          .cached = cached};
}

// What the same filesystem mounted read-only would say, where it matters. 0: go on, with O_CREAT
// off. As on the host a device or FIFO may be written.
int refusal_of_read_only(const OpenWanted& wanted, Resolver& resolver, Resolver::How& how) {
  if ((how.flags & O_PATH) != 0) return 0;
  if ((how.flags & O_TMPFILE) == O_TMPFILE) return EROFS;
  const bool makes = (how.flags & O_CREAT) != 0;
  const bool writes = (how.flags & O_ACCMODE) != O_RDONLY || (how.flags & O_TRUNC) != 0;
  if (!makes && !writes) return 0;
  const bool exclusive = makes && (how.flags & O_EXCL) != 0;
  const auto there = resolver.open(
      wanted.path, {.flags = O_PATH | (exclusive ? O_NOFOLLOW : how.flags & O_NOFOLLOW),
                    .mode = 0,
                    .cached = how.cached});
  if (there.is_error()) return makes && there.error().code == ENOENT ? EROFS : there.error().code;
  if (exclusive) return EEXIST;
  const u32 type = type_of(there.value().ref());
  if (writes && type == S_IFREG) return EROFS;
  how.flags &= ~O_CREAT;
  how.mode = 0;
  return 0;
}

// Its lease, the home's own or another program's, is being given up: wait for that. Only a regular
// file, and the same one, is opened without O_NONBLOCK.
Result<Fd> open_behind_lease(const OpenWanted& wanted, Resolver& resolver, Resolver::How how) {
  const Fd there = TRY(resolver.open(wanted.path, {.flags = O_PATH}));
  if (type_of(there.ref()) != S_IFREG) return Error::of(EAGAIN, "it would wait");
  const int drop = O_NONBLOCK | O_CREAT | O_EXCL | O_NOFOLLOW;
  const int fd = ::open(ProcPath(there.ref()).c_str(), (how.flags & ~drop) | O_CLOEXEC);
  if (fd < 0) return Error::from_errno("open");
  return Fd(fd);
}

// Of a regular file that is there already. The host gives leases up for who opens for writing, and
// for truncate(2), not for O_TRUNC by itself: so it is held open for writing while it is cut.
// nullopt: there is no such file, and nothing to be cut.
std::optional<Result<Fd>> open_to_truncate(const OpenWanted& wanted, Resolver& resolver,
                                           const Resolver::How& how) {
  if ((how.flags & O_CREAT) != 0 && (how.flags & O_EXCL) != 0) return std::nullopt;
  const auto there = resolver.open(wanted.path, {.flags = O_PATH | (how.flags & O_NOFOLLOW)});
  if (there.is_error() || type_of(there.value().ref()) != S_IFREG) return std::nullopt;
  const ProcPath path(there.value().ref());
  const Fd writer(::open(path.c_str(), O_WRONLY | O_CLOEXEC));  // what refuses it, refuses the cut
  const int drop = O_CREAT | O_NOFOLLOW;
  const int fd = ::open(path.c_str(), (how.flags & ~drop) | O_CLOEXEC);
  if (fd < 0) return Result<Fd>(Error::from_errno("open"));
  return Result<Fd>(Fd(fd));
}

bool is_fifo(const OpenWanted& wanted, Resolver& resolver) {
  const auto there = resolver.open(wanted.path, {.flags = O_PATH});
  return !there.is_error() && type_of(there.value().ref()) == S_IFIFO;
}

Result<Fd> open_wanted(const OpenWanted& wanted, Resolver& resolver, bool cached, int& flags) {
  Resolver::How how = how_of(wanted, cached);
  if (wanted.start.share->read_only) {
    const int code = refusal_of_read_only(wanted, resolver, how);
    if (code != 0) return Error::of(code, "the share is read only");
  }
  const bool cuts_as_reader =
      (how.flags & O_TRUNC) != 0 && (how.flags & (O_ACCMODE | O_PATH)) == O_RDONLY;
  auto cut = cuts_as_reader ? open_to_truncate(wanted, resolver, how) : std::nullopt;
  Result<Fd> opened = cut ? std::move(*cut) : resolver.open(wanted.path, how);
  const bool waits = (wanted.flags & open_flag::nonblock) == 0;
  if (opened.is_error() && cached && waits && opened.error().code == ENXIO)
    return Error::of(EAGAIN, "a FIFO without a reader, perhaps");
  // Who asked for O_NONBLOCK knows of no lease.
  if (opened.is_error() && !cached && opened.error().code == EAGAIN) {
    opened = open_behind_lease(wanted, resolver, how);
    how.flags &= ~O_NONBLOCK;
  }
  // A writer waits for a reader.
  const bool may_wait = waits && !cached;
  if (opened.is_error() && may_wait && opened.error().code == ENXIO && is_fifo(wanted, resolver))
    return Error::of(EAGAIN, "no reader yet");
  flags = how.flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC);
  return opened;
}

// It does not keep an O_NONBLOCK that was for the opening's sake. Operations of a regular file do
// not look at it: there it goes when somebody might who does (HostObject).
Result<void> settle_flags(const OpenWanted& wanted, OpenOutcome& outcome) {
  const int nonblock = (wanted.flags & open_flag::nonblock) != 0 ? O_NONBLOCK : 0;
  if ((outcome.host_flags & O_PATH) != 0 || (outcome.host_flags & O_NONBLOCK) == nonblock)
    return {};
  outcome.host_flags = (outcome.host_flags & ~O_NONBLOCK) | nonblock;
  outcome.nonblocking = nonblock == 0 && (outcome.status.mode.get() & S_IFMT) == S_IFREG;
  if (outcome.nonblocking) return {};
  if (::fcntl(outcome.fd.value().get(), F_SETFL, outcome.host_flags) != 0)
    return Error::from_errno("F_SETFL");
  return {};
}

}  // namespace

OpenOutcome open_in_share(const OpenWanted& wanted, bool cached) {
  OpenOutcome outcome;
  Resolver resolver = wanted.start.resolver();
  outcome.fd = open_wanted(wanted, resolver, cached, outcome.host_flags);
  if (outcome.fd.is_error()) {
    outcome.outside = resolver.outside();
    return outcome;
  }
  const auto status = status_of(outcome.fd.value().ref());
  if (status.is_error()) {
    outcome.fd = status.error();
  } else {
    outcome.status = status.value();
    if (const auto settled = settle_flags(wanted, outcome); settled.is_error())
      outcome.fd = settled.error();
  }
  return outcome;
}

}  // namespace cob::fs
