// Group moves: which flow groups without connections go to which kernel, so that demand evens out;
// Popcorn's rule (NetPopcorn, ICDCS'17): no state moves, nothing is forwarded afterwards.
// Model: demand (SYNs a period for a kernel's own groups) is averaged, compared with the mean of
// all once a period, and moved in steps that do not overshoot; a kernel pushes, none pulls.
// Kernel's loop only; reads no clock.
#pragma once

#include <span>
#include <vector>

#include "base/random.h"
#include "net/angel/peers.h"

namespace cob::net::angel {

// A flow group of this kernel.
struct GroupLoad {
  u16 group = 0;
  u32 arrivals = 0;    // SYNs in the last period
  u32 live = 0;        // connections and half-open ones; TIME_WAIT travels with the group
  Time owned_since{};  // when it came here
  Time last_cookie{};  // when a SYN cookie was last sent for it; 0 ns: never
};

struct GroupMove {
  u16 group = 0;
  KernelId to{};
};

class Groups {
 public:
  Groups(KernelId self, u16 kernels, const Settings& settings);

  // Writes what shall move to `out`, returns how many. At most once a period, groups_per_period;
  // otherwise 0. `own.demand` is of the period that has just ended.
  std::size_t balance(const KernelLoad& own, std::span<const GroupLoad> groups,
                      std::span<const Peer> peers, Peers& belief, Random& random, Time now,
                      std::span<GroupMove> out);
  // Of a kernel that drains or hangs: every idle one of `groups` (as many as `out` holds), evenly
  // over those eligible, from a random one on. 0 if there is none.
  std::size_t evacuate(std::span<const GroupLoad> groups, std::span<const Peer> peers,
                       Peers& belief, Random& random, Time now, std::span<GroupMove> out);

  // No connection, and no cookie that may still become one.
  bool idle(const GroupLoad& group, Time now) const;
  bool over() const { return over_; }

 private:
  // As it shows it, or as much as this kernel has given it lately, if that is more.
  u32 demand_of(const Peer& peer, Time now) const;
  void judge_own(u32 demand, u64 mean);

  struct Given {
    u32 demand = 0;  // a period
    Time at{};
  };
  const Settings& settings_;
  KernelId self_;
  std::vector<Given> given_;  // by kernel
  u64 period_ = 0;
  u64 average_milli_ = 0;  // own demand, thousandths
  u32 high_in_row_ = 0;
  bool over_ = false;
};

}  // namespace cob::net::angel
