// Object: what a description is at its home: the host's descriptor (fs/host_object.h), or a test's
// model of one.
// Model: the host's own position is the description's offset while that is at home. Nothing waits
// for an event; what must wait for storage ends later, from poll() of whoever made the object.
// Owned by the home's table; the kernel's loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/types.h"
#include "descriptor/lock_table.h"

namespace cob::descriptor {

// nullopt: at the object's own offset, which moves.
using Position = std::optional<u64>;

// What the home does with an object; fixed for its life.
struct ObjectTraits {
  bool has_offset = false;           // lseek(2) works: its offset may rest elsewhere
  bool appends = false;              // O_APPEND is on: writes at the offset go behind the last byte
  bool reads = true, writes = true;  // it is open for that
};

// A file of the host, the same however often and by whom it was opened.
struct FileId {
  u64 device = 0, inode = 0;
  auto operator<=>(const FileId&) const = default;
};

// The record locks that a home takes on the host for all holders of a file: those of one open
// description more. F_OFD_SETLK, fcntl(2). Its end gives them up.
class RecordLocks {
 public:
  using Call = std::move_only_function<Result<u64>()>;
  using Done = std::move_only_function<void(Result<u64>)>;
  struct Found {
    LockRange range;
    LockMode mode{};  // none: nothing is in the way
    u32 pid = 0;
  };

  RecordLocks() = default;
  RecordLocks(const RecordLocks&) = delete;
  RecordLocks& operator=(const RecordLocks&) = delete;
  virtual ~RecordLocks() = default;

  // Exclusive ones can be had by it.
  virtual bool writes() const = 0;
  // From within perform() only. They never wait for a lock: EAGAIN, others than holders have it.
  virtual Result<void> set(const LockRange& range, LockMode mode) = 0;
  virtual Result<Found> test(const LockRange& range, LockMode mode) = 0;
  // `call` where it may wait for storage; `done` on the loop, also from within.
  virtual void perform(Call call, Done done) = 0;
};

// The host's read lease on a file: while it lives nobody opens the file for writing or cuts it.
class CacheLease {
 public:
  CacheLease() = default;
  CacheLease(const CacheLease&) = delete;
  CacheLease& operator=(const CacheLease&) = delete;
  virtual ~CacheLease() = default;
  // Of the file, since it was taken.
  virtual u64 size() const = 0;
};

class Object {
 public:
  // Bytes moved, or where the offset is now. Called once, from within the call if that needed no
  // waiting; the call of the last one may end the object. An operation is never cancelled; its
  // buffer stays until then.
  using Done = std::move_only_function<void(Result<u64>)>;

  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  // Closes it: the last close. No operation is under way, unless the home itself ends: its callback
  // is then destroyed unrun.
  virtual ~Object() = default;

  virtual ObjectTraits traits() const = 0;
  virtual void read(Position at, std::span<std::byte> into, Done done) = 0;
  virtual void write(Position at, std::span<const std::byte> from, Done done) = 0;
  // Behind the last byte, and the offset behind that, whatever O_APPEND says.
  virtual void append(std::span<const std::byte> from, Done done) = 0;
  // lseek(2), all whences.
  virtual void seek(i64 distance, int whence, Done done) = 0;
  // Where the offset is; EIO if it has none.
  virtual Result<u64> offset() = 0;

  // --- Readiness, as poll(2) numbers it. Files are always ready.
  // Once, when one of the events is there, or an error; 0: it cannot be told, or was cancelled.
  using ReadyDone = std::move_only_function<void(u32 events)>;
  // Those of `events`, errors and hang-ups that are there.
  virtual u32 ready(u32 events) { return events; }
  // A number to cancel it by. ENOBUFS.
  virtual Result<u64> when_ready(u32 events, ReadyDone done) {
    (void)events;
    (void)done;
    return Error::of(EOPNOTSUPP, "it is always ready");
  }
  virtual void cancel_ready(u64 number) { (void)number; }

  // --- Locks. nullopt: it is nothing that has them.
  virtual std::optional<FileId> file() const { return std::nullopt; }
  // flock(2) with LOCK_NB. none: unlock.
  virtual void flock(LockMode, Done done) { done(Error::of(EOPNOTSUPP, "no locks")); }
  // `exclusive`: writes() is wanted of it.
  virtual Result<std::shared_ptr<RecordLocks>> record_locks(bool exclusive) {
    (void)exclusive;
    return Error::of(EOPNOTSUPP, "no locks");
  }

  // --- Caching. `broken`, once, from poll() of whoever made the object: somebody waits for its end
  // to write. EAGAIN: it is open for writing; EOPNOTSUPP, EACCES, ...: there is none to be had.
  virtual Result<std::unique_ptr<CacheLease>> cache_lease(std::move_only_function<void()> broken) {
    (void)broken;
    return Error::of(EOPNOTSUPP, "no leases");
  }
};

}  // namespace cob::descriptor
