// Group moves; groups.h.
#include "net/angel/groups.h"

#include <algorithm>

namespace cob::net::angel {
namespace {

constexpr u32 most_demand = 1'000'000'000;  // what a board may claim: sums stay in range

}  // namespace

Groups::Groups(KernelId self, u16 kernels, const Settings& settings)
    : settings_(settings), self_(self), given_(kernels) {}

bool Groups::idle(const GroupLoad& group, Time now) const {
  return group.live == 0 &&
         (group.last_cookie.ns == 0 || now - group.last_cookie > settings_.cookie_lifetime);
}

u32 Groups::demand_of(const Peer& peer, Time now) const {
  const u32 shown = std::min(peer.load.demand, most_demand);
  if (peer.kernel.value >= given_.size()) return shown;
  const Given& given = given_[peer.kernel.value];
  return now - given.at < settings_.group_dwell ? std::max(shown, given.demand) : shown;
}

// Three periods above the high mark in a row, until one below the low mark.
void Groups::judge_own(u32 demand, u64 mean) {
  constexpr u32 periods_in_row = 3;
  average_milli_ =
      average_milli_ == 0 ? u64{demand} * 1'000 : (average_milli_ * 3 + u64{demand} * 1'000) / 4;
  const bool high = demand >= settings_.demand_least &&
                    average_milli_ * 100 > mean * 1'000 * settings_.demand_high_percent;
  high_in_row_ = high ? high_in_row_ + 1 : 0;
  if (high_in_row_ >= periods_in_row) over_ = true;
  if (average_milli_ * 100 < mean * 1'000 * settings_.demand_low_percent) over_ = false;
}

std::size_t Groups::balance(const KernelLoad& own, std::span<const GroupLoad> groups,
                            std::span<const Peer> peers, Peers& belief, Random& random, Time now,
                            std::span<GroupMove> out) {
  const auto period = static_cast<u64>(now.ns / settings_.group_period.ns);
  if (!settings_.move_groups || period == period_) return 0;
  period_ = period;

  struct Target {
    const Peer* peer;
    u64 room;  // below the mean
  };
  std::vector<Target> targets;
  u64 sum = own.demand;
  u64 kernels = 1;
  for (const Peer& peer : peers) {
    if (!belief.eligible(peer, now)) continue;
    sum += demand_of(peer, now);
    ++kernels;
    targets.push_back({&peer, 0});
  }
  const u64 mean = sum / kernels;
  judge_own(own.demand, mean);
  if (!over_ || own.demand <= mean) return 0;

  // Others that are over the mean fill the same room: each takes its share of it.
  u64 givers = 1;
  for (Target& t : targets) {
    const u64 demand = demand_of(*t.peer, now);
    if (demand * 100 > mean * settings_.demand_high_percent) ++givers;
    t.room = demand < mean ? mean - demand : 0;
  }
  std::erase_if(targets, [](const Target& t) { return t.room == 0; });
  for (Target& t : targets) t.room = (t.room + givers - 1) / givers;

  std::vector<const GroupLoad*> idle_groups;
  for (const GroupLoad& g : groups)
    if (g.arrivals > 0 && now - g.owned_since >= settings_.group_dwell && idle(g, now))
      idle_groups.push_back(&g);
  std::ranges::sort(idle_groups, std::ranges::greater{}, &GroupLoad::arrivals);

  u64 surplus = own.demand - mean;
  std::size_t moved = 0;
  const std::size_t most = std::min<std::size_t>(out.size(), settings_.groups_per_period);
  for (const GroupLoad* g : idle_groups) {
    if (moved == most || targets.empty()) break;
    if (g->arrivals > surplus) continue;
    Target* to = &targets[random.below(targets.size())];
    Target* other = &targets[random.below(targets.size())];
    if (other->room > to->room) to = other;
    if (g->arrivals > to->room) continue;
    out[moved++] = {g->group, to->peer->kernel};
    to->room -= g->arrivals;
    surplus -= g->arrivals;
    if (to->peer->kernel.value < given_.size()) {
      Given& given = given_[to->peer->kernel.value];
      given = {demand_of(*to->peer, now) + g->arrivals, now};
    }
  }
  return moved;
}

std::size_t Groups::evacuate(std::span<const GroupLoad> groups, std::span<const Peer> peers,
                             Peers& belief, Random& random, Time now, std::span<GroupMove> out) {
  std::vector<KernelId> targets;
  for (const Peer& peer : peers)
    if (peer.kernel != self_ && belief.eligible(peer, now)) targets.push_back(peer.kernel);
  if (targets.empty()) return 0;
  std::size_t next = random.below(targets.size());
  std::size_t moved = 0;
  for (const GroupLoad& g : groups) {
    if (moved == out.size()) break;
    if (!idle(g, now)) continue;
    out[moved++] = {g.group, targets[next++ % targets.size()]};
  }
  return moved;
}

}  // namespace cob::net::angel
