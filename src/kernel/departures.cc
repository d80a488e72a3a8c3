// Departures: holding and handing on; see departures.h.
#include "kernel/departures.h"

#include <algorithm>

#include "net/wire/bytes.h"

namespace cob::kernel {

using net::Route;

std::size_t Departures::Hash::operator()(const MovedFlow& flow) const {
  u64 z = u64{flow.remote.address.value} << 32 | u64{flow.remote.port.value} << 16 |
          flow.local.port.value;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

void Departures::hold_flow(const MovedFlow& flow, u32 move) {
  flows_[flow] = {.way = Way::held, .move = move, .kernel = {}, .until = Time::never()};
  held_[move].flows.push_back(flow);
}

void Departures::hold_port(Port port, Transport transport, u32 move) {
  const u32 key = key_of(port, transport);
  ports_[key] = {.way = Way::held, .move = move, .kernel = {}, .until = Time::never()};
  held_[move].ports.push_back(key);
}

// The entry that a move holds; null: it was taken by another since.
template <typename Table, typename Key>
auto* Departures::held_entry(Table& table, const Key& key, u32 move) {
  const auto found = table.find(key);
  const bool held =
      found != table.end() && found->second.way == Way::held && found->second.move == move;
  return held ? &found->second : nullptr;
}

void Departures::gone(u32 move, KernelId to, Time now) {
  const auto held = held_.find(move);
  if (held == held_.end()) return;
  const Time until = now + entry_lives;
  const Entry entry{.way = Way::gone, .move = move, .kernel = to, .until = until};
  for (const MovedFlow& flow : held->second.flows) {
    if (Entry* of_flow = held_entry(flows_, flow, move)) {
      *of_flow = entry;
      ending_flows_.emplace_back(until, flow);
    }
  }
  for (const u32 key : held->second.ports) {
    if (Entry* of_port = held_entry(ports_, key, move)) {
      *of_port = entry;
      ending_ports_.emplace_back(until, key);
    }
  }
  for (const HeldFrame& f : held->second.frames) forward(to, f.from, f.bytes, f.flags);
  held_.erase(held);
  settle_openings(to);
}

void Departures::settle_openings(KernelId to) {
  for (Opening& opening : openings_)
    if (opening.to == nowhere) opening.to = to;
}

std::vector<Departures::Opening> Departures::take_openings() {
  std::vector<Opening> settled;
  std::erase_if(openings_, [&](const Opening& opening) {
    if (opening.to == nowhere) return false;
    settled.push_back(opening);
    return true;
  });
  return settled;
}

std::vector<Departures::HeldFrame> Departures::arrived(u32 move, KernelId from, Time now) {
  if (const auto held = held_.find(move); held != held_.end()) {
    const Time until = now + entry_lives;
    for (const MovedFlow& flow : held->second.flows) {
      if (Entry* entry = held_entry(flows_, flow, move)) {
        *entry = {.way = Way::came, .move = move, .kernel = from, .until = until};
        ending_flows_.emplace_back(until, flow);
      }
    }
  }
  return give_up(move);
}

// A connection that is itself under way, or has gone, has no such frames to take here.
void Departures::peer_left(const MovedFlow& flow, KernelId from, Time now) {
  const auto found = flows_.find(flow);
  if (found != flows_.end() && found->second.way != Way::came) return;
  const Time until = now + entry_lives;
  flows_[flow] = {.way = Way::came, .move = 0, .kernel = from, .until = until};
  ending_flows_.emplace_back(until, flow);
}

std::vector<Departures::HeldFrame> Departures::give_up(u32 move) {
  settle_openings(self_);
  std::vector<HeldFrame> frames;
  if (const auto held = held_.find(move); held != held_.end()) {
    for (const MovedFlow& flow : held->second.flows)
      if (held_entry(flows_, flow, move) != nullptr) flows_.erase(flow);
    for (const u32 key : held->second.ports)
      if (held_entry(ports_, key, move) != nullptr) ports_.erase(key);
    frames = std::move(held->second.frames);
    held_.erase(held);
  }
  return frames;
}

void Departures::peer_down(KernelId peer) {
  const auto with_peer = [&](const auto& e) {
    return e.second.way != Way::held && e.second.kernel == peer;
  };
  std::erase_if(flows_, with_peer);
  std::erase_if(ports_, with_peer);
}

void Departures::poll(Time now) {
  while (!ending_flows_.empty() &&
         (ending_flows_.front().first <= now || ending_flows_.size() > max_entries)) {
    const auto& [until, flow] = ending_flows_.front();
    const auto found = flows_.find(flow);
    if (found != flows_.end() && found->second.until == until) flows_.erase(found);
    ending_flows_.pop_front();
  }
  while (!ending_ports_.empty() && ending_ports_.front().first <= now) {
    const auto found = ports_.find(ending_ports_.front().second);
    if (found != ports_.end() && found->second.until == ending_ports_.front().first)
      ports_.erase(found);
    ending_ports_.pop_front();
  }
}

bool Departures::hold(u32 move, Route from, std::span<const std::byte> frame,
                      net::FrameFlags flags) {
  Held& held = held_[move];
  if (held.frames.size() >= most_held || held.bytes + frame.size() > most_held_bytes) {
    ++counters_.dropped;
    return true;
  }
  ++counters_.held;
  held.bytes += frame.size();
  HeldFrame& kept = held.frames.emplace_back();
  kept.from = from;
  kept.flags = flags;
  kept.bytes.resize(frame.size());
  net::copy_once(kept.bytes.data(), frame.data(), frame.size());
  return true;
}

// What came from the uplink keeps count of who handed it on; what came from within is this kernel's
// word that it came to it (hands_on).
void Departures::forward(KernelId to, Route from, std::span<const std::byte> frame,
                         net::FrameFlags flags) {
  const bool uplink = from.is_uplink();
  if (uplink && flags.hops >= net::FrameFlags::max_hops) {
    ++counters_.dropped;
    return;
  }
  const Route route = Route::inside(to);
  const auto room = frame.size() <= device_.max_frame_bytes(route)
                        ? device_.reserve(route, frame.size())
                        : std::span<std::byte>();
  if (room.empty()) {
    ++counters_.dropped;
    return;
  }
  ++counters_.handed_on;
  net::copy_once(room.data(), frame.data(), frame.size());
  device_.commit(frame.size(), {.checksum_not_computed = flags.checksum_not_computed,
                                .hops = static_cast<u8>(uplink ? flags.hops + 1 : 0)});
}

bool Departures::hand_on_moved(net::Endpoint local, net::Endpoint remote, bool opens, bool listened,
                               Route from, std::span<const std::byte> frame,
                               net::FrameFlags flags) {
  if (flows_.empty() && ports_.empty()) return false;
  const MovedFlow flow{local, remote};
  if (!opens) {
    const auto found = flows_.find(flow);
    if (found != flows_.end() && found->second.way == Way::held)
      return hold(found->second.move, from, frame, flags);
    if (found != flows_.end() && found->second.way == Way::gone) {
      forward(found->second.kernel, from, frame, flags);
      return true;
    }
  }
  if (listened || (!opens && !from.is_uplink())) return false;
  const auto port = ports_.find(key_of(local.port, Transport::stream));
  if (port == ports_.end() || port->second.way == Way::came) return false;
  const Entry& entry = port->second;
  const bool held = entry.way == Way::held;
  if (from.is_uplink()) {
    if (held) return hold(entry.move, from, frame, flags);
    forward(entry.kernel, from, frame, flags);
    return true;
  }
  // Within the cob each end keeps which kernel the other is on: its sender sends it again, there.
  if (openings_.size() < most_held)
    openings_.push_back({{remote, local}, KernelId(from.kernel), held ? nowhere : entry.kernel});
  return true;
}

bool Departures::under_way(net::Endpoint local, net::Endpoint remote) {
  const auto found = flows_.find({local, remote});
  return found != flows_.end() && found->second.way == Way::held;
}

bool Departures::hand_on_moved_datagram(net::Endpoint local, net::Endpoint, Route from,
                                        std::span<const std::byte> frame, net::FrameFlags flags) {
  const auto port = ports_.find(key_of(local.port, Transport::datagram));
  if (port == ports_.end() || port->second.way == Way::came) return false;
  if (port->second.way == Way::held) return hold(port->second.move, from, frame, flags);
  forward(port->second.kernel, from, frame, flags);
  return true;
}

bool Departures::hands_on(net::Endpoint local, net::Endpoint remote, Route from) {
  const auto found = flows_.find({local, remote});
  return found != flows_.end() && found->second.way == Way::came &&
         Route::inside(found->second.kernel) == from;
}

}  // namespace cob::kernel
