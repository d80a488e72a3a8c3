// Waiter: one wait for everything that a messenger's loop may wait for: messages, room, peers that
// come and go, deadlines, and descriptors of the caller's own.
// Model: spin, then yield and time it, then arm and sleep (docs/messaging.md, 6); on a contested
// core sleep at once. The caller's descriptors are an epoll set, what wakes the messenger another
// within it. epoll(7), sched_yield(2). Owned by the kernel's loop.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <memory>
#include <span>

#include "base/contention.h"
#include "base/fd.h"
#include "message/messenger.h"

namespace cob::message {

struct WaitOptions {
  // A round trip between two cores takes 0.1 us, a wake-up 15 us and more: what is spun is seldom
  // lost.
  Duration spin = Duration::microseconds(20);
  Duration yield = Duration::microseconds(130);  // after that
  // A yield that took longer met a computing neighbour.
  Duration long_yield = Duration::microseconds(300);
};

class Waiter {
 public:
  // Busy loops look at descriptors once in this time.
  static constexpr Duration look_interval = Duration::microseconds(100);
  static constexpr std::size_t most_ready = 32;  // of one wait; the others come with the next

  enum class Woke {
    message,     // poll() has something to do
    descriptor,  // ready() is not empty
    deadline,    // the caller's, or the messenger's own
    other,       // a peer came or went, or a signal handler ran
  };
  struct Ready {
    u64 token = 0;
    u32 events = 0;  // EPOLLIN ...
  };
  struct Counts {
    u64 waits = 0;
    u64 yields = 0;
    u64 sleeps = 0;  // with the doorbells armed
    u64 looks = 0;   // at descriptors, without sleeping
  };

  // Watches `messenger`, which must outlive it and is not polled after its end. EMFILE, ENFILE,
  // ENOMEM.
  static Result<std::unique_ptr<Waiter>> create(Messenger& messenger,
                                                const WaitOptions& options = {});
  static Result<std::unique_ptr<Waiter>> create(Messenger& messenger, const WaitOptions& options,
                                                const Clock& clock);

  // For Rendezvous::watch(), and for bells (edge-triggered) of links opened by hand.
  FdRef epoll() const { return peers_.ref(); }
  // `events`: EPOLLIN ...; `token` comes back in ready(), is the caller's, and not ~0. As
  // epoll_ctl(2).
  Result<void> add(FdRef fd, u32 events, u64 token);
  Result<void> change(FdRef fd, u32 events, u64 token);
  void remove(FdRef fd);  // before it is closed

  // Flushes, and returns at once if something is there, else when something comes; at `deadline`
  // at the latest. A Rendezvous has a deadline too: the caller takes the earlier one.
  Woke wait(Time deadline);
  // The descriptors found by the last wait().
  std::span<const Ready> ready() const { return std::span(ready_).first(ready_count_); }
  // The clock, as of the end of the last wait(); a microsecond older if it ended spinning.
  Time now() const { return now_; }
  bool contested() const { return contention_.contested(now_); }
  const Counts& counts() const { return counts_; }

 private:
  static constexpr u64 peers_token = ~u64{0};

  Waiter(Messenger& messenger, const WaitOptions& options, const Clock& clock)
      : messenger_(messenger),
        options_(options),
        clock_(clock),
        contention_(options.long_yield),
        now_(clock.now()) {}
  Result<void> control(int operation, FdRef fd, u32 events, u64 token, const char* what);
  // Whether something came before `until` without sleeping.
  bool came_awake(Time until);
  bool spun(Time until);
  void sleep(Time until);
  void look(Time until);
  void hear();
  Woke woke(Time until);

  Messenger& messenger_;
  WaitOptions options_;
  const Clock& clock_;
  Contention contention_;
  Fd own_;    // the caller's descriptors, and `peers_`
  Fd peers_;  // bells, transports, rendezvous
  Time now_;
  Time last_look_;
  std::array<Ready, most_ready> ready_;
  std::size_t ready_count_ = 0;
  Counts counts_;
};

}  // namespace cob::message
