// The load generator of `cob bench connections`: keeps N connections (or requests) in flight, or
// starts them at the times of a Poisson process fixed beforehand by its seed, whether or not the
// server keeps up, and counts latency from the intended start: nothing that the server delays is
// left out ("coordinated omission"). Every byte of every response is checked. One thread.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "base/types.h"
#include "bench/report.h"
#include "bench/samples.h"

namespace cob::bench {

// One of a load that was made beforehand.
struct PlannedArrival {
  i64 at_ns = 0;  // after the load's begin
  u32 work_ns = 0;
  u32 source_address = 0;  // in the host's order; 0: any address and port
  u16 source_port = 0;
};

struct LoadOptions {
  std::string address = {};
  u16 port = 0;
  double seconds = 1;
  u64 response_bytes = 64;
  u32 in_flight = 64;       // kept in flight; with a rate: at most, beyond that arrivals wait
  double rate = 0;          // arrivals a second; 0: closed loop
  u64 seed = 1;             // of the arrivals and of what is asked for
  double warm_seconds = 0;  // before `seconds`, with a rate: it rises to it by quarters, uncounted
  bool keep_alive = false;  // requests on `in_flight` connections instead of connections
  bool client_closes = false;             // else the server
  u32 work_ns = 0;                        // that the server computes for a request
  double timeout_seconds = 2;             // from the intended start; longer is a failure
  u32 hold = 0;                           // opens that many, asks once on each, and keeps them
  std::vector<PlannedArrival> plan = {};  // in the order of their times; instead of `rate`
  bool blocks = false;                    // the server waits for its work's time
  // It goes before everything else on its core, if it may, and sleeps between arrivals.
  bool realtime = false;
  int stop_pid = 0;         // a server: its first worker is stopped where it is
  double stop_seconds = 0;  // so long after the begin, until the last arrival
};

enum class Failure { refused, reset, timed_out, no_port, cut_short, wrong_bytes, other };
inline constexpr std::size_t failures = 7;
inline constexpr std::array<const char*, failures> failure_names{
    "refused", "reset", "timed_out", "no_port", "cut_short", "wrong_bytes", "other"};
Failure failure_of(int error);

// What a run counted.
struct Tally {
  double seconds = 0;  // during which connections were started, and `completed` counted
  u64 started = 0;
  u64 completed = 0;  // until the end of `seconds`
  u64 late = 0;       // completed after it
  u64 bytes = 0;      // of the responses of `completed`
  std::array<u64, failures> failed{};
  Histogram latency;  // ns, from the intended start, of completed and late
  Histogram lag;      // ns between intended and true start: the generator's own delay
  // Of each planned arrival the ns until it was answered whole; -1: it failed.
  std::vector<i64> answered_ns;
  u64 failed_sum() const;
  // Flat, for the measuring command.
  Report report() const;
};

// Poisson arrivals, the same times for the same seed and rate; or those of a plan.
class Arrivals {
 public:
  Arrivals(double per_second, u64 seed, i64 first_ns);
  Arrivals(std::span<const PlannedArrival> plan, i64 begin_ns);
  i64 next_ns() const { return next_; }
  std::size_t number() const { return number_; }  // of the next one
  void advance();

 private:
  void take_planned();
  std::span<const PlannedArrival> plan_;
  i64 begin_ = 0;
  std::size_t number_ = 0;
  double gap_ns_ = 0;
  u64 state_ = 0;
  double at_ = 0;
  i64 next_ = 0;
};

// Runs to the end of `seconds` and of what is then in flight. With `hold`: until SIGTERM, after a
// line "held N". Fails if no socket can be made at all.
Outcome<Tally> run_load(const LoadOptions& options);

}  // namespace cob::bench
