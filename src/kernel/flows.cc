// Flows: handing frames on, and telling owners; see flows.h and docs/network.md. Kernel's loop
// only.
#include "kernel/flows.h"

#include <algorithm>

#include "kernel/messages.h"
#include "kernel/wire_address.h"
#include "message/messenger.h"
#include "net/wire/bytes.h"
#include "net/wire/ethernet.h"
#include "net/wire/ipv4.h"
#include "net/wire/tcp.h"

namespace cob::kernel {

using net::Route;

std::size_t Flows::Hash::operator()(const Flow& flow) const {
  u64 z = u64{flow.remote.address.value} << 32 | u64{flow.remote.port.value} << 16 |
          flow.local.port.value;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

u64 Flows::hash_of(const Flow& flow) const {
  if (!flow.remote.address.is_ipv6() || names_ == nullptr) return Hash{}(flow);
  return net::siphash({}, names_->word(flow.remote.address),
                      u64{flow.remote.port.value} << 16 | flow.local.port.value);
}

std::optional<KernelId> Flows::owner_of(const Flow& flow) const {
  if (!tables_) return std::nullopt;
  return tables_->kernel_for(net::SteeredProtocol::tcp, flow.local.port, steering_hash(flow));
}

u32 Flows::steering_hash(const Flow& flow) const {
  if (!flow.remote.address.is_ipv6() || names_ == nullptr) [[likely]]
    return tables_->toeplitz().hash(flow.remote, flow.local);
  return tables_->toeplitz().hash(names_->address(flow.remote.address).bytes, flow.remote.port,
                                  names_->address(flow.local.address).bytes, flow.local.port);
}

void Flows::mark_names(net::AddressNames& names) const {
  for (const auto& [flow, entry] : entries_) names.mark(flow.remote.address);
  for (const auto& [flow, kernel] : told_) names.mark(flow.remote.address);
  for (const auto& [until, flow] : ending_) names.mark(flow.remote.address);
  for (const Peer& peer : peers_)
    for (const Owed& owed : peer.owed) names.mark(owed.flow.remote.address);
  for (const Leaving& leaving : leaving_) names.mark(leaving.entry.remote.address);
}

void Flows::attach(message::Messenger& messenger) {
  messenger_ = &messenger;
  messenger.on<FlowMessage>([this](KernelId from, const FlowMessage& m) {
    on_message(from,
               {{from_wire(names_, m.local_address, m.local_ipv6_first, m.local_ipv6_second),
                 Port(m.local_port)},
                {from_wire(names_, m.remote_address, m.remote_ipv6_first, m.remote_ipv6_second),
                 Port(m.remote_port)}},
               m.begins != 0);
  });
  messenger.on<SteeredMessage>(
      [this](KernelId from, const SteeredMessage& m) { peers_[from.value].heard = m.changes; });
  messenger.on<TimeWaitMessage>([this](KernelId, const TimeWaitMessage& m) {
    on_time_wait(
        {.local = {from_wire(names_, m.local_address, m.local_ipv6_first, m.local_ipv6_second),
                   Port(m.local_port)},
         .remote = {from_wire(names_, m.remote_address, m.remote_ipv6_first, m.remote_ipv6_second),
                    Port(m.remote_port)},
         .send_next = m.send_next,
         .receive_next = m.receive_next,
         .receive_window_bytes = m.receive_window_bytes,
         .timestamp_recent = m.timestamp_recent,
         .timestamp_sent = m.timestamp_sent,
         .timestamp_offset = m.timestamp_offset,
         .left_ms = m.left_ms,
         .timestamps = m.timestamps != 0,
         .window_scale = static_cast<u8>(std::min<u16>(m.window_scale, 0xff))});
  });
}

void Flows::on_message(KernelId from, const Flow& flow, bool begins) {
  const auto found = entries_.find(flow);
  if (begins) {
    stack_->drop_time_wait(flow.local, flow.remote);
    if (found != entries_.end()) {
      Entry& entry = found->second;
      if (entry.redirected) --redirected_;
      entry.redirected = false;
      if (entry.kernel != from) settle(entry, false);
      entry.kernel = from;
      entry.until = Time::never();
    } else if (entries_.size() < max_entries) {
      entries_.emplace(flow, Entry{.kernel = from, .until = Time::never()});
    } else {
      ++counters_.entries_refused;
    }
    return;
  }
  if (found == entries_.end() || found->second.kernel != from ||
      found->second.until != Time::never())
    return;
  settle(found->second, false);
  found->second.until = now_ + entry_lives;
  ending_.emplace_back(found->second.until, flow);
}

void Flows::poll(Time now) {
  if (!tables_) return;
  now_ = now;
  const u32 changes = changes_->count();
  const bool changing = changes % 2 != 0;  // the supervisor says when it has done
  if (!changing && (changes != seen_ || tell_anew_)) {
    seen_ = changes;
    tell_anew_ = false;
    stack_->tell_flows();
    sweeping_ = true;
    sweep_cursor_ = 0;
  }
  if (owed_total_ != 0) pay();
  if (sweeping_ || !leaving_.empty()) [[unlikely]]
    sweep_time_wait();
  const bool all_left = !sweeping_ && leaving_.empty();
  for (u16 k = 0; k < kernels(); ++k) {
    Peer& peer = peers_[k];
    if (k == self_.value || peer.said == seen_ || !peer.owed.empty() || !all_left) continue;
    if (!messenger_->connected(KernelId(k))) continue;
    if (!messenger_->send(KernelId(k), SteeredMessage{.changes = seen_}).is_error())
      peer.said = seen_;
  }
  drop_expired(now);
}

// A redirected one of which nobody has told this kernel, because another is the owner, lives on
// while frames come by it.
void Flows::drop_expired(Time now) {
  while (!ending_.empty() && ending_.front().first <= now) {
    const auto [until, flow] = ending_.front();
    ending_.pop_front();
    const auto found = entries_.find(flow);
    if (found == entries_.end() || found->second.until != until) continue;
    Entry& entry = found->second;
    if (entry.redirected && entry.used + entry_lives > now) {
      entry.until = now + entry_lives;
      ending_.emplace_back(entry.until, flow);
      continue;
    }
    if (entry.redirected) --redirected_;
    entries_.erase(found);
  }
}

// True if what this kernel was told of others' connections is all there is.
bool Flows::settled() const {
  if (!tables_) return true;
  if (changes_->count() != seen_) return false;
  for (u16 k = 0; k < kernels(); ++k)
    if (k != self_.value && messenger_->connected(KernelId(k)) && peers_[k].heard != seen_)
      return false;
  return true;
}

bool Flows::hand_on(net::Endpoint local, net::Endpoint remote, bool opens,
                    std::span<const std::byte> frame, net::FrameFlags flags) {
  if (flags.hops >= net::FrameFlags::max_hops) return false;
  const Flow flow{local, remote};
  if (const auto found = entries_.find(flow); found != entries_.end()) {
    forward_by(found->second, frame, flags);
    return true;
  }
  const auto owner = owner_of(flow);
  if (opens) {
    const auto listener = directory_.listener_for(local, owner, static_cast<u32>(hash_of(flow)));
    if (listener && *listener != self_) {
      forward(*listener, frame, flags);
      return true;
    }
  }
  if (owner && *owner != self_) {
    forward(*owner, frame, flags);
    return true;
  }
  if (opens || settled()) return false;
  ++counters_.unsettled;
  return true;
}

// Once, so that nothing goes in circles while kernels know different listeners. Who has the
// connection already, or had it a moment ago, comes first: a SYN that comes again opens no second
// one.
bool Flows::hand_on_opening(net::Endpoint local, net::Endpoint remote,
                            std::span<const std::byte> frame, net::FrameFlags flags) {
  if (flags.hops > 0) return false;
  const Flow flow{local, remote};
  if (const auto found = entries_.find(flow); found != entries_.end()) {
    Entry& entry = found->second;
    const bool may_open_elsewhere = entry.redirected || entry.until != Time::never();
    if (!may_open_elsewhere || placement_ == nullptr || !placement_->shuns(entry.kernel)) {
      if (entry.redirected) ++counters_.redirects_repeated;
      forward_by(entry, frame, flags);
      return true;
    }
    if (entry.redirected) --redirected_;
    entries_.erase(found);
  }
  if (spread_openings_) {
    const auto owner = owner_of(flow);
    if (owner && *owner != self_ && directory_.listens(*owner, local)) {
      forward(*owner, frame, flags);
      return true;
    }
  }
  return placement_ != nullptr && redirect(flow, frame, flags);
}

// The other owns the connection from its first segment on; what comes here of it goes there by an
// exact entry, which is here before the answer can be.
bool Flows::redirect(const Flow& flow, std::span<const std::byte> frame, net::FrameFlags flags) {
  std::optional<u16> group;
  if (tables_) {
    const u32 hash = steering_hash(flow);
    if (tables_->kernel_for(net::SteeredProtocol::tcp, flow.local.port, hash) == self_)
      group = net::flow_group(hash);
  }
  const auto to = placement_->place(flow.local, group);
  if (!to || *to == self_) return false;
  if (redirected_ >= max_redirected || entries_.size() >= max_entries ||
      !forward(*to, frame, flags)) {
    ++counters_.redirects_refused;
    placement_->settled(*to, false);
    return false;
  }
  const Time until = now_ + entry_lives;
  entries_.emplace(
      flow,
      Entry{.kernel = *to, .until = until, .redirected = true, .judged = false, .used = now_});
  ending_.emplace_back(until, flow);
  ++redirected_;
  ++counters_.redirected;
  return true;
}

// Every kernel knows who has a port: the first that a datagram comes to hands it on, once.
bool Flows::hand_on_datagram(net::Endpoint local, net::Endpoint remote,
                             std::span<const std::byte> frame, net::FrameFlags flags) {
  if (flags.hops > 0) return false;
  const auto kernel =
      directory_.find_datagram(local, static_cast<u32>(hash_of({local, remote}) >> 32));
  if (!kernel || *kernel == self_) return false;
  forward(*kernel, frame, flags);
  return true;
}

void Flows::settle(Entry& entry, bool served) {
  if (std::exchange(entry.judged, true) || placement_ == nullptr) return;
  placement_->settled(entry.kernel, served);
}

// By what the client says, not the kernel that was given it: it acknowledges more than the SYN, or
// ends what it got no reset for.
void Flows::judge(Entry& entry, std::span<const std::byte> frame) {
  if (frame.size() < sizeof(net::EthernetHeader) + sizeof(net::Ipv4Header)) return;
  const auto first = net::read_once<u8>(frame, sizeof(net::EthernetHeader));
  const std::size_t at = sizeof(net::EthernetHeader) + (first >> 4 == 4 ? (first & 0xfu) * 4 : 40u);
  if (frame.size() < at + sizeof(net::TcpHeader)) return;
  const auto tcp = net::read_once<net::TcpHeader>(frame, at);
  if ((tcp.flags & net::tcp_syn) != 0) return;
  if ((tcp.flags & net::tcp_rst) != 0) return settle(entry, entry.first_ack != 0);
  const u32 acknowledged = tcp.acknowledgment.get();
  if (entry.first_ack == 0) {
    entry.first_ack = acknowledged;
  } else if (acknowledged != entry.first_ack || (tcp.flags & net::tcp_fin) != 0) {
    settle(entry, true);
  }
}

bool Flows::forward_by(Entry& entry, std::span<const std::byte> frame, net::FrameFlags flags) {
  entry.used = now_;
  if (!entry.judged) judge(entry, frame);
  return forward(entry.kernel, frame, flags);
}

// False: no room on the way; it is lost, as on a wire.
bool Flows::forward(KernelId to, std::span<const std::byte> frame, net::FrameFlags flags) {
  ++counters_.handed_on;
  const Route route = Route::inside(to);
  const auto room = frame.size() <= device_.max_frame_bytes(route)
                        ? device_.reserve(route, frame.size())
                        : std::span<std::byte>();
  if (room.empty()) {
    ++counters_.lost;
    return false;
  }
  net::copy_once(room.data(), frame.data(), frame.size());
  device_.commit(frame.size(), {.checksum_not_computed = flags.checksum_not_computed,
                                .hops = static_cast<u8>(flags.hops + 1)});
  return true;
}

void Flows::share(std::span<const std::byte> frame, net::FrameFlags flags) {
  for (u16 k = 0; k < kernels(); ++k)
    if (k != self_.value && messenger_->connected(KernelId(k))) forward(KernelId(k), frame, flags);
}

void Flows::on_flow(net::Endpoint local, net::Endpoint remote, bool begins) {
  if (!tables_) return;
  const Flow flow{local, remote};
  const auto owner = begins ? owner_of(flow) : std::nullopt;
  const bool strays = owner && *owner != self_;
  if (told_.empty() && !strays) return;
  const auto found = told_.find(flow);
  if (found != told_.end()) {
    if (strays && found->second == *owner) return;
    tell(found->second, {flow, false});
    told_.erase(found);
  }
  if (!strays) return;
  told_.emplace(flow, *owner);
  tell(*owner, {flow, true});
}

// Now, or by poll() when the peer's ring has room. A peer that is down hears all when it is back.
void Flows::tell(KernelId peer, const Owed& what) {
  std::deque<Owed>& owed = peers_[peer.value].owed;
  if (owed.empty() && try_tell(peer, what)) return;
  if (owed.size() == max_owed) {
    owed.pop_front();
    --owed_total_;
  }
  owed.push_back(what);
  ++owed_total_;
}

// False: no room in the peer's ring.
bool Flows::try_tell(KernelId peer, const Owed& what) {
  const WireAddress local = to_wire(names_, what.flow.local.address);
  const WireAddress remote = to_wire(names_, what.flow.remote.address);
  const auto sent = messenger_->send(peer, FlowMessage{.local_address = local.address,
                                                       .remote_address = remote.address,
                                                       .local_port = what.flow.local.port.value,
                                                       .remote_port = what.flow.remote.port.value,
                                                       .begins = what.begins ? 1u : 0u,
                                                       .local_ipv6_first = local.ipv6[0],
                                                       .local_ipv6_second = local.ipv6[1],
                                                       .remote_ipv6_first = remote.ipv6[0],
                                                       .remote_ipv6_second = remote.ipv6[1]});
  return !sent.is_error() || sent.error().code != EAGAIN;
}

void Flows::pay() {
  for (u16 k = 0; k < kernels(); ++k) {
    std::deque<Owed>& owed = peers_[k].owed;
    while (!owed.empty() && try_tell(KernelId(k), owed.front())) {
      owed.pop_front();
      --owed_total_;
    }
  }
}

void Flows::peer_up(KernelId peer) {
  peer_down(peer);
  tell_anew_ = true;
}

// Its connections are gone, and so is what it was told.
void Flows::peer_down(KernelId peer) {
  Peer& p = peers_[peer.value];
  owed_total_ -= p.owed.size();
  p = {};
  std::erase_if(entries_, [&](const auto& e) {
    if (e.second.kernel != peer) return false;
    if (e.second.redirected) --redirected_;
    return true;
  });
  std::erase_if(told_, [&](const auto& t) { return t.second == peer; });
}

}  // namespace cob::kernel
