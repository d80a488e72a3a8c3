// Topics: a typed round trip between two processes that sleep: each time, on idle cores; and as a
// kernel waits, beside a computing process on the one core, the other, and both.
// Model: a kernel's loop without programs (kernel/kernel.cc): poll, flush, then kernel/rest.h's
// rule: yields for 150 us, arming and sleeping on the bell (epoll_wait(2)); at once on a contested
// core. One request at a time, the next as soon as the last is answered. One thread a process.
#include <fmt/format.h>
#include <sched.h>
#include <sys/epoll.h>

#include "bench/messages/kernels.h"
#include "bench/messages/timing.h"
#include "bench/messages/topics.h"
#include "kernel/rest.h"

namespace cob::bench {

namespace {

using namespace message;
using kernel::Rest;

enum class Manner { as_a_kernel, sleep_at_once };

// One side's loop. Its bell is watched edge-triggered, as a kernel's.
class Loop {
 public:
  static Result<std::unique_ptr<Loop>> create(Seat& seat, Manner manner) {
    auto loop = std::make_unique<Loop>();
    loop->manner_ = manner;
    loop->bells_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    if (::epoll_ctl(loop->bells_.get(), EPOLL_CTL_ADD, seat.doorbell.bell.get(), &event) != 0)
      return Error::from_errno("epoll_ctl");
    loop->messenger_ = TRY(connect_kernel(seat, {.with_doorbell = true}, [](Messenger& m) {
      m.on<Ping, Pong>([](KernelId, const Ping& ping) -> Result<Pong> { return Pong{ping.words}; });
    }));
    return loop;
  }
  Messenger& messenger() { return *messenger_; }

  void turn() {
    const Time now = HostClock::read();
    if (yielded_at_ != Time::never()) {
      rest_.yielded(yielded_at_, now);
      yielded_at_ = Time::never();
    }
    const bool worked = messenger_->poll(now, 64) > 0;
    messenger_->flush();
    if (worked) {
      rest_.worked(now);
    } else if (manner_ == Manner::sleep_at_once ||
               rest_.advise(now, false) == Rest::Advice::sleep) {
      sleep();
    } else {
      yielded_at_ = HostClock::read();
      ::sched_yield();
    }
  }

 private:
  void sleep() {
    messenger_->set_armed(true);
    epoll_event event{};
    if (!messenger_->anything_pending()) ::epoll_wait(bells_.get(), &event, 1, -1);
    messenger_->set_armed(false);
  }

  Manner manner_ = Manner::as_a_kernel;
  Fd bells_;
  Rest rest_;
  Time yielded_at_ = Time::never();
  std::unique_ptr<Messenger> messenger_;
};

Side answer_in(Manner manner) {
  return [manner](Seat& seat) -> Result<void> {
    const auto loop = TRY(Loop::create(seat, manner));
    while (true) loop->turn();
  };
}

Side drive_in(Manner manner, const std::string& key) {
  return [manner, key](Seat& seat) -> Result<void> {
    const auto loop = TRY(Loop::create(seat, manner));
    RoundTrips times(seat.sheet, key);
    Ping ping{};
    times.slice_of_singles(seat.time, [&] {
      bool answered = false;
      const auto sent = loop->messenger().request<Ping, Pong>(answerer_kernel, ping, Time::never(),
                                                              [&](Result<Pong> pong) {
                                                                ping.words = pong.value().words;
                                                                answered = true;
                                                              });
      VERIFY(sent);
      loop->messenger().flush();
      while (!answered) loop->turn();
    });
    seat.sheet.figure(key + "_p50_us", times.p50_ns() / 1e3);
    seat.sheet.figure(key + "_p99_us", times.p99_ns() / 1e3);
    return {};
  };
}

}  // namespace

Outcome<Findings> measure_sleeping(const TopicRun& run) {
  return run_pair({.cores = run.cores, .seconds = run.seconds},
                  drive_in(Manner::sleep_at_once, "sleeping_rtt"), answer_in(Manner::sleep_at_once),
                  run.interrupts);
}

Outcome<Findings> measure_hogs(const TopicRun& run) {
  struct Case {
    const char* key;
    std::vector<int> hogs;
  };
  const std::array cases{Case{"hog_client_rtt", {run.cores[0]}},
                         Case{"hog_server_rtt", {run.cores[1]}},
                         Case{"hog_both_rtt", {run.cores[0], run.cores[1]}}};
  Findings all;
  for (const Case& one : cases) {
    auto found = run_pair(
        {.cores = run.cores, .seconds = run.seconds / cases.size(), .hogs = one.hogs},
        drive_in(Manner::as_a_kernel, one.key), answer_in(Manner::as_a_kernel), run.interrupts);
    if (!found) return found;
    all.figures.merge(found->figures);
    all.histograms.merge(found->histograms);
  }
  // The worst of those with one computing process.
  const char* worst = all.figures["hog_client_rtt_p99_us"] > all.figures["hog_server_rtt_p99_us"]
                          ? "hog_client_rtt"
                          : "hog_server_rtt";
  for (const char* suffix : {"_p50_us", "_p99_us"})
    all.figures[fmt::format("hog_rtt{}", suffix)] = all.figures[fmt::format("{}{}", worst, suffix)];
  return all;
}

}  // namespace cob::bench
