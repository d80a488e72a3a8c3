// Angel in the model; angel_balancer.h.
#include "sim/angel/angel_balancer.h"

#include <numeric>

namespace cob::sim::angel {

using net::angel::Outcome;
using net::angel::Policy;

AngelBalancer::AngelBalancer(const Case& c, const Options& options)
    : owned_since_(groups, -Duration::seconds(1'000).ns),
      polls_(options.settings.take),
      period_ns_(options.settings.move_groups ? options.settings.group_period.ns : 0) {
  for (u16 k = 0; k < c.kernels; ++k)
    angels_.push_back(
        {std::make_unique<Policy>(KernelId(k), c.kernels, options.settings, c.seed * 1'000 + k),
         {}});
}

Balancer::Placement AngelBalancer::place(World& world, u16 owner, const Arriving&) {
  Angel& angel = angels_[owner];
  const net::angel::Peer own = world.current(owner);
  const net::angel::Own me{own.load, own.listener, angel.state};
  const bool looks = angel.policy->would_place(me, world.now());
  const auto placement = looks ? angel.policy->place(me, world.boards(), world.now())
                               : angel.policy->place(me, {}, world.now());
  return {.kernel = placement.redirect.value_or(KernelId(owner)).value,
          .forwarded = placement.redirect.has_value(),
          .cost_ns = looks ? world.options().costs.board_ns * (world.kernels() - 1) : 0};
}

void AngelBalancer::idle(World& world, u16 k) {
  Angel& angel = angels_[k];
  const net::angel::Peer own = world.current(k);
  const auto take =
      angel.policy->take({own.load, own.listener, angel.state}, world.boards(), world.now());
  if (take) world.ask(k, *take);
}

void AngelBalancer::accepted(World& world, u16 k) {
  angels_[k].state.pace.accepted(world.kernel(k).free_threads, world.now());
}

void AngelBalancer::settled(World& world, u16 sender, u16 to) {
  angels_[sender].policy->settled(KernelId(to), Outcome::served, world.now());
}

void AngelBalancer::failed(World& world, u16 sender, u16 to) {
  angels_[sender].policy->settled(KernelId(to), Outcome::failed, world.now());
}

void AngelBalancer::free(World& world, u16 k) {
  if (world.kernel(k).queue.empty()) angels_[k].state.pace.waits(world.now());
}

void AngelBalancer::answered(World& world, u16 asker, u16 victim, u32 given) {
  angels_[asker].policy->answered(KernelId(victim), given, world.now());
}

void AngelBalancer::period(World& world) {
  auto& boards = world.boards();
  auto& arrivals = world.arrivals();
  std::vector<u32> demand(world.kernels());
  for (u16 g = 0; g < groups; ++g) demand[world.owner(g)] += arrivals[g];
  for (u16 k = 0; k < world.kernels(); ++k) boards[k].load.demand = demand[k];
  std::vector<std::vector<net::angel::GroupLoad>> loads(world.kernels());
  for (u16 g = 0; g < groups; ++g)
    loads[world.owner(g)].push_back({.group = g,
                                     .arrivals = arrivals[g],
                                     .live = world.live()[g],
                                     .owned_since = Time{owned_since_[g]}});
  for (u16 k = 0; k < world.kernels(); ++k) {
    std::array<net::angel::GroupMove, 64> moves;
    const std::size_t n =
        angels_[k].policy->balance_groups(boards[k].load, loads[k], boards, world.now(), moves);
    for (std::size_t i = 0; i < n; ++i) {
      world.owner(moves[i].group) = moves[i].to.value;
      owned_since_[moves[i].group] = world.now().ns;
    }
    world.counts().group_moves += n;
  }
  arrivals.assign(groups, 0);
}

u64 AngelBalancer::count(net::angel::Cause cause) const {
  return std::accumulate(angels_.begin(), angels_.end(), u64{0},
                         [&](u64 n, const Angel& a) { return n + a.policy->count(cause); });
}

}  // namespace cob::sim::angel
