// Two pinned processes that measure one topic together: one drives and times, the other answers.
// Model: both are children of the measuring process, which sleeps meanwhile and watches over both:
// a signal, a death or a deadline ends both at once, so that the measured loops need no checks of
// their own. What they found comes back through shared memory. One thread each.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/doorbell.h"
#include "base/histogram.h"
#include "base/result.h"
#include "bench/child.h"
#include "bench/samples.h"

namespace cob::bench {

// Says which of its phases a topic is in; numbered by the topic, below 256. The two sides pass from
// phase to phase together.
class Stage {
 public:
  // The driver's. Returns when the answerer is there too.
  void enter(u32 phase) {
    const u32 turn = (((turn_.load(std::memory_order_relaxed) >> 8) + 1) << 8) | phase;
    turn_.store(turn, std::memory_order_release);
    while (reached_.load(std::memory_order_acquire) != turn) {
    }
  }
  // The answerer's: `turn` to reach() once prepared, and to serve while it holds().
  u32 next() const {
    const u32 old = reached_.load(std::memory_order_relaxed);
    u32 turn = old;
    while (turn == old) turn = turn_.load(std::memory_order_acquire);
    return turn;
  }
  static u32 phase_of(u32 turn) { return turn & 0xff; }
  void reach(u32 turn) { reached_.store(turn, std::memory_order_release); }
  bool holds(u32 turn) const { return turn_.load(std::memory_order_acquire) == turn; }

  // The answerer counts what it got.
  void say_received(u64 messages) { received_.store(messages, std::memory_order_release); }
  u64 received() const { return received_.load(std::memory_order_acquire); }

 private:
  alignas(128) std::atomic<u32> turn_{0};
  alignas(128) std::atomic<u32> reached_{0};
  alignas(128) std::atomic<u64> received_{0};
};

// What came out of a topic, by key.
struct Findings {
  std::map<std::string, double> figures = {};
  std::map<std::string, Histogram> histograms = {};
};

// How they get from the driver to the parent. Written by the driver; `error` by whoever fails
// first.
class Sheet {
 public:
  void figure(const std::string& key, double value);
  // Zeroed; to be filled in place. REQUIRES: at most max_histograms.
  Histogram& histogram(const std::string& key);
  void error(const Error& why);

  Findings findings() const;
  std::string error() const { return error_.data(); }

 private:
  static constexpr std::size_t max_figures = 96;
  static constexpr std::size_t max_histograms = 4;
  using Key = std::array<char, 48>;
  struct Figure {
    Key key;
    double value;
  };
  std::array<Figure, max_figures> figure_;
  std::size_t figures_ = 0;
  std::array<Key, max_histograms> histogram_key_;
  std::array<Histogram, max_histograms> histogram_;
  std::size_t histograms_ = 0;
  std::array<char, 256> error_{};
};

// What one of the two processes works with.
struct Seat {
  bool drives = false;
  Duration time = {};  // that the driver shall take
  Stage& stage;
  Sheet& sheet;
  std::byte* memory = nullptr;  // of both, zeroed
  FdRef socket = {};            // to the other: SOCK_SEQPACKET, blocking
  Doorbell doorbell = {};       // its button rings the other, its bell is rung by the other
};

struct PairOptions {
  std::array<int, 2> cores = {};  // the driver's, the answerer's
  double seconds = 0;
  std::size_t shared_bytes = 0;
  std::vector<int> hogs = {};  // cores on which a process computes meanwhile
  // Beside `seconds`; then the topic has failed.
  double patience_seconds = 60;
};

// The driver returns when it is done; the answerer need not return.
using Side = std::function<Result<void>(Seat&)>;
// Fails if a side fails or dies, if time is up, or if an interrupt came; both have ended on return.
Outcome<Findings> run_pair(const PairOptions& options, const Side& drive, const Side& answer,
                           Interrupts& interrupts);
// A driver alone that may run on both cores and brings its own second process.
Outcome<Findings> run_alone(const PairOptions& options, const Side& drive, Interrupts& interrupts);

}  // namespace cob::bench
