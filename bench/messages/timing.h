// RoundTrips: what round trips took, over the slices of one topic; and rates of one-way messages.
// Model: medians from means of eight in a row, so that reading the clock weighs little; the 99th
// percentile and the histogram from single ones, a clock reading included. As bench/peers/peer.h.
// Used by a driver's only thread.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/clock.h"
#include "bench/messages/pair.h"

namespace cob::bench {

class RoundTrips {
 public:
  static constexpr u64 row = 8;

  RoundTrips(Sheet& sheet, const std::string& key) : singles_(sheet.histogram(key)) {
    rows_.reserve(1U << 20);
  }
  // For few, long round trips: the median of single ones too.
  void slice_of_singles(Duration time, auto&& once) {
    const Time end = HostClock::read() + time;
    for (Time now = HostClock::read(); now < end;) {
      const Time from = HostClock::read();
      once();
      now = HostClock::read();
      rows_.push_back(static_cast<u64>((now - from).ns) * row);
      singles_.record(static_cast<u64>((now - from).ns));
    }
  }
  // A tenth of the time, or 100 round trips, warms up; then at least one row and one single.
  void slice(Duration time, auto&& once) {
    Time now = HostClock::read();
    const Time start = now;
    for (int i = 0; i < 100 && now < start + time / 10; ++i, now = HostClock::read()) once();
    do {
      const Time from = HostClock::read();
      for (u64 i = 0; i < row; ++i) once();
      now = HostClock::read();
      rows_.push_back(static_cast<u64>((now - from).ns));
    } while (now < start + time / 2);
    do {
      const Time from = now;
      once();
      now = HostClock::read();
      singles_.record(static_cast<u64>((now - from).ns));
    } while (now < start + time);
  }
  double p50_ns() {
    if (rows_.empty()) return 0;
    const auto middle = rows_.begin() + static_cast<std::ptrdiff_t>(rows_.size() / 2);
    std::nth_element(rows_.begin(), middle, rows_.end());
    return static_cast<double>(*middle) / row;
  }
  double p99_ns() const { return static_cast<double>(singles_.percentile(99)); }
  // KEY_ns, KEY_p99_ns and KEY_runs.
  void report(Sheet& sheet, const std::string& key) {
    sheet.figure(key + "_ns", p50_ns());
    sheet.figure(key + "_p99_ns", p99_ns());
    sheet.figure(key + "_runs", static_cast<double>(rows_.size() + singles_.count()));
  }

 private:
  std::vector<u64> rows_;  // ns of a row
  Histogram& singles_;
};

// Sends for `time` by send(), which returns how many it sent; then waits until the answerer has
// received them all. Messages a second.
double one_way_rate(Stage& stage, Duration time, auto&& send) {
  const u64 before = stage.received();
  const Time start = HostClock::read();
  u64 sent = 0;
  while (HostClock::read() < start + time) sent += send();
  while (stage.received() - before < sent) {
  }
  return static_cast<double>(sent) / (static_cast<double>((HostClock::read() - start).ns) * 1e-9);
}

}  // namespace cob::bench
