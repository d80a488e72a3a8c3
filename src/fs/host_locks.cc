// The host's locks: flock(2) of a description's own, and of one open description more F_OFD_SETLK,
// fcntl(2), for all record locks of a home's holders. docs/descriptors.md, 4.
// Model: local filesystems keep locks in memory, so they are asked on the loop; others by a worker.
// The further description is opened when first used, through /proc/self/fd: of a file, for as much
// as is wanted, since what is open for writing keeps the host from executing it; where that may
// not be, and of what opening has effects on, it is the asker's own description.
#include <fcntl.h>
#include <sys/file.h>

#include <cstring>

#include "fs/host_object.h"
#include "fs/host_object_ways.h"
#include "fs/proc_path.h"

namespace cob::fs {
namespace {

using descriptor::LockMode;
using descriptor::LockRange;

short host_type(LockMode mode) {
  constexpr short write = F_WRLCK, read = F_RDLCK, none = F_UNLCK;
  return mode == LockMode::exclusive ? write : mode == LockMode::shared ? read : none;
}

struct ::flock host_range(const LockRange& range, LockMode mode) {
  struct ::flock lock{};
  lock.l_type = host_type(mode);
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(range.first);
  const bool to_the_end = range.last == descriptor::max_lock_offset;
  lock.l_len = to_the_end ? 0 : static_cast<off_t>(range.last - range.first + 1);
  return lock;
}

class HostRecordLocks final : public descriptor::RecordLocks {
 public:
  struct Options {
    bool exclusive = false;
    bool may_open = false;  // else its own description is used
    bool by_worker = false;
  };
  HostRecordLocks(Fd own, Ring& ring, Options options)
      : fd_(std::move(own)), ring_(ring), options_(options), opened_(!options.may_open) {}

  bool writes() const override { return options_.exclusive; }

  Result<void> set(const LockRange& range, LockMode mode) override {
    open();
    struct ::flock lock = host_range(range, mode);
    if (::fcntl(fd_.get(), F_OFD_SETLK, &lock) == 0) return {};
    // Of what the asker may have, the further description may not have it.
    if (errno == EBADF) return Error::of(ENOLCK, "not open for that");
    return Error::from_errno("F_OFD_SETLK");
  }

  Result<Found> test(const LockRange& range, LockMode mode) override {
    open();
    struct ::flock lock = host_range(range, mode);
    if (::fcntl(fd_.get(), F_OFD_GETLK, &lock) != 0) return Error::from_errno("F_OFD_GETLK");
    if (lock.l_type == F_UNLCK) return Found{};
    const auto first = static_cast<u64>(lock.l_start);
    return Found{.range = {first, lock.l_len == 0 ? descriptor::max_lock_offset
                                                  : first + static_cast<u64>(lock.l_len) - 1},
                 .mode = lock.l_type == F_WRLCK ? LockMode::exclusive : LockMode::shared,
                 .pid = static_cast<u32>(lock.l_pid)};
  }

  void perform(Call call, Done done) override {
    if (!options_.by_worker) return done(call());
    auto result = std::make_shared<Result<u64>>(u64{0});
    Workers::Job job{.who = {},
                     .umask = 0,
                     .work =
                         [call = std::move(call), result](int refused) mutable {
                           *result = refused != 0 ? Result<u64>(Error::of(refused, "credentials"))
                                                  : call();
                         },
                     .done = [result, then = std::move(done)]() mutable { then(*result); }};
    const auto started = ring_.workers().run(std::move(job));
    if (!started.is_error()) return;
    *result = Error::of(ENOLCK, "too many wait for storage");
    job.done();  // NOLINT(bugprone-use-after-move): left as it was
  }

 private:
  void open() {
    if (std::exchange(opened_, true)) return;
    const int flags = (options_.exclusive ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
    Fd further(::open(ProcPath(fd_.ref()).c_str(), flags));
    if (further.valid()) fd_ = std::move(further);
  }

  Fd fd_;
  Ring& ring_;
  Options options_;
  bool opened_;
};

}  // namespace

std::optional<descriptor::FileId> HostObject::file() const {
  if (kind_ == Kind::socket) return std::nullopt;
  return id_;
}

void HostObject::flock(LockMode mode, Done done) {
  const int operation = LOCK_NB | (mode == LockMode::exclusive ? LOCK_EX
                                   : mode == LockMode::shared  ? LOCK_SH
                                                               : LOCK_UN);
  auto call = [fd = fd_.get(), operation] { return moved(::flock(fd, operation)); };
  if (!waits_.for_status) return done(call());
  by_worker(std::move(call), 0, std::move(done));
}

Result<std::shared_ptr<descriptor::RecordLocks>> HostObject::record_locks(bool exclusive) {
  Fd own(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!own.valid()) return Error::of(ENOLCK, "no descriptor for locks");
  const bool may_open = kind_ == Kind::file || kind_ == Kind::directory;
  return std::shared_ptr<descriptor::RecordLocks>(std::make_shared<HostRecordLocks>(
      std::move(own), ring_,
      HostRecordLocks::Options{
          .exclusive = exclusive, .may_open = may_open, .by_worker = waits_.for_status}));
}

}  // namespace cob::fs
