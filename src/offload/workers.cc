// Fork and join of workers.h. Idle workers spin, then sleep on the state's low half.
// Entering is a compare-and-swap on an open state, so that nobody is inside what is closed, and a
// closer that sees nobody inside has the job's fields for itself. std::atomic wait, sched(7).
#include "offload/workers.h"

#include <sched.h>

#include "base/clock.h"

namespace cob::offload {

namespace {

constexpr Duration spin = Duration::microseconds(50);
constexpr int looks_a_reading = 64;

void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

void pin_to(int core) {
  if (core < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(core), &set);
  (void)::sched_setaffinity(0, sizeof set, &set);  // a core that is gone: anywhere
}

u64 work_through(const Parts& parts, std::atomic<u64>& ticket, const Part& who,
                 const std::function<void(const Part&)>& body) {
  u64 done = 0;
  for (;;) {
    const u64 number = ticket.fetch_add(1, std::memory_order_relaxed);
    if (number >= parts.count) return done;
    Part part = parts.at(number);
    part.worker = who.worker;
    part.workers = who.workers;
    body(part);
    done += part.end - part.begin;
  }
}

Workers::Workers(std::vector<int> cores) {
  const u32 workers = cores.empty() ? 1 : static_cast<u32>(cores.size());
  for (std::size_t i = 1; i < cores.size(); ++i) {
    threads_.emplace_back([this, core = cores[i], i, workers] {
      pin_to(core);
      live(static_cast<u32>(i), workers);
    });
  }
}

Workers::~Workers() {
  ending_.store(true);
  state_.fetch_add(2 * turn);
  state_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

u64 Workers::run(const Parts& parts, std::atomic<u64>& ticket,
                 const std::function<void(const Part&)>& body) {
  const Part self{.worker = 0, .workers = count()};
  if (threads_.empty() || parts.count <= 1) return work_through(parts, ticket, self, body);
  parts_ = &parts;
  open_ticket_ = &ticket;
  body_ = &body;
  done_.store(0, std::memory_order_relaxed);
  state_.fetch_add(turn);  // open
  if (sleepers_.load() > 0) state_.notify_all();
  const u64 mine = work_through(parts, ticket, self, body);
  state_.fetch_add(turn);  // closed
  for (int looks = 0; (state_.load(std::memory_order_acquire) & inside) != 0; ++looks) {
    if (looks < 2'000) {
      pause_core();
    } else {
      ::sched_yield();
    }
  }
  return mine + done_.load(std::memory_order_relaxed);
}

bool Workers::enter(u64& seen) {
  u64 state = state_.load(std::memory_order_acquire);
  while (state / turn % 2 == 1 && state / turn != seen) {
    if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) continue;
    seen = state / turn;
    return true;
  }
  return false;
}

void Workers::live(u32 worker, u32 workers) {
  const Part self{.worker = worker, .workers = workers};
  u64 seen = 0;
  while (!ending_.load(std::memory_order_relaxed)) {
    if (enter(seen)) {
      const u64 done = work_through(*parts_, *open_ticket_, self, *body_);
      done_.fetch_add(done, std::memory_order_relaxed);
      state_.fetch_sub(1, std::memory_order_release);
    } else {
      wait_for_work(seen);
    }
  }
}

void Workers::wait_for_work(u64 seen) {
  const auto something = [&](u64 state) {
    return (state / turn % 2 == 1 && state / turn != seen) || ending_.load();
  };
  const Time until = HostClock::read() + spin;
  do {
    for (int i = 0; i < looks_a_reading; ++i) {
      if (something(state_.load(std::memory_order_acquire))) return;
      pause_core();
    }
  } while (HostClock::read() < until);
  sleepers_.fetch_add(1);
  const u64 state = state_.load();
  if (!something(state)) state_.wait(state);
  sleepers_.fetch_sub(1);
}

}  // namespace cob::offload
