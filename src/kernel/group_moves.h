// GroupMoves: which of this kernel's flow groups are asked for, and which of them go to kernels
// with less to do; docs/angel.md, "Groups". Model: SYNs are counted by port and group; once a
// period the busiest port's are compared, net/angel decides, and the supervisor, who writes the
// tables, is told. A group goes while it is at rest: no connection but in TIME_WAIT, which goes
// along, and no SYN cookie out. Kernel's loop only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "kernel/flows.h"
#include "message/control.h"
#include "net/angel/policy.h"

namespace cob::kernel {

class GroupMoves {
 public:
  // Ports that are counted; further ones are not balanced.
  static constexpr std::size_t max_ports = 32;
  // Tells the supervisor; false: not now.
  using Tell = std::function<bool(const message::GroupOrder&)>;

  GroupMoves(KernelId self, Flows& flows, net::angel::Policy& policy, Tell tell)
      : self_(self), flows_(flows), policy_(policy), tell_(std::move(tell)) {}

  // A SYN came for a group of this kernel's.
  void arrived(Port port, u16 group) {
    ++arrivals_;
    if (const auto found = ports_.find(port.value); found != ports_.end()) {
      ++found->second->arrivals[group];
      ++found->second->sum;
    } else {
      watch(port, group);
    }
  }
  // Whether a period is over and something was asked for in it. Call period() then.
  bool due(Time now) const { return arrivals_ != 0 && now >= next_; }
  // The port that was asked for most, and is looked at.
  Port busiest() const;
  // `peers`: those who listen there. Begins the next period.
  void period(const net::angel::KernelLoad& own, std::span<const net::angel::Peer> peers, Time now);
  // SYNs in it.
  u32 counted() const { return static_cast<u32>(std::min<u64>(arrivals_, UINT32_MAX)); }
  void end_period(Time now);
  u64 moved() const { return moved_; }
  u64 asked() const { return asked_; }

 private:
  struct Counted {
    std::array<u32, net::flow_groups> arrivals{};
    std::array<Time, net::flow_groups> owned_since{};
    std::array<u8, net::flow_groups> owner{};
    u64 sum = 0;
  };
  void watch(Port port, u16 group);
  void look_at_owners(Port port, Counted& counted, Time now);

  KernelId self_;
  Flows& flows_;
  net::angel::Policy& policy_;
  Tell tell_;
  std::map<u16, std::unique_ptr<Counted>> ports_;
  std::vector<net::angel::GroupLoad> loads_;
  std::vector<std::pair<u16, u16>> leaving_;  // port and group that the supervisor was told of
  u64 arrivals_ = 0;
  Time next_;
  u64 moved_ = 0, asked_ = 0;
};

}  // namespace cob::kernel
