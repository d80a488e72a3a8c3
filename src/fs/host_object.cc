// Making one; reads, writes, the offset. preadv2(2), pipe(7), tty_ioctl(4).
#include "fs/host_object.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include "fs/host_object_ways.h"
#include "fs/proc_path.h"

namespace cob::fs {
namespace {

using descriptor::Position;

constexpr i64 own_offset = -1;

i64 offset_of(Position at) { return at ? static_cast<i64>(*at) : own_offset; }
bool in_range(Position at) { return !at || *at <= u64{INT64_MAX}; }

HostObject::Kind kind_of(FdRef fd, const struct stat& status) {
  switch (status.st_mode & S_IFMT) {
    case S_IFDIR:
      return HostObject::Kind::directory;
    case S_IFIFO:
      return HostObject::Kind::pipe;
    case S_IFSOCK:
      return HostObject::Kind::socket;
    case S_IFCHR:
      return ::isatty(fd.get()) == 1 ? HostObject::Kind::terminal : HostObject::Kind::device;
    default:  // block devices too
      return HostObject::Kind::file;
  }
}

// To open a device anew does things to some; a pseudoterminal's other end would be a new one.
bool may_open_twin(HostObject::Kind kind, const struct stat& status) {
  if (kind == HostObject::Kind::pipe) return true;
  const bool master = ::major(status.st_rdev) == 5 && ::minor(status.st_rdev) == 2;
  return kind == HostObject::Kind::terminal && !master;
}

bool is_whole(ssize_t moved, std::size_t wanted) { return static_cast<u64>(moved) == wanted; }

}  // namespace

Result<std::unique_ptr<HostObject>> HostObject::create(Fd fd, Ring& ring, Who who,
                                                       const Fresh& fresh) {
  if (!S_ISREG(fresh.mode) || (fresh.flags & O_PATH) != 0)
    return create(std::move(fd), ring, std::move(who));
  std::unique_ptr<HostObject> object(
      new HostObject(std::move(fd), ring, std::move(who), Kind::file, fresh));
  object->flags_ = fresh.flags;
  object->nonblocking_ = fresh.nonblocking;
  object->seekable_ = object->at_start_ = fresh.waits.from_the_start;
  if (!object->at_start_) object->find_offset();
  return object;
}

void HostObject::find_offset() {
  const bool has_position =
      kind_ == Kind::file || kind_ == Kind::directory || kind_ == Kind::device;
  seekable_ = has_position && ::lseek(fd_.get(), 0, SEEK_CUR) >= 0;
}

Result<std::unique_ptr<HostObject>> HostObject::create(Fd fd, Ring& ring, Who who) {
  struct stat status{};
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fstat(fd.get(), &status) != 0) return Error::from_errno("fstat");
  const Kind kind = kind_of(fd.ref(), status);
  const descriptor::FileId id{.device = status.st_dev, .inode = status.st_ino};
  const Fresh known{.id = id, .waits = waits_of(fd.ref())};
  std::unique_ptr<HostObject> object(
      new HostObject(std::move(fd), ring, std::move(who), kind, known));
  object->find_offset();
  if ((flags & O_PATH) == 0 && may_open_twin(kind, status)) {
    object->twin_ = Fd(::open(ProcPath(object->fd_.ref()).c_str(),
                              (flags & O_ACCMODE) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  }
  return object;
}

HostObject::~HostObject() {
  VERIFY(under_way_ == 0);
  // An operation of the ring keeps the host's file open.
  for (const OperationId id : watches_) ring_.cancel(id);
  if (!watches_.empty()) ring_.submit();
}

int HostObject::host_flags() const { return flags_ >= 0 ? flags_ : ::fcntl(fd_.get(), F_GETFL); }

bool HostObject::appends() const { return (host_flags() & O_APPEND) != 0; }

void HostObject::settle() {
  at_start_ = false;
  if (std::exchange(nonblocking_, false)) ::fcntl(fd_.get(), F_SETFL, flags_);
}

namespace {
bool is_open_for(int flags, int mode) {
  const int access = flags & O_ACCMODE;
  return (flags & O_PATH) == 0 && (access == mode || access == O_RDWR);
}
}  // namespace

descriptor::ObjectTraits HostObject::traits() const {
  // A device has an offset that need not be where its bytes come from.
  const int flags = host_flags();
  return {.has_offset = seekable_ && kind_ != Kind::device,
          .appends = (flags & O_APPEND) != 0,
          .reads = is_open_for(flags, O_RDONLY),
          .writes = is_open_for(flags, O_WRONLY)};
}

// --- Pipes, terminals, sockets, devices: what waits for events.

// Which of `events`, and POLLHUP and POLLERR, there are.
u32 HostObject::stream_events(u32 events) const {
  pollfd look{.fd = fd_.get(), .events = static_cast<short>(events), .revents = 0};
  return ::poll(&look, 1, 0) > 0 ? static_cast<u32>(look.revents) : 0;
}

// A FIFO opened for reading waits for its first writer, and says end of data only after one has
// left; with O_NONBLOCK it says so from the beginning. fifo(7)
bool HostObject::awaits_writer() const {
  return (::fcntl(fd_.get(), F_GETFL) & O_NONBLOCK) == 0 && stream_events(POLLIN) != POLLHUP;
}

// Without a twin a device, or a terminal that may not be opened anew, is polled first: if another
// program takes the bytes in between, the call waits for the next ones.
Result<u64> HostObject::read_stream(Position at, std::span<std::byte> into) {
  if (at && kind_ != Kind::device) return Error::of(ESPIPE, "it has no positions");
  if (kind_ == Kind::socket)
    return moved(::recv(fd_.get(), into.data(), into.size(), MSG_DONTWAIT));
  if (twin_.valid()) {
    const ssize_t got = ::read(twin_.get(), into.data(), into.size());
    if (got == 0 && kind_ == Kind::pipe && !into.empty() && awaits_writer())
      return Error::of(EAGAIN, "no writer yet");
    return moved(got);
  }
  iovec piece{.iov_base = into.data(), .iov_len = into.size()};
  const ssize_t got = ::preadv2(fd_.get(), &piece, 1, offset_of(at), RWF_NOWAIT);
  if (got >= 0 || errno != EOPNOTSUPP) return moved(got);
  if (stream_events(POLLIN) == 0) return Error::of(EAGAIN, "nothing to read");
  return moved(::preadv2(fd_.get(), &piece, 1, offset_of(at), 0));
}

Result<u64> HostObject::write_stream(Position at, std::span<const std::byte> from) {
  if (at && kind_ != Kind::device) return Error::of(ESPIPE, "it has no positions");
  if (kind_ == Kind::socket)
    return moved(::send(fd_.get(), from.data(), from.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
  if (twin_.valid()) return moved(::write(twin_.get(), from.data(), from.size()));
  iovec piece{.iov_base = const_cast<std::byte*>(from.data()), .iov_len = from.size()};
  const ssize_t put = ::pwritev2(fd_.get(), &piece, 1, offset_of(at), RWF_NOWAIT);
  if (put >= 0 || errno != EOPNOTSUPP) return moved(put);
  if (stream_events(POLLOUT) == 0) return Error::of(EAGAIN, "no room");
  return moved(::pwritev2(fd_.get(), &piece, 1, offset_of(at), 0));
}

// --- Files and directories.

// What is not in memory: at a position by the ring. At the own offset by a worker, as read(2) takes
// the lock of f_pos, which programs of this island may move, and io_uring does not; if they do
// between the two parts, the parts are not adjacent.
void HostObject::read(Position at, std::span<std::byte> into, Done done) {
  if (!in_range(at)) return done(Error::of(EINVAL, "offset"));
  if (!at) at_start_ = false;
  // preadv2(2) of no bytes would not look.
  if (kind_ == Kind::directory && into.empty()) return done(Error::of(EISDIR, "a directory"));
  if (kind_ != Kind::file && kind_ != Kind::directory) return done(read_stream(at, into));
  iovec piece{.iov_base = into.data(), .iov_len = into.size()};
  if (!waits_.for_storage) return done(moved(::preadv2(fd_.get(), &piece, 1, offset_of(at), 0)));
  u64 before = 0;
  if (reads_without_waiting_) {
    const ssize_t got = ::preadv2(fd_.get(), &piece, 1, offset_of(at), RWF_NOWAIT);
    if (got == 0 || (got > 0 && is_whole(got, into.size()))) return done(moved(got));
    if (got < 0 && errno != EAGAIN && errno != EOPNOTSUPP) return done(moved(got));
    if (got < 0 && errno == EOPNOTSUPP) reads_without_waiting_ = false;
    if (got > 0) before = static_cast<u64>(got);
  }
  const std::span<std::byte> rest = into.subspan(before);
  if (at) {
    const u64 position = *at + before;
    return by_ring(
        [&](io_uring_sqe* sqe) {
          ::io_uring_prep_read(sqe, fd_.get(), rest.data(), static_cast<u32>(rest.size()),
                               position);
        },
        before, std::move(done));
  }
  by_worker([fd = fd_.get(), rest] { return moved(::read(fd, rest.data(), rest.size())); }, before,
            std::move(done));
}

// At the own offset, or with O_APPEND, the host must do it in one piece: a worker.
void HostObject::write(Position at, std::span<const std::byte> from, Done done) {
  if (!in_range(at)) return done(Error::of(EINVAL, "offset"));
  if (!at) at_start_ = false;
  if (kind_ != Kind::file && kind_ != Kind::directory) return done(write_stream(at, from));
  iovec piece{.iov_base = const_cast<std::byte*>(from.data()), .iov_len = from.size()};
  if (!may_wait()) return done(moved(::pwritev2(fd_.get(), &piece, 1, offset_of(at), 0)));
  if (!at || appends()) {
    return by_worker(
        [fd = fd_.get(), piece, offset = offset_of(at)] {
          return moved(::pwritev2(fd, &piece, 1, offset, 0));
        },
        0, std::move(done));
  }
  u64 before = 0;
  if (writes_without_waiting_ && who_ == nullptr) {
    const ssize_t put = ::pwritev2(fd_.get(), &piece, 1, offset_of(at), RWF_NOWAIT);
    if (put >= 0 && is_whole(put, from.size())) return done(moved(put));
    if (put < 0 && errno != EAGAIN && errno != EOPNOTSUPP) return done(moved(put));
    if (put < 0 && errno == EOPNOTSUPP) writes_without_waiting_ = false;
    if (put > 0) before = static_cast<u64>(put);
  }
  const std::span<const std::byte> rest = from.subspan(before);
  const u64 position = *at + before;
  by_ring(
      [&](io_uring_sqe* sqe) {
        ::io_uring_prep_write(sqe, fd_.get(), rest.data(), static_cast<u32>(rest.size()), position);
      },
      before, std::move(done));
}

// RWF_APPEND at the own offset is O_APPEND's write for one call: atomic under the inode's lock, and
// the offset, under f_pos's, is behind it afterwards.
void HostObject::append(std::span<const std::byte> from, Done done) {
  if (kind_ != Kind::file && kind_ != Kind::directory)
    return done(write_stream(std::nullopt, from));
  const iovec piece{.iov_base = const_cast<std::byte*>(from.data()), .iov_len = from.size()};
  here_or_by_worker(
      [fd = fd_.get(), piece] { return moved(::pwritev2(fd, &piece, 1, own_offset, RWF_APPEND)); },
      std::move(done));
}

void HostObject::seek(i64 distance, int whence, Done done) {
  at_start_ = false;
  auto call = [fd = fd_.get(), distance, whence] { return moved(::lseek(fd, distance, whence)); };
  const bool asks_storage = whence == SEEK_DATA || whence == SEEK_HOLE;
  const bool asks_others = whence == SEEK_END && waits_.for_status;
  if (waits_.for_storage && (asks_storage || asks_others))
    return by_worker(std::move(call), 0, std::move(done));
  done(call());
}

Result<u64> HostObject::offset() {
  if (at_start_) return u64{0};
  const off_t at = seekable_ ? ::lseek(fd_.get(), 0, SEEK_CUR) : -1;
  if (at < 0) return Error::of(EIO, "it has no offset");
  return static_cast<u64>(at);
}

Result<std::unique_ptr<descriptor::CacheLease>> HostObject::cache_lease(
    std::move_only_function<void()> broken) {
  // What other machines write breaks no lease here.
  if (leases_ == nullptr || kind_ != Kind::file || waits_.for_status)
    return Error::of(EOPNOTSUPP, "no leases");
  return leases_->take(fd_.ref(), std::move(broken));
}

// --- Elsewhere.

void HostObject::end(const Result<u64>& result, u64 before, Done& done) {
  --under_way_;
  // `done` may end this object.
  if (!result.is_error()) return done(before + result.value());
  before > 0 ? done(before) : done(result);
}

void HostObject::by_worker(Call call, u64 before, Done done) {
  settle();
  ++under_way_;
  auto result = std::make_shared<Result<u64>>(u64{0});
  Workers::Job job{.who = who_,
                   .umask = 0,
                   .work =
                       [call = std::move(call), result](int refused) mutable {
                         *result =
                             refused != 0 ? Result<u64>(Error::of(refused, "credentials")) : call();
                       },
                   .done = [this, before, result,
                            then = std::move(done)]() mutable { end(*result, before, then); }};
  const auto started = ring_.workers().run(std::move(job));
  if (!started.is_error()) return;
  *result = started.error();
  job.done();  // NOLINT(bugprone-use-after-move): left as it was
}

void HostObject::here_or_by_worker(Call call, Done done) {
  settle();
  if (!may_wait()) return done(call());
  by_worker(std::move(call), 0, std::move(done));
}

}  // namespace cob::fs
