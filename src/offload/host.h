// Host: the side that has work: buffers, launches and their futures on one island.
// Model: whatever is asked for is a request to the island, answered in order; a launch that waits
// for others is sent when those have ended well. Where host and island share memory a buffer is in
// it once; elsewhere either side has a copy, and what one of them lacks is moved when it is needed.
// Owned by one thread, whose waits let the loop turn.
#pragma once

#include <deque>
#include <initializer_list>
#include <memory>
#include <vector>

#include "message/messenger.h"
#include "offload/arena.h"
#include "offload/policy.h"
#include "offload/task.h"

namespace cob::offload {

// What the host's thread does while it waits: lets messages flow, may sleep until something comes.
class Turning {
 public:
  virtual ~Turning() = default;
  virtual void turn() = 0;
  // The least of it, for a wait that will be short: publishes, and delivers what is there.
  virtual void glance() = 0;
};

namespace detail {

struct Memory {  // a buffer's
  u32 handle = 0;
  u32 element = 1;
  u64 bytes = 0;
  u64 offset = no_offset;        // in the arena
  std::byte* data = nullptr;     // the host's bytes
  std::vector<std::byte> own{};  // of a buffer that is copied
  bool host_has = true;          // the latest bytes; both may
  bool island_has = true;
  bool owned = true;  // a Buffer has it
  u32 users = 0;      // launches under way
  u32 writers = 0;    // those of them that write
  Error error{};      // its bytes are lost: of a copy that failed
};

struct Outcome {  // of a launch
  u32 references = 0;
  bool done = false;
  Error error{};
  u64 items = 0;
  u32 buffers = 0;
  std::array<Memory*, max_buffers> memories{};
  std::array<Use, max_buffers> uses{};
};

}  // namespace detail

class Host;

// The end of a launch, to be waited for; copies are of the same one. Not beyond its Host's life.
class Future {
 public:
  Future() = default;
  Future(const Future& other) noexcept;
  Future(Future&& other) noexcept
      : host_(other.host_), outcome_(std::exchange(other.outcome_, nullptr)) {}
  Future& operator=(Future other) noexcept {
    std::swap(host_, other.host_);
    std::swap(outcome_, other.outcome_);
    return *this;
  }
  ~Future();

  bool valid() const { return outcome_ != nullptr; }
  bool done() const { return outcome_->done; }
  // Lets the loop turn until the launch has ended. ECONNRESET, EHOSTDOWN: the island ended;
  // ECANCELED: a launch before it failed; what the island refused. REQUIRES: valid().
  Result<void> wait();

 private:
  friend class Host;
  Future(Host* host, detail::Outcome* outcome);
  Host* host_ = nullptr;
  detail::Outcome* outcome_ = nullptr;
};

// Elements that tasks on the island use, and the host between them. Not beyond its Host's life.
template <detail::Element T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : host_(other.host_), memory_(std::exchange(other.memory_, nullptr)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(host_, other.host_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  bool valid() const { return memory_ != nullptr; }
  u64 size() const { return memory_->bytes / sizeof(T); }
  // The elements, when launches that write them have ended; fetched if only the island has them.
  // The error of the island, if it took them with it. Valid until the next launch that writes them.
  Result<std::span<const T>> read() const;
  // To change them, when no launch uses them any more. The next launch that needs them has them.
  Result<std::span<T>> write();
  // Likewise, where all of them will be written: nothing is fetched.
  Result<std::span<T>> overwrite();

 private:
  friend class Host;
  Buffer(Host* host, detail::Memory* memory) : host_(host), memory_(memory) {}
  Host* host_ = nullptr;
  detail::Memory* memory_ = nullptr;
};

namespace detail {

template <typename A>
struct Argument {
  using Type = A;
};
template <typename T>
struct Argument<In<T>> {
  using Type = const Buffer<T>&;
};
template <typename T>
struct Argument<Out<T>> {
  using Type = Buffer<T>&;
};
template <typename T>
struct Argument<InOut<T>> {
  using Type = Buffer<T>&;
};

}  // namespace detail

// A task that the island has, and what its runs have cost so far. Of Host::find().
template <typename... A>
struct Bound {
  u32 task = 0;
  const TaskSet::Entry* home = nullptr;  // nullptr: the host cannot run it itself
  std::unique_ptr<CostModel> costs = nullptr;
};

struct LaunchOptions {
  Range range{};
  std::span<const Future> after = {};
};

class Host {
 public:
  static constexpr std::size_t most_deferred = 4'096;  // launches that wait for others; then EAGAIN

  struct Counts {
    u64 away = 0, home = 0, both = 0;  // of run(): where
    u64 uploaded = 0, fetched = 0;     // bytes
  };

  // Before the first link is opened: what it will say and understand.
  static void know(message::Messenger& messenger);
  // Greets the island. `tasks`, for runs at home, and the others outlive it. ENETDOWN,
  // EPROTONOSUPPORT.
  static Result<std::unique_ptr<Host>> create(message::Messenger& messenger, KernelId island,
                                              const TaskSet& tasks, Turning& turning,
                                              Arena arena = {});
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  bool connected() const { return messenger_.connected(island_); }
  u32 workers() const { return island_workers_ + 1; }  // the island's and, last, the host
  bool shares_memory() const { return arena_.valid(); }
  bool shares_addresses() const { return same_addresses_; }
  const Arena& arena() const { return arena_; }
  const Counts& counts() const { return counts_; }

  // ENOENT, EPROTOTYPE: the island has no such task.
  template <typename... A>
  Result<Bound<A...>> find(const Task<A...>& task) {
    Bound<A...> bound;
    bound.task = TRY(find(task.name, task.signature));
    const auto home = tasks_.find(task.name, task.signature);
    if (home) bound.home = tasks_.at(home.value());
    bound.costs = std::make_unique<CostModel>();
    return bound;
  }
  // Zeroed. ENOMEM, ENOSPC: the arena or the island has no room.
  template <detail::Element T>
  Result<Buffer<T>> buffer(u64 elements) {
    if (elements == 0 || elements > max_arena_bytes / sizeof(T))
      return Error::of(EINVAL, "a buffer has 1 element or more");
    return Buffer<T>(this, TRY(allocate(elements * sizeof(T), sizeof(T))));
  }

  // Starts a task on the island, when all of `after` have ended well. It returns at once, unless
  // bytes have to be moved first or much is under way.
  template <typename... A>
  Future launch(const Bound<A...>& task, const LaunchOptions& options,
                typename detail::Argument<A>::Type... arguments) {
    Request request;
    request.gather<A...>(task.task, options.range, arguments...);
    return submit(request, options.after);
  }
  // Runs a task where that is fastest, and waits for it. Without an island: at home. ENETDOWN: the
  // host cannot run it itself.
  template <typename... A>
  Result<void> run(const Bound<A...>& task, const Range& range,
                   typename detail::Argument<A>::Type... arguments) {
    Request request;
    request.gather<A...>(task.task, range, arguments...);
    return run(request, task.home, *task.costs);
  }
  // Runs it there, whatever that costs. EOPNOTSUPP: both, without shared memory.
  template <typename... A>
  Result<void> run_at(Where where, const Bound<A...>& task, const Range& range,
                      typename detail::Argument<A>::Type... arguments) {
    Request request;
    request.gather<A...>(task.task, range, arguments...);
    return run_at(where, request, task.home);
  }

  // For what builds on it (parallel_for).
  struct Request {
    Launch launch{};
    u32 buffers = 0;
    std::size_t tail_bytes = 0;
    std::array<detail::Memory*, max_buffers> memories;
    std::array<Use, max_buffers> uses;
    std::array<std::byte, Launch::max_tail> tail;

    template <typename... A>
    void gather(u32 task, const Range& range, const typename detail::Argument<A>::Type&... all) {
      launch = {.begin = range.begin,
                .end = range.end,
                .grain = range.grain,
                .task = task,
                .buffers = static_cast<u16>(Task<A...>::buffers),
                .ticket = no_ticket};
      tail_bytes = Task<A...>::buffers * std::size_t{4};
      (add<A>(all), ...);
    }
    Range range() const { return {launch.begin, launch.end, launch.grain}; }
    std::span<const std::byte> arguments() const {
      return std::span<const std::byte>(tail).subspan(buffers * std::size_t{4},
                                                      tail_bytes - buffers * std::size_t{4});
    }

   private:
    template <typename A, typename Value>
    void add(const Value& value) {
      if constexpr (detail::Parameter<A>::is_buffer) {
        memories[buffers] = value.memory_;
        uses[buffers] = detail::Parameter<A>::use;
        const le<u32> handle = value.memory_->handle;
        std::memcpy(tail.data() + std::size_t{buffers++} * 4, &handle, 4);
      } else {
        const A ordered = detail::in_messages(static_cast<A>(value));
        std::memcpy(tail.data() + tail_bytes, &ordered, sizeof ordered);
        tail_bytes += sizeof ordered;
      }
    }
  };
  Result<u32> find(std::string_view name, u64 signature);
  Future submit(Request& request, std::span<const Future> after);
  // The island's number of this program's loop; asked once.
  Result<u32> loop_task(u32 loop, std::string_view name);
  Result<void> run(Request& request, const TaskSet::Entry* home, CostModel& costs);
  Result<void> run_at(Where where, Request& request, const TaskSet::Entry* home);

 private:
  friend class Future;
  template <detail::Element T>
  friend class Buffer;

  struct Deferred {
    detail::Outcome* outcome;
    std::vector<Future> after;
    Request request;
  };

  Host(message::Messenger& messenger, KernelId island, const TaskSet& tasks, Turning& turning,
       Arena arena)
      : messenger_(messenger),
        island_(island),
        tasks_(tasks),
        turning_(turning),
        arena_(std::move(arena)) {}
  Result<void> greet();
  Result<detail::Memory*> allocate(u64 bytes, u32 element);
  void drop(detail::Memory* memory);
  void destroy(detail::Memory* memory);
  void drop(detail::Outcome* outcome);
  detail::Outcome* new_outcome();

  void turn();
  template <typename Done>
  void turn_until(Done done);
  bool advance();
  Result<void> bring(detail::Memory& memory);  // to the island
  Result<void> fetch(detail::Memory& memory);  // from there
  Result<void> bring_all(const Request& request);
  Result<void> send(detail::Outcome* outcome, const Request& request);
  void hold(detail::Outcome* outcome, const Request& request);
  void finish(detail::Outcome* outcome, const Error& error, u64 items);
  void wait(const detail::Outcome& outcome);
  Result<void> wait_to_read(detail::Memory& memory);
  Result<void> wait_to_write(detail::Memory& memory, bool keep);
  u64 work_at_home(const Request& request, const TaskSet::Entry& home, std::atomic<u64>* ticket);
  Result<void> at_home(Request& request, const TaskSet::Entry& home);
  Result<void> at_both(Request& request, const TaskSet::Entry& home);
  double transfer_ns(const Request& request) const;

  message::Messenger& messenger_;
  KernelId island_;
  const TaskSet& tasks_;
  Turning& turning_;
  Arena arena_;
  u32 island_workers_ = 0;
  bool same_addresses_ = false;
  u32 next_ticket_ = 0;
  std::vector<detail::Outcome*> spare_;
  std::deque<Deferred> deferred_;
  double ns_a_byte_ = 0.5;  // to the island; smoothed
  Counts counts_;
  std::vector<i64> loops_;  // by loop: the island's task, -1: not asked, below: an error
};

template <typename Done>
void Host::turn_until(Done done) {
  constexpr int glances = 2'000;  // some 20 us
  for (int i = 0; i < glances; ++i) {
    if (done()) return;
    turning_.glance();
  }
  while (!done()) turn();
}

template <detail::Element T>
Buffer<T>::~Buffer() {
  if (memory_ != nullptr) host_->drop(memory_);
}
template <detail::Element T>
Result<std::span<const T>> Buffer<T>::read() const {
  TRY(host_->wait_to_read(*memory_));
  return std::span<const T>(reinterpret_cast<const T*>(memory_->data), size());
}
template <detail::Element T>
Result<std::span<T>> Buffer<T>::write() {
  TRY(host_->wait_to_write(*memory_, true));
  return std::span<T>(reinterpret_cast<T*>(memory_->data), size());
}
template <detail::Element T>
Result<std::span<T>> Buffer<T>::overwrite() {
  TRY(host_->wait_to_write(*memory_, false));
  return std::span<T>(reinterpret_cast<T*>(memory_->data), size());
}

}  // namespace cob::offload
