// Directory: claims and listeners over the kernels of a cob; see directory.h. bind(2), socket(7),
// ip(7).
#include "kernel/directory.h"

#include <algorithm>

#include "kernel/messages.h"
#include "message/messenger.h"

namespace cob::kernel {

namespace {

constexpr u16 flag_reuse_address = 1, flag_reuse_port = 2, flag_listening = 4;
constexpr Duration claim_timeout = Duration::seconds(2);

PortClaim from_message(const ClaimMessage& m, KernelId owner) {
  const u16 flags = m.flags;
  return {.local = {net::Ipv4Address{m.address}, Port(m.port)},
          .owner = owner,
          .handle = m.handle,
          .reuse_address = (flags & flag_reuse_address) != 0,
          .reuse_port = (flags & flag_reuse_port) != 0,
          .listening = (flags & flag_listening) != 0};
}

ClaimMessage to_message(const PortClaim& c) {
  return {.address = c.local.address.value,
          .handle = c.handle,
          .port = c.local.port.value,
          .flags = static_cast<u16>((c.reuse_address ? flag_reuse_address : 0) |
                                    (c.reuse_port ? flag_reuse_port : 0) |
                                    (c.listening ? flag_listening : 0))};
}

}  // namespace

bool claims_conflict(const PortClaim& a, const PortClaim& b) {
  if (a.owner == b.owner && a.handle == b.handle) return false;
  if (a.local.port != b.local.port) return false;
  if (!a.local.address.is_any() && !b.local.address.is_any() && a.local.address != b.local.address)
    return false;
  if (a.reuse_port && b.reuse_port) return false;
  return !(a.reuse_address && b.reuse_address && !(a.listening || b.listening));
}

void Directory::attach(message::Messenger& messenger) {
  messenger_ = &messenger;
  messenger.on<ClaimMessage, ClaimReply>(
      [this](KernelId from, const ClaimMessage& m) -> Result<ClaimReply> {
        return ClaimReply{.result = decide(from_message(m, from))};
      });
  messenger.on<UnclaimMessage>([this](KernelId from, const UnclaimMessage& m) {
    forget({net::Ipv4Address{m.address}, Port(m.port)}, from, m.handle);
  });
  messenger.on<ListenerMessage>([this](KernelId from, const ListenerMessage& m) {
    const net::Endpoint local{net::Ipv4Address{m.address}, Port(m.port)};
    if (m.added != 0) {
      note_listener(local, from);
    } else {
      drop_listener(local, from);
    }
  });
}

i32 Directory::decide(const PortClaim& claim) {
  auto& claims = claims_[claim.local.port.value];
  for (const PortClaim& other : claims)
    if (claims_conflict(claim, other)) return -EADDRINUSE;
  for (PortClaim& other : claims) {
    if (other.owner != claim.owner || other.handle != claim.handle) continue;
    other = claim;
    return 0;
  }
  claims.push_back(claim);
  return 0;
}

void Directory::forget(net::Endpoint local, KernelId owner, u32 handle) {
  const auto found = claims_.find(local.port.value);
  if (found == claims_.end()) return;
  std::erase_if(found->second,
                [&](const PortClaim& c) { return c.owner == owner && c.handle == handle; });
  if (found->second.empty()) claims_.erase(found);
}

void Directory::claim(const PortClaim& claim, Time now, Done done) {
  auto granted = [this](const PortClaim& c) {
    for (PortClaim& own : own_claims_) {
      if (own.handle != c.handle) continue;
      own = c;
      return;
    }
    own_claims_.push_back(c);
  };
  const KernelId home = home_of(claim.local.port);
  if (home == self_) {
    const i32 result = decide(claim);
    if (result == 0) granted(claim);
    done(result);
    return;
  }
  // The continuation's captures are bounded, and it is gone when the request cannot be sent; the
  // claim waits with `done` on the heap: bind is rare.
  const auto waiting = std::make_shared<std::pair<PortClaim, Done>>(claim, std::move(done));
  const auto finish = [granted, waiting](i32 result) {
    if (result == 0) granted(waiting->first);
    waiting->second(result);
  };
  const auto sent = messenger_->request<ClaimMessage, ClaimReply>(
      home, to_message(claim), now + claim_timeout, [finish](Result<ClaimReply> reply) {
        // A home that died meanwhile grants; it learns of the claim when it is back.
        finish(reply.is_error() ? 0 : i32{reply.value().result});
      });
  if (sent.is_error()) finish(sent.error().code == ENETDOWN ? 0 : -ENOBUFS);
}

void Directory::unclaim(net::Endpoint local, u32 handle) {
  std::erase_if(own_claims_, [&](const PortClaim& c) { return c.handle == handle; });
  const KernelId home = home_of(local.port);
  if (home == self_) {
    forget(local, self_, handle);
    return;
  }
  // A home that is down has forgotten already.
  (void)messenger_->send(home, UnclaimMessage{.address = local.address.value,
                                              .handle = handle,
                                              .port = local.port.value,
                                              .reserved = u16{0}});
}

void Directory::note_listener(net::Endpoint local, KernelId kernel) {
  auto& entries = listeners_[local.port.value];
  for (const ListenerEntry& e : entries)
    if (e.address == local.address && e.kernel == kernel) return;
  entries.push_back({local.address, kernel});
}

void Directory::drop_listener(net::Endpoint local, KernelId kernel) {
  const auto found = listeners_.find(local.port.value);
  if (found == listeners_.end()) return;
  std::erase_if(found->second, [&](const ListenerEntry& e) {
    return e.address == local.address && e.kernel == kernel;
  });
  if (found->second.empty()) listeners_.erase(found);
}

void Directory::tell_listener(KernelId peer, net::Endpoint local, bool added) {
  (void)messenger_->send(peer, ListenerMessage{.address = local.address.value,
                                               .port = local.port.value,
                                               .added = static_cast<u16>(added ? 1 : 0)});
}

void Directory::add_listener(net::Endpoint local) {
  own_listeners_.push_back(local);
  note_listener(local, self_);
  for (u16 k = 0; k < kernels_; ++k)
    if (k != self_.value && messenger_->connected(KernelId(k)))
      tell_listener(KernelId(k), local, true);
}

void Directory::remove_listener(net::Endpoint local) {
  const auto found = std::find(own_listeners_.begin(), own_listeners_.end(), local);
  if (found == own_listeners_.end()) return;
  own_listeners_.erase(found);
  if (std::find(own_listeners_.begin(), own_listeners_.end(), local) != own_listeners_.end())
    return;
  drop_listener(local, self_);
  for (u16 k = 0; k < kernels_; ++k)
    if (k != self_.value && messenger_->connected(KernelId(k)))
      tell_listener(KernelId(k), local, false);
}

std::optional<KernelId> Directory::find_listener(net::Endpoint destination) {
  const auto found = listeners_.find(destination.port.value);
  if (found == listeners_.end()) return std::nullopt;
  u32 matches = 0;
  for (const ListenerEntry& e : found->second) {
    if (!e.address.is_any() && e.address != destination.address) continue;
    if (e.kernel == self_) return self_;
    ++matches;
  }
  if (matches == 0) return std::nullopt;
  u32 wanted = turn_++ % matches;
  for (const ListenerEntry& e : found->second) {
    if (!e.address.is_any() && e.address != destination.address) continue;
    if (wanted-- == 0) return e.kernel;
  }
  return std::nullopt;
}

void Directory::peer_up(KernelId peer) {
  for (const PortClaim& c : own_claims_) {
    if (home_of(c.local.port) != peer) continue;
    (void)messenger_->request<ClaimMessage, ClaimReply>(peer, to_message(c), Time::never(),
                                                        [](Result<ClaimReply>) {});
  }
  for (const net::Endpoint& local : own_listeners_) tell_listener(peer, local, true);
}

void Directory::peer_down(KernelId peer) {
  for (auto it = claims_.begin(); it != claims_.end();) {
    std::erase_if(it->second, [&](const PortClaim& c) { return c.owner == peer; });
    it = it->second.empty() ? claims_.erase(it) : std::next(it);
  }
  for (auto it = listeners_.begin(); it != listeners_.end();) {
    std::erase_if(it->second, [&](const ListenerEntry& e) { return e.kernel == peer; });
    it = it->second.empty() ? listeners_.erase(it) : std::next(it);
  }
}

}  // namespace cob::kernel
