// The wait: awake for a bounded time, then asleep. See waiter.h; docs/messaging.md, 6.
// Model: nothing is waited for in two ways: what has no descriptor (rings, room) is looked at
// between armed and asleep. epoll_pwait2(2). The kernel's loop.
#include "message/waiter.h"

#include <sched.h>

#include <algorithm>

#include "message/rendezvous.h"

namespace cob::message {

namespace {

void pause_core() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int wait_for(FdRef epoll, std::span<epoll_event> events, Time until, Time now) {
  constexpr i64 a_second = 1'000'000'000, a_millisecond = 1'000'000;
  const i64 ns = std::max<i64>((until - now).ns, 0);
  const timespec timeout{.tv_sec = ns / a_second, .tv_nsec = ns % a_second};
  const bool forever = until == Time::never();
  const auto most = static_cast<int>(events.size());
  const int found =
      ::epoll_pwait2(epoll.get(), events.data(), most, forever ? nullptr : &timeout, nullptr);
  if (found >= 0 || errno != ENOSYS) return found;
  // Linux before 5.11, and emulators: whole milliseconds, an hour at most.
  const i64 ms = std::min<i64>(ns / a_millisecond + (ns % a_millisecond != 0 ? 1 : 0), 3'600'000);
  return ::epoll_wait(epoll.get(), events.data(), most, forever ? -1 : static_cast<int>(ms));
}

}  // namespace

Result<std::unique_ptr<Waiter>> Waiter::create(Messenger& messenger, const WaitOptions& options) {
  static const HostClock clock;
  return create(messenger, options, clock);
}

Result<std::unique_ptr<Waiter>> Waiter::create(Messenger& messenger, const WaitOptions& options,
                                               const Clock& clock) {
  std::unique_ptr<Waiter> waiter(new Waiter(messenger, options, clock));
  waiter->own_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  waiter->peers_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!waiter->own_.valid() || !waiter->peers_.valid()) return Error::from_errno("epoll_create1");
  TRY(waiter->control(EPOLL_CTL_ADD, waiter->peers_.ref(), EPOLLIN, peers_token, "epoll_ctl"));
  TRY(messenger.watch(waiter->peers_.ref()));
  return waiter;
}

Result<void> Waiter::control(int operation, FdRef fd, u32 events, u64 token, const char* what) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = token;
  if (::epoll_ctl(own_.get(), operation, fd.get(), &event) != 0) return Error::from_errno(what);
  return {};
}

Result<void> Waiter::add(FdRef fd, u32 events, u64 token) {
  VERIFY(token != peers_token);
  return control(EPOLL_CTL_ADD, fd, events, token, "adding a descriptor to a wait");
}

Result<void> Waiter::change(FdRef fd, u32 events, u64 token) {
  VERIFY(token != peers_token);
  return control(EPOLL_CTL_MOD, fd, events, token, "changing a descriptor of a wait");
}

void Waiter::remove(FdRef fd) { (void)control(EPOLL_CTL_DEL, fd, 0, 0, ""); }

Waiter::Woke Waiter::wait(Time deadline) {
  ++counts_.waits;
  ready_count_ = 0;
  messenger_.flush();
  now_ = clock_.now();
  const Time until = std::min(deadline, messenger_.next_deadline());
  if (!came_awake(until)) {
    sleep(until);
  } else if (now_ - last_look_ >= look_interval) {  // messages without end hide no descriptor
    ++counts_.looks;
    look(now_);
  }
  return woke(until);
}

Waiter::Woke Waiter::woke(Time until) {
  if (ready_count_ > 0) return Woke::descriptor;
  if (messenger_.anything_pending()) return Woke::message;
  return now_ >= until ? Woke::deadline : Woke::other;
}

bool Waiter::came_awake(Time until) {
  const Time begin = now_;
  if (messenger_.anything_pending() || now_ >= until) return true;
  if (contention_.contested(now_)) return false;
  if (spun(std::min(until, begin + options_.spin))) return true;
  const Time yield_until = begin + options_.spin + options_.yield;
  while (now_ < std::min(until, yield_until)) {
    ++counts_.yields;
    const Time before = now_;
    ::sched_yield();
    now_ = clock_.now();
    contention_.yielded(before, now_);
    if (messenger_.anything_pending()) return true;
    if (contention_.contested(now_)) return false;
  }
  return now_ >= until;
}

bool Waiter::spun(Time until) {
  constexpr int looks_a_reading = 32;  // of the clock: a microsecond
  while (now_ < until) {
    for (int i = 0; i < looks_a_reading; ++i) {
      if (messenger_.anything_pending()) return true;
      pause_core();
    }
    now_ = clock_.now();
  }
  return false;
}

void Waiter::sleep(Time until) {
  messenger_.set_armed(true);  // ends in a full fence
  if (!messenger_.anything_pending()) {
    ++counts_.sleeps;
    look(until);
  }
  messenger_.set_armed(false);
}

void Waiter::look(Time until) {
  std::array<epoll_event, most_ready> events;
  const int found = wait_for(own_.ref(), events, until, now_);
  for (int i = 0; i < found; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.u64 == peers_token) {
      hear();
    } else {
      ready_[ready_count_++] = {.token = event.data.u64, .events = event.events};
    }
  }
  now_ = last_look_ = clock_.now();
}

// Takes the edges; what is level-triggered stays until it is seen to.
void Waiter::hear() {
  std::array<epoll_event, most_ready> events;
  const int found = ::epoll_wait(peers_.get(), events.data(), most_ready, 0);
  for (int i = 0; i < found; ++i) {
    const u64 data = events[static_cast<std::size_t>(i)].data.u64;
    if (is_bell_event(data)) messenger_.heard(KernelId(static_cast<u16>(data)));
  }
}

}  // namespace cob::message
