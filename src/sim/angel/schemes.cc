// The schemes; schemes.h. Sources: Affinity-Accept: Pesterev, Strauss, Zeldovich, Morris (EuroSys
// 2012), 3.3; Hermes: SIGCOMM 2025, as bench/connections/hermes.h has it; two choices: Mitzenmacher
// 2001, as HAProxy places connections among its threads.
#include "sim/angel/schemes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "sim/angel/angel_balancer.h"

namespace cob::sim::angel {
namespace {

// The group's kernel, always.
class Hash : public Balancer {
 public:
  Placement place(World&, u16 owner, const Arriving&) override { return {.kernel = owner}; }
};

// SO_REUSEPORT: one of the listeners, by the hash of addresses and ports.
class Reuseport : public Balancer {
 public:
  Placement place(World& world, u16, const Arriving& arriving) override {
    return {.kernel = static_cast<u16>(arriving.hash % world.kernels())};
  }
};

class Affinity final : public Hash {
 public:
  explicit Affinity(u16 kernels, u32 limit)
      : limit_(limit), cores_(kernels), stolen_(std::size_t{kernels} * kernels) {}

  void queued(World& world, u16 k) override {
    mark(world, k);
    if (!cores_[k].busy) return;
    for (u16 other = 0; other < world.kernels(); ++other) {
      if (cores_[other].busy || world.kernel(other).free_threads == 0) continue;
      return world.look(other);
    }
  }
  std::optional<u16> source(World& world, u16 k) override {
    mark(world, k);
    Core& core = cores_[k];
    const bool own = !world.kernel(k).queue.empty();
    if (!core.busy && (!own || core.own_accepts >= own_for_one_stolen)) {
      for (u16 i = 1; i < world.kernels(); ++i) {
        const auto victim = static_cast<u16>((core.victim + i) % world.kernels());
        if (victim == k || !cores_[victim].busy || world.kernel(victim).queue.empty()) continue;
        core.victim = victim;
        core.own_accepts = 0;
        ++stolen_[std::size_t{k} * world.kernels() + victim];
        return victim;
      }
    }
    if (!own) return std::nullopt;
    ++core.own_accepts;
    return k;
  }
  i64 period_ns() const override { return 100'000'000; }
  void period(World& world) override {
    for (u16 k = 0; k < world.kernels(); ++k) {
      if (cores_[k].busy) continue;
      const auto row =
          std::span(stolen_).subspan(std::size_t{k} * world.kernels(), world.kernels());
      const auto most = std::ranges::max_element(row);
      if (*most == 0) continue;
      const auto victim = static_cast<u16>(most - row.begin());
      std::ranges::fill(row, 0U);
      for (u16 tries = 0; tries < groups; ++tries) {
        next_group_ = static_cast<u16>((next_group_ + 1) % groups);
        if (world.owner(next_group_) != victim) continue;
        world.owner(next_group_) = k;
        ++world.counts().group_moves;
        break;
      }
    }
  }

 private:
  static constexpr u32 own_for_one_stolen = 5;
  struct Core {
    bool busy = false;
    double average = 0;
    u32 own_accepts = 0;
    u16 victim = 0;
  };
  // Busy above 75 % of the limit, until the moving average is below 10 %.
  void mark(World& world, u16 k) {
    Core& core = cores_[k];
    const auto length = static_cast<double>(world.kernel(k).queue.size());
    core.average += (length - core.average) / (2.0 * limit_);
    if (length > 0.75 * limit_) {
      if (!core.busy) core.average = length;
      core.busy = true;
    } else if (core.average < 0.1 * limit_) {
      core.busy = false;
    }
  }
  u32 limit_;
  u16 next_group_ = 0;
  std::vector<Core> cores_;
  std::vector<u32> stolen_;  // by who stole, from whom
};

class Hermes final : public Balancer {
 public:
  explicit Hermes(u16 kernels) : workers_(kernels), fit_(kernels, true) { list(); }

  Placement place(World& world, u16, const Arriving& arriving) override {
    if (listed_.size() <= 1) return {.kernel = static_cast<u16>(arriving.hash % world.kernels())};
    return {.kernel = listed_[arriving.hash % listed_.size()]};
  }
  void accepted(World& world, u16 k) override { turn(world, k); }
  void free(World& world, u16 k) override { turn(world, k); }

 private:
  struct Worker {
    i64 looked_ns = 0, pending = 0, connections = 0;
  };
  void turn(World& world, u16 k) {
    const SimulatedKernel& kernel = world.kernel(k);
    const i64 serving = i64{world.options().threads} - kernel.free_threads;
    workers_[k] = {world.now().ns,
                   static_cast<i64>(kernel.queue.size() + kernel.held.size()) + serving,
                   static_cast<i64>(kernel.held.size()) + serving};
    constexpr i64 hang_ns = 10'000'000;
    for (std::size_t i = 0; i < workers_.size(); ++i)
      fit_[i] = workers_[i].pending == 0 || world.now().ns - workers_[i].looked_ns < hang_ns;
    filter(&Worker::connections);
    filter(&Worker::pending);
    list();
  }
  // More than half above the mean, and by more than one, is left out.
  void filter(i64 Worker::* load) {
    i64 sum = 0, count = 0;
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      if (!fit_[i]) continue;
      sum += workers_[i].*load;
      ++count;
    }
    std::vector<bool> left = fit_;
    bool any = false;
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      if (fit_[i] && (workers_[i].*load - 1) * 2 * count > 3 * sum) left[i] = false;
      any = any || left[i];
    }
    if (any) fit_ = std::move(left);
  }
  void list() {
    listed_.clear();
    for (std::size_t i = 0; i < fit_.size(); ++i)
      if (fit_[i]) listed_.push_back(static_cast<u16>(i));
  }
  std::vector<Worker> workers_;
  std::vector<bool> fit_;
  std::vector<u16> listed_;
};

// The less loaded of two kernels, by their boards.
class Choices final : public Balancer {
 public:
  explicit Choices(u64 seed) : random_(seed) {}
  Placement place(World& world, u16 owner, const Arriving&) override {
    const auto& boards = world.boards();
    const auto load = [&](u16 k) {
      return boards[k].listener.queued + boards[k].load.runnable + boards[k].listener.connections;
    };
    const auto one = static_cast<u16>(random_.below(world.kernels()));
    const auto two = static_cast<u16>(random_.below(world.kernels()));
    const u16 to = load(two) < load(one) ? two : one;
    return {.kernel = to, .forwarded = to != owner, .cost_ns = 2 * world.options().costs.board_ns};
  }

 private:
  Random random_;
};

std::unique_ptr<Balancer> make(Scheme scheme, const Case& c, const Options& options) {
  switch (scheme) {
    case Scheme::reuseport:
      return std::make_unique<Reuseport>();
    case Scheme::affinity:
      return std::make_unique<Affinity>(c.kernels, options.affinity_limit);
    case Scheme::hermes:
      return std::make_unique<Hermes>(c.kernels);
    case Scheme::choices:
      return std::make_unique<Choices>(c.seed + 1);
    case Scheme::angel:
      return std::make_unique<AngelBalancer>(c, options);
    default:
      return std::make_unique<Hash>();
  }
}

// One queue for all threads, nothing costs anything but serving a connection.
Figures measure(std::vector<u32> latencies, double seconds);

Figures ideal(const Case& c, const Options& options, const std::vector<Arriving>& workload) {
  struct Thread {
    i64 free_ns;
    bool slow;
  };
  std::vector<Thread> threads(std::size_t{c.kernels} * options.threads);
  for (std::size_t i = 0; i < options.threads; ++i) threads[i].slow = c.arrival == Arrival::slowed;
  const auto later = [](const Thread& a, const Thread& b) { return a.free_ns > b.free_ns; };
  std::ranges::make_heap(threads, later);
  const i64 before = options.costs.connection_ns * 3 / 4, after = options.costs.connection_ns / 4;
  const i64 stop = c.arrival == Arrival::hung ? workload.back().at_ns / 5 : INT64_MAX;
  std::vector<u32> latencies;
  i64 end = 0;
  std::size_t stopped = 0;
  for (std::size_t i = 0; i < workload.size(); ++i) {
    std::ranges::pop_heap(threads, later);
    if (workload[i].at_ns > stop && stopped < options.threads) {
      ++stopped;
      threads.pop_back();
      std::ranges::pop_heap(threads, later);
    }
    Thread& thread = threads.back();
    const i64 start = std::max(thread.free_ns, workload[i].at_ns + before);
    thread.free_ns = start + workload[i].service_ns * (thread.slow ? i64{4} : 1);
    end = std::max(end, thread.free_ns);
    if (i >= workload.size() / 5)
      latencies.push_back(static_cast<u32>(
          std::min<i64>(thread.free_ns + after - workload[i].at_ns, UINT32_MAX - 1)));
    std::ranges::push_heap(threads, later);
  }
  return measure(std::move(latencies), static_cast<double>(end) / 1e9);
}

Figures measure(std::vector<u32> latencies, double seconds) {
  const auto quantile = [&](double q) {
    const auto n = static_cast<std::ptrdiff_t>(q * static_cast<double>(latencies.size()));
    const auto at = latencies.begin() + std::min<std::ptrdiff_t>(n, std::ssize(latencies) - 1);
    std::ranges::nth_element(latencies, at);
    return *at == UINT32_MAX ? std::numeric_limits<double>::infinity() : *at / 1e3;
  };
  Figures f;
  if (latencies.empty()) return f;
  f.p50_us = quantile(0.5);
  f.p99_us = quantile(0.99);
  f.p999_us = quantile(0.999);
  double sum = 0;
  for (const u32 l : latencies) sum += l;
  f.mean_us = sum / static_cast<double>(latencies.size()) / 1e3;
  f.served_per_s = seconds > 0 ? 1.25 * static_cast<double>(latencies.size()) / seconds : 0;
  return f;
}

}  // namespace

const char* name(Scheme scheme) {
  switch (scheme) {
    case Scheme::ideal:
      return "ideal";
    case Scheme::hash:
      return "hash";
    case Scheme::reuseport:
      return "reuseport";
    case Scheme::affinity:
      return "affinity";
    case Scheme::hermes:
      return "hermes";
    case Scheme::choices:
      return "choices";
    case Scheme::angel:
      return "angel";
  }
  return "?";
}

Figures simulate(Scheme scheme, const Case& c, const Options& options) {
  const std::vector<Arriving> workload = make_workload(c);
  if (scheme == Scheme::ideal) return ideal(c, options, workload);
  const auto balancer = make(scheme, c, options);
  World world(c, options, *balancer);
  world.run(workload);
  Figures f = measure(world.latencies_ns(), world.seconds());
  f.counts = world.counts();
  f.served_per_s =
      static_cast<double>(c.connections - f.counts.failed - f.counts.lost) / world.seconds();
  f.busiest_stack = static_cast<double>(world.busiest_stack_ns()) / 1e9 / world.seconds();
  return f;
}

}  // namespace cob::sim::angel
