// Angel in the model: the policy of net/angel, one a kernel, on simulated boards.
#pragma once

#include <memory>

#include "sim/angel/world.h"

namespace cob::sim::angel {

class AngelBalancer final : public Balancer {
 public:
  AngelBalancer(const Case& c, const Options& options);

  Placement place(World& world, u16 owner, const Arriving& arriving) override;
  void idle(World& world, u16 k) override;
  void accepted(World& world, u16 k) override;
  void settled(World& world, u16 sender, u16 to) override;
  void free(World& world, u16 k) override;
  void failed(World& world, u16 sender, u16 to) override;
  void answered(World& world, u16 asker, u16 victim, u32 given) override;
  bool polls() const override { return polls_; }
  i64 period_ns() const override { return period_ns_; }
  void period(World& world) override;

  u64 count(net::angel::Cause cause) const;

 private:
  struct Angel {
    std::unique_ptr<net::angel::Policy> policy;
    net::angel::ListenerState state;
  };
  std::vector<Angel> angels_;
  std::vector<i64> owned_since_;
  bool polls_;
  i64 period_ns_;
};

}  // namespace cob::sim::angel
