// The rounds and the table of `cob bench messages`.
// A figure is the median over the rounds; its p99 is the median of the rounds' p99s of single round
// trips. Used by the measuring command's only thread.
#include "bench/messages.h"

#include <fmt/format.h>
#include <sched.h>

#include <cstring>

#include "bench/child.h"
#include "bench/messages_measure.h"
#include "bench/report.h"

namespace cob::bench {

namespace {

using Results = std::vector<MessagesResult>;

template <typename Get>
Summary over(const Results& results, Get get) {
  std::vector<double> values;
  for (const MessagesResult& one : results) values.push_back(get(one));
  return summarize(std::move(values));
}

struct Latency {
  const char* key;
  const char* title;
  RoundTrip MessagesResult::* figure;
};
constexpr Latency latencies[] = {
    {"message_word", "floor: a word there and back", &MessagesResult::word},
    {"message_line", "a full line there and back", &MessagesResult::line},
    {"message_bare", "bare ring, one 64 B slot each way", &MessagesResult::bare_ring},
    {"message_typed", "typed request and reply, deadline, continuation", &MessagesResult::typed},
};
struct Figure {
  const char* key;
  const char* title;
  double MessagesResult::* figure;
};
constexpr Figure figures[] = {
    {"message_bare_over_line", "bare ring over floor", &MessagesResult::bare_ratio},
    {"message_typed_over_line", "typed request over floor", &MessagesResult::typed_ratio},
    {"message_batched_per_s", "one-way messages/s, batched",
     &MessagesResult::one_way_batched_per_s},
    {"message_single_per_s", "one-way messages/s, one a publish",
     &MessagesResult::one_way_single_per_s},
    {"message_empty_poll_ns", "a poll that finds nothing (ns)", &MessagesResult::empty_poll_ns},
};

void show(const Results& results, Report& report) {
  Table table({"messages (ns a round trip)", "median", "p99", "runs"});
  for (const Latency& one : latencies) {
    Summary summary =
        over(results, [&](const MessagesResult& r) { return (r.*one.figure).p50_ns; });
    summary.p99 =
        over(results, [&](const MessagesResult& r) { return (r.*one.figure).p99_ns; }).median;
    report.summary(one.key, "ns", summary);
    table.row({one.title, human(summary.median), summary.p99 > 0 ? human(summary.p99) : "-",
               std::to_string(summary.runs)});
  }
  for (const Figure& one : figures) {
    const Summary summary = over(results, [&](const MessagesResult& r) { return r.*one.figure; });
    report.number(one.key, summary.median);
    table.row({one.title, human(summary.median), "-", std::to_string(summary.runs)});
  }
  fmt::print("{}", table.to_string());
}

}  // namespace

int messages_main(const Options& options) {
  cpu_set_t old, two;
  sched_getaffinity(0, sizeof old, &old);
  CPU_ZERO(&two);
  for (int core : options.cores) CPU_SET(static_cast<unsigned>(core), &two);
  sched_setaffinity(0, sizeof two, &two);
  Interrupts interrupts;
  Results results;
  bool failed = false;
  for (int round = 0; round < options.rounds && !failed && !interrupts.seen(); ++round) {
    const auto result = measure_messages(options.seconds);
    failed = result.is_error();
    if (failed) {
      fmt::print(stderr, "cob bench messages: {}: {}\n", result.error().what,
                 std::strerror(result.error().code));
    } else {
      results.push_back(result.value());
    }
  }
  sched_setaffinity(0, sizeof old, &old);
  if (interrupts.seen()) return 130;
  if (failed) return 1;
  Report report;
  show(results, report);
  return report.write(options.json) ? 0 : 1;
}

}  // namespace cob::bench
