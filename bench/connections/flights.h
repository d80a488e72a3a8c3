// The connections that a load generator has in flight: a slot each, an epoll set for all.
// A slot's life: connect, ask, read and check the response, be closed, and be free again; with
// keep-alive it asks anew. All slots taken: arrivals wait, and their latency goes on.
// Owned and used by the generator's one thread. epoll(7), epoll_pwait2(2).
#pragma once

#include <netinet/in.h>
#include <sys/epoll.h>

#include <memory>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/types.h"
#include "bench/connections/exchange.h"
#include "bench/connections/generator.h"

namespace cob::bench {

class Flights {
 public:
  static Outcome<std::unique_ptr<Flights>> make(const LoadOptions& options);
  // Until the end of the load, and of what was in flight then.
  void run();
  const Tally& tally() const { return tally_; }
  std::size_t held() const { return held_.size(); }

 private:
  struct Flight {
    Fd socket;
    i64 intended_ns = 0;
    u64 received = 0;
    u32 offset = 0;
    u32 arrival = 0;  // of the plan
    bool active = false;
    bool asked = false;
  };

  explicit Flights(const LoadOptions& options);
  void start_due(i64 now);
  void start(u32 slot, i64 intended_ns);
  void handle(u32 slot, u32 events);
  bool ask(Flight& flight);
  void read(u32 slot, bool peer_closed);
  void whole(u32 slot, bool peer_closed);
  void complete(u32 slot);
  void fail(u32 slot, Failure failure);
  void release(u32 slot);
  void expire(i64 now);
  int wait(i64 until_ns, std::span<epoll_event> events);
  bool starting(i64 now) const;
  bool open_loop() const { return options_.rate > 0 || !options_.plan.empty(); }
  bool arrivals_left() const { return open_loop() && arrivals_.next_ns() < end_ns_; }
  bool bind_source(const Flight& flight) const;
  void stop_worker(i64 now);

  const LoadOptions options_;
  const sockaddr_in at_;
  Fd set_;
  Pattern pattern_;
  std::vector<Flight> flights_;
  std::vector<u32> free_;
  std::vector<Fd> held_;
  std::vector<std::byte> buffer_;
  u64 random_;
  i64 begin_ns_, end_ns_, timeout_ns_;
  Arrivals arrivals_;
  i64 next_expiry_ns_ = 0;
  i64 calm_until_ns_ = 0;  // no yielding until then: the core is contested
  std::size_t active_ = 0;
  std::size_t opened_to_hold_ = 0;
  i64 stop_ns_;  // when the server's worker is stopped, or goes on; never: INT64_MAX
  bool stopped_ = false;
  Tally tally_;
};

}  // namespace cob::bench
