// Ring: what a kernel asks of the host without waiting: an io_uring, and Workers for the rest.
// io_uring(7), decision 0005.
// Model: start() queues, submit() hands over, poll() runs what has ended; a fixed table of
// operations under way; personalities by credentials, the least recently used go first. Owned by
// the kernel's loop, and used from the thread that made it alone.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "fs/credentials.h"
#include "fs/workers.h"

struct io_uring;
struct io_uring_sqe;

namespace cob::fs {

// Names an operation under way, to cancel it by.
struct OperationId {
  u32 index = 0;
  u32 generation = 0;  // 0: names nothing
};

class Ring {
 public:
  struct Options {
    u32 capacity = 1'024;  // operations under way: then ENOBUFS
  };
  static constexpr u32 max_personalities = 64;

  // What the operation's completion says: >= 0, or -errno. Once, from poll().
  using Done = std::move_only_function<void(i32 result)>;

  // EPERM, ENOSYS: io_uring is not permitted, or unknown, here; ENOMEM, EMFILE.
  static Result<std::unique_ptr<Ring>> create(const Options& options);
  static Result<std::unique_ptr<Ring>> create() { return create(Options{}); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  // Cancels what waits for an event, waits for the rest; callbacks not yet run are dropped then, so
  // what they keep (buffers) outlives the operations.
  ~Ring();

  // `prepare(io_uring_sqe*)` fills in the operation: memory that it names stays until `done` ran.
  // ENOBUFS: too many are under way; EACCES: the kernel may not act for `who`. `done` is then left
  // as it was.
  template <typename Prepare>
  Result<OperationId> start(const Who& who, Prepare&& prepare, Done&& done) {
    io_uring_sqe* sqe = TRY(take(who));
    prepare(sqe);
    return place(sqe, std::move(done));
  }
  // poll(2): `done` with the events, once there is one of `events`.
  Result<OperationId> when_ready(FdRef fd, u32 events, Done&& done);
  // Its `done` still runs, with -ECANCELED if this came in time. Nothing if it has ended.
  void cancel(OperationId id);
  bool is_under_way(OperationId id) const {
    return id.generation != 0 && id.index < capacity_ && operations_[id.index].used &&
           operations_[id.index].generation == id.generation;
  }

  // Hands over what was started; what needs no waiting ends at once, for the next poll().
  void submit();
  // submit(), then runs what has ended; how many.
  std::size_t poll();
  u32 under_way() const { return under_way_; }
  // Something is under way that does not wait for an event.
  bool works() const { return under_way_ > awaited_; }

  // Before sleeping: submit(), set_armed(true), then anything_pending(); event() is then written
  // when something ends. For an epoll set, edge-triggered; never read.
  FdRef event() const { return event_.ref(); }
  void set_armed(bool armed);
  bool anything_pending() const;

  Workers& workers() { return *workers_; }

  // The thread's own credentials when this was made.
  const Credentials& own() const { return own_; }
  // Empty if `credentials` are the kernel's own.
  Who who(const Credentials& credentials) const;
  // Whether the kernel may act for `who`: EACCES. Registers it.
  Result<void> admit(const Who& who);
  u32 personalities() const { return static_cast<u32>(personalities_.size()); }

 private:
  struct Operation {
    Done done;
    u32 generation = 1;
    u32 next_free = 0;
    bool used = false;
    bool awaits_event = false;
  };
  struct Personality {
    Credentials credentials;
    u16 id = 0;
  };

  Ring();
  Result<void> set_up(const Options& options);
  Result<u16> personality(const Credentials& credentials);
  // An entry, with the personality.
  Result<io_uring_sqe*> take(const Who& who);
  io_uring_sqe* next_entry();
  OperationId place(io_uring_sqe* sqe, Done&& done);
  std::size_t reap();

  Fd event_;
  std::unique_ptr<io_uring> ring_;
  bool ring_made_ = false;
  bool deferred_ = false;  // completions are made only when asked for
  u32 capacity_ = 0;
  u32 under_way_ = 0;
  u32 awaited_ = 0;  // of them, by when_ready()
  u32 free_ = 0;
  u32 unsubmitted_ = 0;
  u16 pending_personality_ = 0;  // of the entry that is being prepared
  std::vector<Operation> operations_;
  Credentials own_;
  std::list<Personality> personalities_;  // the latest used first
  std::unique_ptr<Workers> workers_;
};

}  // namespace cob::fs
