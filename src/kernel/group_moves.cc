// GroupMoves; see group_moves.h. Kernel's loop only.
#include "kernel/group_moves.h"

#include <algorithm>

namespace cob::kernel {

void GroupMoves::watch(Port port, u16 group) {
  if (ports_.size() >= max_ports) return;
  Counted& counted = *(ports_[port.value] = std::make_unique<Counted>());
  counted.owner.fill(UINT8_MAX);
  counted.arrivals[group] = 1;
  counted.sum = 1;
}

Port GroupMoves::busiest() const {
  const auto most =
      std::ranges::max_element(ports_, {}, [](const auto& entry) { return entry.second->sum; });
  return most == ports_.end() ? Port(0) : Port(most->first);
}

void GroupMoves::look_at_owners(Port port, Counted& counted, Time now) {
  const net::SteeringReader& tables = *flows_.tables();
  for (u16 g = 0; g < u16{net::flow_groups}; ++g) {
    const auto owner = tables.kernel_for(net::SteeredProtocol::tcp, port, g);
    const u8 is = owner ? static_cast<u8>(owner->value) : UINT8_MAX;
    if (is == counted.owner[g]) continue;
    if (counted.owner[g] != UINT8_MAX) counted.owned_since[g] = now;
    counted.owner[g] = is;
  }
  std::erase_if(leaving_, [&](const auto& one) {
    if (one.first != port.value || counted.owner[one.second] == self_.value) return false;
    ++moved_;
    return true;
  });
}

void GroupMoves::period(const net::angel::KernelLoad& own, std::span<const net::angel::Peer> peers,
                        Time now) {
  const Port port = busiest();
  Counted& counted = *ports_.at(port.value);
  look_at_owners(port, counted, now);
  leaving_.clear();  // what did not go by now may be told of again
  loads_.clear();
  u64 sum = own.demand;
  for (const net::angel::Peer& peer : peers) sum += std::min(peer.load.demand, 1'000'000u);
  // Only who is over the mean need know which groups are at rest.
  if (own.demand * (peers.size() + 1) > sum) {
    const Flows::GroupSet rest = flows_.groups_at_rest(port);
    for (u16 g = 0; g < u16{net::flow_groups}; ++g) {
      if (counted.arrivals[g] == 0 || counted.owner[g] != self_.value) continue;
      loads_.push_back({.group = g,
                        .arrivals = counted.arrivals[g],
                        .live = rest[g] ? 0u : 1u,
                        .owned_since = counted.owned_since[g],
                        .last_cookie = {}});
    }
  }
  std::array<net::angel::GroupMove, message::most_group_moves> moves;
  const std::size_t count = policy_.balance_groups(own, loads_, peers, now, moves);
  if (count == 0) return;
  message::GroupOrder order;
  order.kind = static_cast<u32>(message::ControlKind::move_groups);
  order.port = port.value;
  order.count = static_cast<u16>(count);
  for (std::size_t i = 0; i < count; ++i) {
    order.group[i] = moves[i].group;
    order.to[i] = moves[i].to.value;
  }
  if (!tell_(order)) return;
  asked_ += count;
  for (std::size_t i = 0; i < count; ++i) leaving_.emplace_back(port.value, moves[i].group);
}

void GroupMoves::end_period(Time now) {
  next_ = now + policy_.settings().group_period;
  arrivals_ = 0;
  if (ports_.size() >= max_ports)
    std::erase_if(ports_, [](const auto& entry) { return entry.second->sum == 0; });
  for (auto& [port, counted] : ports_) {
    counted->arrivals.fill(0);
    counted->sum = 0;
  }
}

}  // namespace cob::kernel
