// Arrivals and results of generator.h; the loop itself is flights.h.
// Gaps of a Poisson process are exponential: -ln(u) / rate.
// One thread.
#include "bench/connections/generator.h"

#include <sched.h>
#include <signal.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "bench/connections/exchange.h"
#include "bench/connections/flights.h"

namespace cob::bench {

Failure failure_of(int error) {
  switch (error) {
    case ECONNREFUSED:
      return Failure::refused;
    case ECONNRESET:
    case EPIPE:
      return Failure::reset;
    case ETIMEDOUT:
      return Failure::timed_out;
    case EADDRNOTAVAIL:
      return Failure::no_port;
    default:
      return Failure::other;
  }
}

u64 Tally::failed_sum() const { return std::accumulate(failed.begin(), failed.end(), u64{0}); }

Report Tally::report() const {
  Report report;
  const auto count = [](u64 value) { return static_cast<double>(value); };
  report.number("seconds", seconds);
  report.number("started", count(started));
  report.number("completed", count(completed));
  report.number("late", count(late));
  report.number("bytes", count(bytes));
  for (std::size_t i = 0; i < failures; ++i) {
    if (failed[i] > 0) report.number(std::string("failed_") + failure_names[i], count(failed[i]));
  }
  report.number("failed", count(failed_sum()));
  for (const auto& [key, percent] :
       {std::pair{"p50_us", 50.0}, std::pair{"p99_us", 99.0}, std::pair{"p999_us", 99.9}}) {
    report.number(key, count(latency.percentile(percent)) * 1e-3);
  }
  report.number("max_us", count(latency.max()) * 1e-3);
  report.number("lag_p99_us", count(lag.percentile(99)) * 1e-3);
  report.number("lag_max_us", count(lag.max()) * 1e-3);
  return report;
}

Arrivals::Arrivals(double per_second, u64 seed, i64 first_ns)
    : gap_ns_(1e9 / per_second), state_(seed), at_(0), next_(first_ns) {
  at_ = static_cast<double>(first_ns);
  advance();
}

Arrivals::Arrivals(std::span<const PlannedArrival> plan, i64 begin_ns)
    : plan_(plan), begin_(begin_ns) {
  take_planned();
}

void Arrivals::take_planned() {
  next_ = number_ < plan_.size() ? begin_ + plan_[number_].at_ns : INT64_MAX;
}

void Arrivals::advance() {
  ++number_;
  if (!plan_.empty()) return take_planned();
  // 53 random bits as u in (0, 1].
  const double u = (static_cast<double>(next_random(state_) >> 11) + 1) * 0x1p-53;
  at_ -= std::log(u) * gap_ns_;
  next_ = static_cast<i64>(at_);
}

Outcome<Tally> run_load(const LoadOptions& options) {
  const sched_param first{.sched_priority = 1};
  if (options.realtime) (void)sched_setscheduler(0, SCHED_FIFO, &first);
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  if (options.hold > 0) pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  for (const double share : {0.25, 0.5, 0.75, 1.0}) {
    if (options.warm_seconds <= 0 || options.rate <= 0) break;
    LoadOptions rising = options;
    rising.rate *= share;
    rising.seconds = options.warm_seconds / 4;
    auto warm = Flights::make(rising);
    if (!warm) return Outcome<Tally>::failed(warm.why());
    (*warm)->run();
  }
  auto flights = Flights::make(options);
  if (!flights) return Outcome<Tally>::failed(flights.why());
  (*flights)->run();
  if (options.hold > 0) {
    std::printf("held %zu\n", (*flights)->held());
    std::fflush(stdout);
    int signal = 0;
    sigwait(&ends, &signal);
  }
  return (*flights)->tally();
}

}  // namespace cob::bench
