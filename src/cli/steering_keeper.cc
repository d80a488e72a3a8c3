// Spreading flow groups over kernels; see steering_keeper.h. The supervisor's thread.
#include "cli/steering_keeper.h"

#include <algorithm>
#include <array>

namespace cob::cli {

using net::SteeredProtocol;

net::GroupTable respread(net::GroupTable groups, const std::set<u16>& kernels) {
  VERIFY(!kernels.empty());
  std::array<u32, net::max_steered_kernels> held{};
  for (const u8 kernel : groups)
    if (kernels.contains(kernel)) ++held[kernel];
  const u32 floor = static_cast<u32>(groups.size() / kernels.size());
  u32 one_more = static_cast<u32>(groups.size() % kernels.size());
  // Who has more than its share keeps the odd groups.
  std::array<u32, net::max_steered_kernels> share{};
  for (const u16 k : kernels) {
    const bool odd = one_more > 0 && held[k] > floor;
    share[k] = floor + (odd ? 1 : 0);
    if (odd) --one_more;
  }
  for (const u16 k : kernels) {
    if (one_more == 0) break;
    if (share[k] > floor) continue;
    ++share[k];
    --one_more;
  }
  auto wanting = kernels.begin();
  for (u8& kernel : groups) {
    if (kernels.contains(kernel) && held[kernel] <= share[kernel]) continue;
    if (kernels.contains(kernel)) --held[kernel];
    while (held[*wanting] >= share[*wanting]) ++wanting;
    kernel = static_cast<u8>(*wanting);
    ++held[*wanting];
  }
  return groups;
}

Result<SteeringKeeper> SteeringKeeper::create(u16 kernels) {
  return SteeringKeeper(TRY(net::SteeringWriter::create(kernels)),
                        TRY(net::TableChangesWriter::create()));
}

// A table is replaced whole while one is left to fill, else group by group.
void SteeringKeeper::steer_default() {
  if (up_.empty()) return;  // nobody is there to take a frame
  const net::GroupTable before = tables_.groups(SteeredProtocol::udp, Port(0));  // has none
  const net::GroupTable after = respread(before, wanted(up_));
  if (!tables_.steer_default(after).is_error()) return;
  for (u16 g = 0; g < u16{net::flow_groups}; ++g)
    if (after[g] != before[g]) (void)tables_.move_default_group(g, KernelId(after[g]));
}

void SteeringKeeper::steer(Port port) {
  constexpr auto tcp = SteeredProtocol::tcp;
  const auto found = listeners_.find(port.value);
  if (found == listeners_.end()) return tables_.release_port(tcp, port);
  const net::GroupTable before = tables_.groups(tcp, port);
  const net::GroupTable after = respread(before, wanted(found->second));
  if (!tables_.steer_port(tcp, port, after).is_error() || !tables_.has_table(tcp, port)) return;
  for (u16 g = 0; g < u16{net::flow_groups}; ++g)
    if (after[g] != before[g]) (void)tables_.move_group(tcp, port, g, KernelId(after[g]));
}

std::set<u16> SteeringKeeper::wanted(const std::set<u16>& kernels) const {
  std::set<u16> stay;
  for (const u16 k : kernels)
    if (!draining_.contains(k) && !hung_.contains(k)) stay.insert(k);
  return stay.empty() ? kernels : stay;
}

bool SteeringKeeper::shun(std::set<u16>& shunned, u16 kernel, bool on) {
  if (on ? !shunned.insert(kernel).second : shunned.erase(kernel) == 0) return false;
  changes_.count();
  steer_default();
  for (const auto& [port, kernels] : listeners_)
    if (kernels.contains(kernel)) steer(Port(port));
  changes_.count();
  return true;
}

std::size_t SteeringKeeper::move_groups(u16 from, Port port, std::span<const Move> moves) {
  constexpr auto tcp = SteeredProtocol::tcp;
  const auto found = listeners_.find(port.value);
  if (found == listeners_.end() || !tables_.has_table(tcp, port)) return 0;
  const std::set<u16> able = wanted(found->second);
  const net::GroupTable groups = tables_.groups(tcp, port);
  std::array<std::size_t, net::max_steered_kernels> held{};
  for (const u8 kernel : groups)
    if (kernel < held.size()) ++held[kernel];
  const std::size_t most = 2 * groups.size() / able.size();
  std::vector<Move> granted;
  for (const Move& move : moves) {
    if (move.group >= groups.size() || groups[move.group] != from || !able.contains(move.to) ||
        move.to == from || held[move.to] >= most)
      continue;
    ++held[move.to];
    granted.push_back(move);
  }
  if (granted.empty()) return 0;
  changes_.count();
  for (const Move& move : granted)
    (void)tables_.move_group(tcp, port, move.group, KernelId(move.to));
  changes_.count();
  return granted.size();
}

void SteeringKeeper::kernel_up(u16 kernel) {
  changes_.count();
  up_.insert(kernel);
  steer_default();
  changes_.count();
}

void SteeringKeeper::kernel_down(u16 kernel) {
  changes_.count();
  up_.erase(kernel);
  steer_default();
  for (auto it = listeners_.begin(); it != listeners_.end();) {
    const Port port(it->first);
    const bool listened = it->second.erase(kernel) != 0;
    it = it->second.empty() ? listeners_.erase(it) : std::next(it);
    if (listened) steer(port);
  }
  changes_.count();
}

bool SteeringKeeper::listening(u16 kernel, Port port, bool listens) {
  VERIFY(up_.contains(kernel));
  if (listens) {
    if (!listeners_[port.value].insert(kernel).second) return false;
  } else {
    const auto found = listeners_.find(port.value);
    if (found == listeners_.end() || found->second.erase(kernel) == 0) return false;
    if (found->second.empty()) listeners_.erase(found);
  }
  changes_.count();
  steer(port);
  changes_.count();
  return true;
}

}  // namespace cob::cli
