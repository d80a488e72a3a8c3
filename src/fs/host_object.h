// HostObject: a description whose state is a descriptor of the host. read(2), preadv2(2), lseek(2).
// Model: first the call that cannot wait, on the loop; else the ring, or a worker where the
// offset's lock or an append's atomicity is needed. Its opener's credentials go with what the host
// judges by them (set-id bits, quotas). The shared O_NONBLOCK is never touched: another program may
// have the description too. Owned by the home's table; the kernel's loop. SIGPIPE must be ignored.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "descriptor/object.h"
#include "fs/host_leases.h"
#include "fs/ring.h"
#include "fs/status.h"

namespace cob::fs {

class HostObject final : public descriptor::Object {
 public:
  enum class Kind : u8 { file, directory, pipe, socket, terminal, device };
  template <typename T>
  using Answer = std::move_only_function<void(Result<T>)>;
  // nullopt: at the object's own offset.
  struct Range {
    descriptor::Position from;
    descriptor::Position to;
    u64 bytes = 0;
  };

  // `who` opened it; empty: the kernel's own user. `ring` outlives it.
  static Result<std::unique_ptr<HostObject>> create(Fd fd, Ring& ring, Who who = {});
  // What its opener knows of it; nobody else has it.
  struct Fresh {
    u32 mode = 0;
    descriptor::FileId id;
    Waits waits;
    int flags = 0;             // as F_GETFL would tell them,
    bool nonblocking = false;  // but for an O_NONBLOCK that is set and does not count
  };
  static Result<std::unique_ptr<HostObject>> create(Fd fd, Ring& ring, Who who, const Fresh& fresh);
  // Operations of when_ready() are cancelled.
  ~HostObject() override;

  descriptor::ObjectTraits traits() const override;
  // EAGAIN: it would wait for an event. EISDIR, EBADF, ESPIPE, ... as the host says.
  void read(descriptor::Position at, std::span<std::byte> into, Done done) override;
  // Also EPIPE, ENOSPC, EFBIG, EDQUOT; what the host does in part is done in part.
  void write(descriptor::Position at, std::span<const std::byte> from, Done done) override;
  void append(std::span<const std::byte> from, Done done) override;
  void seek(i64 distance, int whence, Done done) override;
  Result<u64> offset() override;
  // --- Readiness. Files and directories are always ready. when_ready()'s `done` runs with 0 after
  // cancel_ready() or the object's end.
  u32 ready(u32 events) override;
  Result<u64> when_ready(u32 events, ReadyDone done) override;
  void cancel_ready(u64 number) override;
  // Reads and writes may wait for events: pipes, terminals, sockets, devices.
  bool is_stream() const { return kind_ != Kind::file && kind_ != Kind::directory; }
  // It was given by a program, not found in a share.
  bool is_passed() const { return passed_; }
  void set_passed() { passed_ = true; }
  // --- Locks (host_locks.cc). Those of sockets are nobody's.
  std::optional<descriptor::FileId> file() const override;
  void flock(descriptor::LockMode mode, Done done) override;
  Result<std::shared_ptr<descriptor::RecordLocks>> record_locks(bool exclusive) override;
  // --- Caching. `leases` outlives the object; without, there is none.
  void use_leases(HostLeases* leases) { leases_ = leases; }
  Result<std::unique_ptr<descriptor::CacheLease>> cache_lease(
      std::move_only_function<void()> broken) override;

  // --- What `Control` asks for (host_control.cc). Buffers stay until `done` ran; numbers are those
  // of open_flags.h and status.h.
  void status(Answer<Status> done);
  void truncate(u64 bytes, Done done);
  void allocate(u32 mode, u64 offset, u64 bytes, Done done);  // fallocate(2)
  void sync(bool data_only, Done done);
  Result<u32> flags() const;
  // fcntl(F_SETFL): O_APPEND, O_ASYNC, O_DIRECT, O_NOATIME and O_NONBLOCK become what they are in
  // `flags`.
  Result<void> set_flags(u32 flags);
  // Packed entries (entries.h) from `at` or the directory's position on, which moves; 0: no more.
  // EINVAL: fewer bytes than min_entries_bytes.
  void entries(descriptor::Position at, std::span<std::byte> into, Done done);
  // A request of terminal.h: what it reads of `in`, what it writes to `into`; bytes of that.
  // ENOTTY: it is no terminal, or no such request.
  void terminal(u32 request, std::span<const std::byte> in, std::span<std::byte> into, Done done);
  void change_mode(u32 mode, Done done);
  void change_owner(u32 uid, u32 gid, Done done);  // ~0: stays
  // Sizes as of getxattr(2): with an empty buffer how much there is; ERANGE: too little room.
  void get_attribute(std::string name, std::span<std::byte> into, Done done);
  void list_attributes(std::span<std::byte> into, Done done);
  void set_attribute(std::string name, std::span<const std::byte> value, u32 flags, Done done);
  void remove_attribute(std::string name, Done done);
  // copy_file_range(2); at most max_copy_bytes are. REQUIRES: `to` lives until `done` ran.
  static constexpr u64 max_copy_bytes = 16 << 20;
  void copy_range(HostObject& to, const Range& range, Done done);

  Kind kind() const { return kind_; }
  Waits waits() const { return waits_; }
  FdRef fd() const { return fd_.ref(); }
  Ring& ring() { return ring_; }

 private:
  using Call = std::move_only_function<Result<u64>()>;

  HostObject(Fd fd, Ring& ring, Who who, Kind kind, const Fresh& known)
      : fd_(std::move(fd)),
        ring_(ring),
        who_(std::move(who)),
        kind_(kind),
        id_(known.id),
        waits_(known.waits) {}

  // The host may make a write wait, or must judge it by other credentials than the loop's.
  bool may_wait() const { return waits_.for_storage || who_ != nullptr; }
  int host_flags() const;
  bool appends() const;
  // Before anything that looks at O_NONBLOCK.
  void settle();
  void find_offset();
  u32 stream_events(u32 events) const;
  bool awaits_writer() const;
  Result<u64> read_stream(descriptor::Position at, std::span<std::byte> into);
  Result<u64> write_stream(descriptor::Position at, std::span<const std::byte> from);
  // `before` bytes of the operation are done already.
  template <typename Prepare>
  void by_ring(Prepare prepare, u64 before, Done done);
  void by_worker(Call call, u64 before, Done done);
  // On the loop if it cannot wait.
  void here_or_by_worker(Call call, Done done);
  void end(const Result<u64>& result, u64 before, Done& done);

  Fd fd_;
  Fd twin_;  // of a pipe or terminal: the same, opened anew with O_NONBLOCK
  Ring& ring_;
  Who who_;
  Kind kind_;
  descriptor::FileId id_;
  Waits waits_;
  bool seekable_ = false;
  bool at_start_ = false;     // seekable, and nothing has moved its offset
  bool nonblocking_ = false;  // O_NONBLOCK is set, and does not count
  int flags_ = -1;            // the host's, as far as only set_flags() changes them; -1: ask it
  bool passed_ = false;
  bool reads_without_waiting_ = true;  // the filesystem knows RWF_NOWAIT
  bool writes_without_waiting_ = true;
  u32 under_way_ = 0;
  std::vector<OperationId> watches_;
  HostLeases* leases_ = nullptr;
};

}  // namespace cob::fs
