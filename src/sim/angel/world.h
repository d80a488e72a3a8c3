// World: an island of kernels that serve connections, for one scheme of placing them.
// Model: discrete events. A kernel is a core whose stack works serially, an accept queue, and
// threads that accept one connection each and serve it (blocked meanwhile, as in `cob bench angel`,
// or computing). A connection comes as a SYN to its group's owner, is placed, is established one
// round trip later, waits for a thread, is served, ends. docs/angel-model.md, "What a kernel
// knows".
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <queue>
#include <vector>

#include "net/angel/policy.h"
#include "sim/angel/costs.h"
#include "sim/angel/workload.h"

namespace cob::sim::angel {

struct Options {
  Costs costs;
  i64 rtt_ns = 20'000;      // from the SYN's answer until the connection is established
  i64 publish_ns = 2'000;   // a board shows a change so much later: a turn of its kernel's loop
  i64 rest_ns = 150'000;    // a kernel sleeps after so long without work: kernel/rest.h
  i64 poll_ns = 2'000;      // how often an idle kernel that is awake looks at the boards
  u32 threads = 1;          // of each kernel, that accept
  u32 backlog = 512;        // of each kernel; beyond it connections fail
  bool computing = false;   // threads compute while they serve: stack and service share the core
  bool eager = false;       // threads accept at once and serve later, as event loops do
  u32 affinity_limit = 64;  // Affinity-Accept's queue of a core
  net::angel::Settings settings;
};

// Times on the simulated clock.
struct Connection {
  i64 syn_ns = 0;
  i64 established_ns = 0;
  u32 service_ns = 0;
  u16 group = 0;
  u16 owner = 0;  // of its group when the SYN came
  u16 at = 0;     // who has it
  u16 sent_to = 0;
  bool forwarded = false;
  bool unsettled = false;  // sent, and no thread has it yet
  bool ended = false;
};

struct SimulatedKernel {
  i64 stack_free_ns = 0;   // its stack works until then
  i64 last_active_ns = 0;  // for how long it has been idle
  i64 debt_ns = 0;         // stack work done while its thread computes
  u32 free_threads = 0;
  u32 coming = 0;        // half-open
  bool stopped = false;  // its threads are
  bool polling = false;
  std::deque<u32> queue;  // established, not accepted
  std::deque<u32> held;   // accepted, not served yet: eager threads
};

class World;

// A scheme. Called at the simulated instant; everything it sees in the world is as current as the
// scheme's own bookkeeping would have it.
class Balancer {
 public:
  struct Placement {
    u16 kernel = 0;
    bool forwarded = false;  // its frames go through the owner
    i64 cost_ns = 0;         // of deciding, at the owner
  };
  virtual ~Balancer() = default;
  virtual Placement place(World& world, u16 owner, const Arriving& arriving) = 0;
  // Where a free thread of `kernel` finds its next connection. Without cost.
  virtual std::optional<u16> source(World& world, u16 kernel);
  // A thread of `kernel` has turned: it waits, or has its next connection already.
  virtual void idle(World&, u16) {}
  virtual void queued(World&, u16 /*kernel*/) {}
  // A thread of `kernel` has one; a redirected one's owner hears of it a hop later.
  virtual void accepted(World&, u16 /*kernel*/) {}
  virtual void settled(World&, u16 /*sender*/, u16 /*to*/) {}
  virtual void free(World&, u16) {}
  virtual void failed(World&, u16 /*sender*/, u16 /*to*/) {}
  // `asker` hears that `victim` gives it so many.
  virtual void answered(World&, u16 /*asker*/, u16 /*victim*/, u32 /*given*/) {}
  virtual bool polls() const { return false; }
  virtual i64 period_ns() const { return 0; }  // 0: none
  virtual void period(World&) {}
};

struct Counts {
  u64 redirects = 0, takes = 0, refused = 0, group_moves = 0, failed = 0, lost = 0;
};

class World {
 public:
  World(const Case& c, const Options& options, Balancer& balancer);

  // Serves everything, or until 100 ms after the last arrival; what is left has failed.
  void run(const std::vector<Arriving>& workload);

  // ---- for schemes
  Time now() const { return Time{now_}; }
  u16 kernels() const { return static_cast<u16>(kernels_.size()); }
  SimulatedKernel& kernel(u16 k) { return kernels_[k]; }
  const Options& options() const { return options_; }
  u16& owner(u16 group) { return owner_[group]; }
  bool asleep(u16 k) const;
  Connection& connection(u32 id) { return connections_[id]; }
  Counts& counts() { return counts_; }
  // What everybody sees of everybody, publish_ns late.
  std::vector<net::angel::Peer>& boards();
  net::angel::Peer current(u16 k) const;
  // Core time of `k` from now on; when it is done.
  i64 stack(u16 k, i64 cost_ns);
  // Asks `from` for `n` connections.
  void ask(u16 k, const net::angel::Take& take);
  // Has a free thread of `k` look for work now.
  void look(u16 k);
  // Live connections and SYNs since the last call, by group.
  std::vector<u32>& live() { return live_; }
  std::vector<u32>& arrivals() { return arrivals_; }

  // ---- results
  const std::vector<u32>& latencies_ns() const { return latencies_; }  // after the warm-up
  double seconds() const { return static_cast<double>(last_end_) / 1e9; }
  i64 busiest_stack_ns() const { return busiest_; }

 private:
  enum class Kind : u8 {
    arrive,
    established,
    finish,
    poll,
    asked,
    taken,
    answered,
    settled,
    period,
    stop
  };
  struct Event {
    i64 at_ns;
    u64 order;
    u32 connection;  // or how many
    u16 kernel;
    u16 other;
    Kind kind;
    bool operator>(const Event& e) const {
      return at_ns != e.at_ns ? at_ns > e.at_ns : order > e.order;
    }
  };
  void at(i64 ns, Kind kind, u16 kernel, u32 connection = 0, u16 other = 0);
  void happen(const Event& e, const std::vector<Arriving>& workload);
  void arrive(u32 id, const Arriving& arriving);
  void established(u16 k, u32 id);
  void give(u16 k, u32 id);
  void start(u16 k, u32 id);
  void serve(u16 k, u32 id);
  void finish(u16 k, u32 id);
  void asked(u16 victim, u16 taker, u32 most);
  i64 move(u16 from, u16 to);
  void settle(u32 id);
  void fail(u32 id);
  void changing(u16 k);  // before any change of what the board shows

  const Case case_;
  const Options& options_;
  Balancer& balancer_;
  i64 now_ = 0, last_end_ = 0, busiest_ = 0;
  u64 order_ = 0;
  u32 open_ = 0;
  std::vector<SimulatedKernel> kernels_;
  std::vector<Connection> connections_;
  std::vector<u16> owner_;
  std::vector<u32> live_, arrivals_;
  std::vector<net::angel::Peer> shown_;
  std::vector<i64> dirty_since_;
  std::vector<i64> stack_used_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<u32> latencies_;
  Counts counts_;

  friend class AngelBalancer;
};

}  // namespace cob::sim::angel
