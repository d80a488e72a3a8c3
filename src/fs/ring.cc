// Set-up, entries and completions of the io_uring, through liburing. io_uring_setup(2),
// io_uring_register(2).
#include "fs/ring.h"

#include <liburing.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <utility>

namespace cob::fs {
namespace {

constexpr u64 nobody = 0;                    // user_data of cancellations
constexpr unsigned max_kernel_threads = 16;  // of io_uring's own workers, a kind

u64 user_data(u32 index, u32 generation) { return u64{generation} << 32 | index; }

const char* refusal(int code) {
  switch (code) {
    case EPERM:
      return "io_uring is not permitted here (kernel.io_uring_disabled, or a seccomp profile)";
    case ENOSYS:
      return "this Linux has no io_uring";
    default:
      return "io_uring_setup";
  }
}

}  // namespace

Ring::Ring() : ring_(std::make_unique<io_uring>()) {}

Result<std::unique_ptr<Ring>> Ring::create(const Options& options) {
  std::unique_ptr<Ring> ring(new Ring);
  TRY(ring->set_up(options));
  return ring;
}

Result<void> Ring::set_up(const Options& options) {
  capacity_ = options.capacity;
  own_ = Credentials::own();
  event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event_.valid()) return Error::from_errno("eventfd");
  workers_ = std::make_unique<Workers>(event_.ref());

  io_uring_params params{};
  params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG;
  params.cq_entries = 2 * capacity_;  // cancellations complete too
  const unsigned entries = std::min(capacity_, 256U);
  int code = ::io_uring_queue_init_params(entries, ring_.get(), &params);
  deferred_ = code == 0;
  if (code == -EINVAL) {  // before Linux 6.1
    params = {};
    params.flags = IORING_SETUP_CQSIZE;
    params.cq_entries = 2 * capacity_;
    code = ::io_uring_queue_init_params(entries, ring_.get(), &params);
  }
  if (code < 0) return Error::of(-code, refusal(-code));
  ring_made_ = true;
  if (const int made = ::io_uring_register_eventfd(ring_.get(), event_.get()); made < 0)
    return Error::of(-made, "io_uring_register_eventfd");
  std::array<unsigned, 2> threads{max_kernel_threads, max_kernel_threads};
  (void)::io_uring_register_iowq_max_workers(ring_.get(), threads.data());  // Linux 5.15

  operations_.resize(capacity_);
  for (u32 i = 0; i < capacity_; ++i) operations_[i].next_free = i + 1;
  return {};
}

Ring::~Ring() {
  workers_.reset();
  if (!ring_made_) return;
  for (u32 i = 0; i < capacity_; ++i) {
    if (operations_[i].used) cancel({.index = i, .generation = operations_[i].generation});
  }
  submit();
  while (under_way_ > 0) {
    io_uring_cqe* cqe = nullptr;
    if (::io_uring_wait_cqe(ring_.get(), &cqe) != 0) continue;
    if (cqe->user_data != nobody) --under_way_;
    ::io_uring_cqe_seen(ring_.get(), cqe);
  }
  ::io_uring_queue_exit(ring_.get());
}

Who Ring::who(const Credentials& credentials) const {
  return credentials == own_ ? nullptr : std::make_shared<const Credentials>(credentials);
}

Result<void> Ring::admit(const Who& who) {
  if (who != nullptr) (void)TRY(personality(*who));
  return {};
}

Result<u16> Ring::personality(const Credentials& credentials) {
  const auto found =
      std::find_if(personalities_.begin(), personalities_.end(),
                   [&](const Personality& p) { return p.credentials == credentials; });
  if (found != personalities_.end()) {
    personalities_.splice(personalities_.begin(), personalities_, found);
    return found->id;
  }
  ThreadCredentials thread;
  TRY(thread.take(credentials));
  const int id = ::io_uring_register_personality(ring_.get());
  thread.restore();
  if (id < 0) return Error::of(-id, "io_uring_register_personality");
  if (personalities_.size() == max_personalities) {
    submit();  // entries name personalities until then
    (void)::io_uring_unregister_personality(ring_.get(), personalities_.back().id);
    personalities_.pop_back();
  }
  personalities_.push_front({.credentials = credentials, .id = static_cast<u16>(id)});
  return static_cast<u16>(id);
}

io_uring_sqe* Ring::next_entry() {
  io_uring_sqe* sqe = ::io_uring_get_sqe(ring_.get());
  if (sqe == nullptr) {
    submit();
    sqe = ::io_uring_get_sqe(ring_.get());
  }
  return sqe;
}

Result<io_uring_sqe*> Ring::take(const Who& who) {
  if (under_way_ == capacity_) return Error::of(ENOBUFS, "too many operations are under way");
  const u16 id = who != nullptr ? TRY(personality(*who)) : u16{0};
  io_uring_sqe* sqe = next_entry();
  if (sqe == nullptr) return Error::of(ENOBUFS, "the host takes no more operations now");
  // The preparing functions clear all else, so this is set again by place().
  pending_personality_ = id;
  return sqe;
}

OperationId Ring::place(io_uring_sqe* sqe, Done&& done) {
  const u32 index = free_;
  Operation& operation = operations_[index];
  free_ = operation.next_free;
  operation.done = std::move(done);
  operation.used = true;
  ++under_way_;
  ++unsubmitted_;
  sqe->personality = pending_personality_;
  ::io_uring_sqe_set_data64(sqe, user_data(index, operation.generation));
  return {.index = index, .generation = operation.generation};
}

Result<OperationId> Ring::when_ready(FdRef fd, u32 events, Done&& done) {
  const OperationId id = TRY(start(
      nullptr, [&](io_uring_sqe* sqe) { ::io_uring_prep_poll_add(sqe, fd.get(), events); },
      std::move(done)));
  operations_[id.index].awaits_event = true;
  ++awaited_;
  return id;
}

void Ring::cancel(OperationId id) {
  if (!is_under_way(id)) return;
  io_uring_sqe* sqe = next_entry();
  if (sqe == nullptr) return;
  ::io_uring_prep_cancel64(sqe, user_data(id.index, id.generation), 0);
  ::io_uring_sqe_set_data64(sqe, nobody);
  ++unsubmitted_;
}

void Ring::submit() {
  if (unsubmitted_ == 0) return;
  // Refused (EAGAIN, EBUSY): the entries stay for the next time.
  const int taken = ::io_uring_submit(ring_.get());
  if (taken > 0) unsubmitted_ -= std::min(unsubmitted_, static_cast<u32>(taken));
}

std::size_t Ring::poll() {
  std::size_t ran = workers_->poll();
  if (under_way_ == 0) {
    submit();
    return ran;
  }
  submit();
  if (deferred_ && ::io_uring_cq_ready(ring_.get()) == 0 &&
      (__atomic_load_n(ring_->sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) != 0) {
    (void)::io_uring_get_events(ring_.get());
  }
  ran += reap();
  return ran;
}

std::size_t Ring::reap() {
  // Those that were there at the beginning: what callbacks start ends another time.
  u32 left = ::io_uring_cq_ready(ring_.get());
  std::size_t ran = 0;
  for (; left > 0; --left) {
    io_uring_cqe* cqe = nullptr;
    if (::io_uring_peek_cqe(ring_.get(), &cqe) != 0) break;
    const u64 data = cqe->user_data;
    const i32 result = cqe->res;
    ::io_uring_cqe_seen(ring_.get(), cqe);
    if (data == nobody) continue;
    const u32 index = static_cast<u32>(data);
    Operation& operation = operations_[index];
    VERIFY(operation.used && operation.generation == static_cast<u32>(data >> 32));
    Done done = std::move(operation.done);
    operation.used = false;
    if (++operation.generation == 0) operation.generation = 1;
    operation.next_free = free_;
    free_ = index;
    --under_way_;
    if (std::exchange(operation.awaits_event, false)) --awaited_;
    done(result);
    ++ran;
  }
  return ran;
}

void Ring::set_armed(bool armed) {
  workers_->set_armed(armed);
  (void)::io_uring_cq_eventfd_toggle(ring_.get(), armed);
  // Enabled, then looked: what ends after the look is told by the event.
  if (armed) __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool Ring::anything_pending() const {
  return workers_->anything_pending() || ::io_uring_cq_ready(ring_.get()) > 0 ||
         (__atomic_load_n(ring_->sq.kflags, __ATOMIC_RELAXED) &
          (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

}  // namespace cob::fs
