// Floor measurements of floor.h and their table.
// Pairs of processes share one anonymous page; the child is pinned, polls, and leaves when told or
// when its parent dies. Each measurement runs alone. futex(2), sched_yield(2), eventfd(2),
// memfd_create(2).
#include "bench/floor.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <new>

#include "base/clock.h"
#include "base/fd.h"
#include "base/types.h"
#include "bench/child.h"

namespace cob::bench {

namespace {

struct alignas(128) Line {
  u64 payload[7] = {};
  std::atomic<u64> sequence{0};
};

struct Shared {
  Line ping, pong;
  alignas(128) std::atomic<u32> ping_word{0};
  alignas(128) std::atomic<u32> pong_word{0};
  alignas(128) std::atomic<u32> stop{0};
  alignas(128) std::atomic<u64> turns{0};
};

i64 clock_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<i64>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Repeats `batch` (which does `size` operations) until `seconds` are over.
std::vector<double> sample(double seconds, int size, const std::function<void()>& batch) {
  std::vector<double> samples;
  const i64 end = clock_ns() + static_cast<i64>(seconds * 1e9);
  i64 before = clock_ns();
  while (before < end && samples.size() < 4'000'000) {
    batch();
    const i64 after = clock_ns();
    samples.push_back(static_cast<double>(after - before) / size);
    before = clock_ns();
  }
  // The first tenth warms caches, page tables and the clock.
  samples.erase(samples.begin(),
                samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 10));
  return samples;
}

class Pinned {  // pins this thread and puts the old affinity back
 public:
  explicit Pinned(int core) {
    sched_getaffinity(0, sizeof old_, &old_);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(core), &set);
    sched_setaffinity(0, sizeof set, &set);
  }
  ~Pinned() { sched_setaffinity(0, sizeof old_, &old_); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  cpu_set_t old_{};
};

// A process on another core that runs `loop` until Shared::stop.
class Partner {
 public:
  Partner(int core, const std::function<void(Shared&)>& loop) {
    void* memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return;
    shared_ = new (memory) Shared;
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const Pinned pinned(core);
      loop(*shared_);
      _exit(0);
    }
  }
  ~Partner() {
    if (pid_ > 0) {
      shared_->stop = 1;
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
  }
  Partner(const Partner&) = delete;
  Partner& operator=(const Partner&) = delete;
  explicit operator bool() const { return pid_ > 0; }
  Shared& shared() { return *shared_; }

 private:
  Shared* shared_ = nullptr;
  pid_t pid_ = -1;
};

void write_line(Line& line, u64 sequence, std::size_t bytes) {
  for (std::size_t i = 0; i + 1 < bytes / 8; ++i) {
    std::atomic_ref(line.payload[i]).store(sequence + i, std::memory_order_relaxed);
  }
  line.sequence.store(sequence, std::memory_order_release);
}

u64 await_line(Line& line, u64 sequence, std::size_t bytes) {
  while (line.sequence.load(std::memory_order_acquire) != sequence) relax();
  u64 sum = 0;
  for (std::size_t i = 0; i + 1 < bytes / 8; ++i) {
    sum += std::atomic_ref(line.payload[i]).load(std::memory_order_relaxed);
  }
  return sum;
}

void futex_wake(std::atomic<u32>& word) {
  syscall(SYS_futex, reinterpret_cast<u32*>(&word), FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

void futex_await(std::atomic<u32>& word, u32 value) {
  for (u32 seen = word.load(); seen != value; seen = word.load()) {
    syscall(SYS_futex, reinterpret_cast<u32*>(&word), FUTEX_WAIT, seen, nullptr, nullptr, 0);
  }
}

constexpr std::size_t touch_pages = 256;

// First touch of fresh shared pages, and the first touch of the same pages in a second mapping; ns
// a page.
void touch_samples(double seconds, std::vector<double>& first, std::vector<double>& second) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t bytes = touch_pages * page;
  const double deadline = now_seconds() + seconds;
  while (now_seconds() < deadline) {
    const Fd memory(memfd_create("cob-bench-touch", MFD_CLOEXEC));
    if (!memory.valid() || ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) return;
    void* maps[2] = {MAP_FAILED,
                     MAP_FAILED};  // both stay mapped, as a kernel's and a program's would
    for (int i = 0; i < 2; ++i) {
      maps[i] = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
      if (maps[i] == MAP_FAILED) break;
      const i64 before = clock_ns();
      for (std::size_t at = 0; at < bytes; at += page) static_cast<volatile char*>(maps[i])[at] = 1;
      (i == 0 ? first : second).push_back(static_cast<double>(clock_ns() - before) / touch_pages);
    }
    for (void* map : maps) {
      if (map != MAP_FAILED) munmap(map, bytes);
    }
  }
}

}  // namespace

std::vector<double> line_round_trip_ns(int core_a, int core_b, std::size_t bytes, double seconds) {
  constexpr int batch = 32;
  Partner partner(core_b, [bytes](Shared& shared) {
    for (u64 turn = 1;; ++turn) {
      await_line(shared.ping, turn, bytes);
      write_line(shared.pong, turn, bytes);
    }
  });
  if (!partner) return {};
  const Pinned pinned(core_a);
  u64 turn = 0;
  return sample(seconds, batch, [&] {
    for (int i = 0; i < batch; ++i) {
      write_line(partner.shared().ping, ++turn, bytes);
      await_line(partner.shared().pong, turn, bytes);
    }
  });
}

std::vector<double> yield_pair_ns(int core, double seconds) {
  constexpr int batch = 32;
  Partner partner(core, [](Shared& shared) {
    for (;;) {
      shared.turns.fetch_add(1, std::memory_order_relaxed);
      sched_yield();
    }
  });
  if (!partner) return {};
  const Pinned pinned(core);
  u64 mine = 0;
  auto samples = sample(seconds, batch, [&] {
    for (int i = 0; i < batch; ++i) sched_yield();
    mine += batch;
  });
  // A pair means that the other one ran each time; if the scheduler let us spin alone the figure
  // means nothing.
  if (partner.shared().turns.load() * 2 < mine) return {};
  return samples;
}

std::vector<double> futex_round_trip_ns(int core_a, int core_b, double seconds) {
  Partner partner(core_b, [](Shared& shared) {
    for (u32 turn = 1;; ++turn) {
      futex_await(shared.ping_word, turn);
      shared.pong_word = turn;
      futex_wake(shared.pong_word);
    }
  });
  if (!partner) return {};
  const Pinned pinned(core_a);
  u32 turn = 0;
  return sample(seconds, 1, [&] {
    partner.shared().ping_word = ++turn;
    futex_wake(partner.shared().ping_word);
    futex_await(partner.shared().pong_word, turn);
  });
}

int floor_main(const Options& options) {
  const int a = options.cores[0];
  const int b = options.cores[1];
  const double seconds = options.seconds;
  Report report;
  Table table({"floor (ns)", "median", "p99", "runs", "of"});
  bool missing = false;
  Interrupts interrupts;

  const auto show = [&](const std::string& key, const std::string& title, const std::string& unit,
                        const std::function<std::vector<double>()>& measure) {
    std::vector<double> all;
    for (int round = 0; round < options.rounds && !interrupts.seen(); ++round) {
      const auto samples = measure();
      all.insert(all.end(), samples.begin(), samples.end());
    }
    missing = missing || all.empty();
    const Summary summary = summarize(std::move(all));
    report.summary(key, "ns", summary);
    table.row({title, human(summary.median), human(summary.p99),
               human(static_cast<double>(summary.runs)), unit});
  };

  const double share = seconds / options.rounds;
  show("line_8", "cache line there and back, 8 B", "32 round trips",
       [&] { return line_round_trip_ns(a, b, 8, share); });
  show("line_64", "cache line there and back, 64 B", "32 round trips",
       [&] { return line_round_trip_ns(a, b, 64, share); });
  show("system_call", "system call (getppid)", "64 calls", [&] {
    const Pinned pinned(b);
    return sample(share, 64, [] {
      for (int i = 0; i < 64; ++i) syscall(SYS_getppid);
    });
  });
  show("yield_pair", "sched_yield to a process on the same core and back", "32 pairs",
       [&] { return yield_pair_ns(b, share); });
  show("futex_wake", "futex wake round trip to another core, idle", "1 round trip",
       [&] { return futex_round_trip_ns(a, b, share); });
  show("futex_wake_hog", "futex wake round trip, a busy process on each core", "1 round trip", [&] {
    auto hog_a = Child::hog(a);
    auto hog_b = Child::hog(b);
    sleep_ms(20);
    return futex_round_trip_ns(a, b, share);
  });
  const Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  show("eventfd", "eventfd write and read", "32 pairs", [&] {
    const Pinned pinned(b);
    return sample(share, 32, [&] {
      for (int i = 0; i < 32; ++i) {
        eventfd_write(event.get(), 1);
        eventfd_t value = 0;
        eventfd_read(event.get(), &value);
      }
    });
  });
  show("dup_close", "dup and close of an eventfd", "32 pairs", [&] {
    const Pinned pinned(b);
    return sample(share, 32, [&] {
      for (int i = 0; i < 32; ++i) close(dup(event.get()));
    });
  });
  std::vector<double> second;
  show("first_touch", "first touch of a shared page", "256 pages", [&] {
    const Pinned pinned(b);
    std::vector<double> first;
    touch_samples(share, first, second);
    return first;
  });
  show("second_mapping_touch", "first touch of it in a second mapping", "256 pages",
       [&] { return std::exchange(second, {}); });

  fmt::print("{}", table.to_string());
  if (missing) fmt::print(stderr, "cob bench: a figure could not be measured (see the zeros)\n");
  const bool written = report.write(options.json);
  if (interrupts.seen()) return 130;
  return missing || !written ? 1 : 0;
}

}  // namespace cob::bench
