// Directory: claims and listeners over the kernels of a cob; see directory.h. bind(2), socket(7),
// ip(7).
#include "kernel/directory.h"

#include <algorithm>

#include "kernel/messages.h"
#include "kernel/wire_address.h"
#include "message/messenger.h"

namespace cob::kernel {

namespace {

constexpr u16 flag_reuse_address = 1, flag_reuse_port = 2, flag_listening = 4, flag_datagram = 8;
constexpr u16 flag_added = 1;  // ListenerMessage

Transport transport_of(u16 flags) {
  return (flags & flag_datagram) != 0 ? Transport::datagram : Transport::stream;
}
u16 flag_of(Transport transport) { return transport == Transport::datagram ? flag_datagram : 0; }

}  // namespace

PortClaim Directory::from_message(const ClaimMessage& m, KernelId owner) const {
  const u16 flags = m.flags;
  return {.local = {from_wire(names_, m.address, m.ipv6_first, m.ipv6_second), Port(m.port)},
          .owner = owner,
          .handle = m.handle,
          .reuse_address = (flags & flag_reuse_address) != 0,
          .reuse_port = (flags & flag_reuse_port) != 0,
          .listening = (flags & flag_listening) != 0,
          .transport = transport_of(flags),
          .group = m.group};
}

ClaimMessage Directory::to_message(const PortClaim& c) const {
  const WireAddress a = to_wire(names_, c.local.address);
  return {.address = a.address,
          .handle = c.handle,
          .port = c.local.port.value,
          .flags = static_cast<u16>((c.reuse_address ? flag_reuse_address : 0) |
                                    (c.reuse_port ? flag_reuse_port : 0) |
                                    (c.listening ? flag_listening : 0) | flag_of(c.transport)),
          .reserved = 0,
          .ipv6_first = a.ipv6[0],
          .ipv6_second = a.ipv6[1],
          .group = c.group};
}

bool claims_conflict(const PortClaim& a, const PortClaim& b) {
  if (a.owner == b.owner && a.handle == b.handle) return false;
  if (a.group != 0 && a.group == b.group) return false;
  if (a.local.port != b.local.port || a.transport != b.transport) return false;
  if (!a.local.address.overlaps(b.local.address)) return false;
  if (a.reuse_port && b.reuse_port) return false;
  return !(a.reuse_address && b.reuse_address && !b.listening);
}

void Directory::attach(message::Messenger& messenger) {
  messenger_ = &messenger;
  messenger.on<ClaimMessage, ClaimReply>(
      [this](KernelId from, const ClaimMessage& m) -> Result<ClaimReply> {
        return ClaimReply{.result = decide(from_message(m, from))};
      });
  messenger.on<UnclaimMessage>([this](KernelId from, const UnclaimMessage& m) {
    forget({from_wire(names_, m.address, m.ipv6_first, m.ipv6_second), Port(m.port)},
           transport_of(m.flags), from, m.handle);
  });
  messenger.on<SucceedMessage>([this](KernelId from, const SucceedMessage& m) {
    const ClaimMessage claim{.address = m.address,
                             .handle = m.handle,
                             .port = m.port,
                             .flags = m.flags,
                             .reserved = 0,
                             .ipv6_first = m.ipv6_first,
                             .ipv6_second = m.ipv6_second,
                             .group = m.group};
    decide_succession(from_message(claim, from), KernelId(m.former), m.former_handle);
  });
  messenger.on<ListenerMessage>([this](KernelId from, const ListenerMessage& m) {
    const u16 flags = m.flags;
    const Reached reached{
        .local = {from_wire(names_, m.address, m.ipv6_first, m.ipv6_second), Port(m.port)},
        .transport = transport_of(flags),
        .reuse_port = (flags & flag_reuse_port) != 0};
    if ((flags & flag_added) != 0) {
      note_reached(reached, from);
    } else {
      drop_reached(reached, from);
    }
  });
}

i32 Directory::decide(const PortClaim& claim) {
  auto& claims = claims_[key_of(claim.local.port, claim.transport)];
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

// Where the former's claim is not known any more (it ended meanwhile, its kernel died) it is a
// claim as any other; one that is refused leaves its owner's socket what it is.
void Directory::decide_succession(const PortClaim& claim, KernelId former, u32 former_handle) {
  const auto found = claims_.find(key_of(claim.local.port, claim.transport));
  if (found != claims_.end()) {
    for (PortClaim& other : found->second) {
      if (other.owner != former || other.handle != former_handle) continue;
      other = claim;
      return;
    }
  }
  (void)decide(claim);
}

void Directory::succeed(const PortClaim& claim, KernelId former, u32 former_handle, Time now) {
  own_claims_[claim.handle] = claim;
  const KernelId home = home_of(claim.local.port);
  if (home == self_) return decide_succession(claim, former, former_handle);
  tell(home,
       {.notice = Notice::succeed,
        .local = claim.local,
        .transport = claim.transport,
        .name = claim.handle,
        .former = former,
        .former_handle = former_handle},
       now);
}

void Directory::forget(net::Endpoint local, Transport transport, KernelId owner, u32 handle) {
  const auto found = claims_.find(key_of(local.port, transport));
  if (found == claims_.end()) return;
  std::erase_if(found->second,
                [&](const PortClaim& c) { return c.owner == owner && c.handle == handle; });
  if (found->second.empty()) claims_.erase(found);
}

void Directory::claim(const PortClaim& claim, Time now, Done done) {
  const KernelId home = home_of(claim.local.port);
  if (home == self_) {
    const i32 result = decide(claim);
    if (result == 0) own_claims_[claim.handle] = claim;
    done(result);
    return;
  }
  if (owed_[home.value].size() >= max_owed / 2) return done(-EADDRINUSE);  // notices go first
  const u32 name = next_waiting_++;
  waiting_.emplace(name, Waiting{claim, now + claim_timeout, std::move(done)});
  tell(home, {.notice = Notice::claim, .name = name}, now);
}

// The end of a claim that waited for its home.
void Directory::answered(u32 name, Result<i32> reply) {
  const auto found = waiting_.find(name);
  if (found == waiting_.end()) return;
  Waiting waiting = std::move(found->second);
  waiting_.erase(found);
  const PortClaim& claim = waiting.claim;
  i32 result = -EADDRINUSE;
  if (!reply.is_error()) {
    if (reply.value() <= 0 && reply.value() > -4096) result = reply.value();
  } else {
    switch (reply.error().code) {
      case ENETDOWN:
      case ECONNRESET:
      case EPROTO:  // down, or cut off
        result = 0;
        break;
      case ETIMEDOUT: {
        // It lives and may grant yet: what it has then is what this kernel had before.
        const bool had = own_claims_.contains(claim.handle);
        tell(home_of(claim.local.port),
             {.notice = had ? Notice::claim_again : Notice::unclaim,
              .local = claim.local,
              .transport = claim.transport,
              .name = claim.handle},
             waiting.deadline);
        break;
      }
      default:
        break;
    }
  }
  if (result == 0) own_claims_[claim.handle] = claim;
  waiting.done(result);
}

void Directory::unclaim(net::Endpoint local, u32 handle, Transport transport) {
  own_claims_.erase(handle);
  const KernelId home = home_of(local.port);
  if (home == self_) {
    forget(local, transport, self_, handle);
    return;
  }
  tell(home, {.notice = Notice::unclaim, .local = local, .transport = transport, .name = handle},
       {});
}

// Now, or by poll() when the peer's ring has room. A peer that is down needs no telling: it has
// forgotten all, and hears all when it is back.
void Directory::tell(KernelId peer, const Owed& what, Time now) {
  std::deque<Owed>& owed = owed_[peer.value];
  if (owed.empty() && try_tell(peer, what, now)) return;
  if (owed.size() == max_owed) {
    const Owed oldest = owed.front();
    owed.pop_front();
    --owed_total_;
    if (oldest.notice == Notice::claim)
      answered(oldest.name, Error::of(EADDRINUSE, "no room for a claim"));
  }
  owed.push_back(what);
  ++owed_total_;
}

void Directory::tell_all(const Owed& what) {
  for (u16 k = 0; k < kernels_; ++k)
    if (k != self_.value && messenger_->connected(KernelId(k))) tell(KernelId(k), what, {});
}

// False: no room in the peer's ring.
bool Directory::try_tell(KernelId peer, const Owed& what, Time now) {
  Result<void> sent;
  const WireAddress a = to_wire(names_, what.local.address);
  switch (what.notice) {
    case Notice::claim: {
      const auto found = waiting_.find(what.name);
      if (found != waiting_.end() && now >= found->second.deadline) {
        answered(what.name, Error::of(EADDRINUSE, "no room for a claim in time"));
        return true;
      }
      return send_claim(peer, what.name);
    }
    case Notice::claim_again:
      return send_claim_again(peer, what.name);
    case Notice::unclaim:
      sent = messenger_->send(peer, UnclaimMessage{.address = a.address,
                                                   .handle = what.name,
                                                   .port = what.local.port.value,
                                                   .flags = flag_of(what.transport),
                                                   .reserved = 0,
                                                   .ipv6_first = a.ipv6[0],
                                                   .ipv6_second = a.ipv6[1]});
      break;
    case Notice::succeed: {
      const auto found = own_claims_.find(what.name);
      if (found == own_claims_.end()) return true;
      const ClaimMessage claim = to_message(found->second);
      sent = messenger_->send(peer, SucceedMessage{.address = claim.address,
                                                   .handle = claim.handle,
                                                   .port = claim.port,
                                                   .flags = claim.flags,
                                                   .former_handle = what.former_handle,
                                                   .former = what.former.value,
                                                   .reserved0 = 0,
                                                   .reserved1 = 0,
                                                   .ipv6_first = claim.ipv6_first,
                                                   .ipv6_second = claim.ipv6_second,
                                                   .group = claim.group});
      break;
    }
    case Notice::listener_added:
    case Notice::listener_removed:
      sent = messenger_->send(
          peer,
          ListenerMessage{.address = a.address,
                          .port = what.local.port.value,
                          .flags = static_cast<u16>(
                              (what.notice == Notice::listener_added ? flag_added : 0) |
                              (what.reuse_port ? flag_reuse_port : 0) | flag_of(what.transport)),
                          .ipv6_first = a.ipv6[0],
                          .ipv6_second = a.ipv6[1]});
      break;
  }
  return !sent.is_error() || sent.error().code != EAGAIN;
}

bool Directory::send_claim(KernelId peer, u32 name) {
  const auto found = waiting_.find(name);
  if (found == waiting_.end()) return true;
  const auto sent = messenger_->request<ClaimMessage, ClaimReply>(
      peer, to_message(found->second.claim), found->second.deadline,
      [this, name](Result<ClaimReply> reply) {
        answered(name, reply.is_error() ? Result<i32>(reply.error())
                                        : Result<i32>(i32{reply.value().result}));
      });
  if (!sent.is_error()) return true;
  if (sent.error().code == EAGAIN) return false;
  answered(name, sent.error());
  return true;
}

bool Directory::send_claim_again(KernelId peer, u32 handle) {
  const auto found = own_claims_.find(handle);
  if (found == own_claims_.end()) return true;
  const auto sent = messenger_->request<ClaimMessage, ClaimReply>(
      peer, to_message(found->second), Time::never(), [this, handle](Result<ClaimReply> reply) {
        if (reply.is_error() || i32{reply.value().result} == 0) return;
        if (own_claims_.erase(handle) != 0 && lost_) lost_(handle);
      });
  return !sent.is_error() || sent.error().code != EAGAIN;
}

void Directory::pay(Time now) {
  for (u16 k = 0; k < kernels_; ++k) {
    std::deque<Owed>& owed = owed_[k];
    while (!owed.empty()) {
      const Owed what = owed.front();
      owed.pop_front();
      if (!try_tell(KernelId(k), what, now)) {
        owed.push_front(what);
        break;
      }
      --owed_total_;
    }
  }
}

Time Directory::next_deadline() const {
  Time next = Time::never();
  if (owed_total_ != 0)
    for (const auto& [name, waiting] : waiting_) next = std::min(next, waiting.deadline);
  return next;
}

void Directory::forget_owed(KernelId peer) {
  std::deque<Owed> owed;
  owed.swap(owed_[peer.value]);
  owed_total_ -= owed.size();
  for (const Owed& what : owed)
    if (what.notice == Notice::claim)
      answered(what.name, Error::of(ECONNRESET, "the claim's home has ended"));
}

void Directory::note_reached(const Reached& reached, KernelId kernel) {
  auto& entries = table_of(kernel)[key_of(reached.local.port, reached.transport)];
  const ListenerEntry entry{reached.local.address, kernel, reached.reuse_port};
  if (std::find(entries.begin(), entries.end(), entry) == entries.end()) entries.push_back(entry);
}

void Directory::drop_reached(const Reached& reached, KernelId kernel) {
  Table& table = table_of(kernel);
  const auto found = table.find(key_of(reached.local.port, reached.transport));
  if (found == table.end()) return;
  std::erase(found->second, ListenerEntry{reached.local.address, kernel, reached.reuse_port});
  if (found->second.empty()) table.erase(found);
}

void Directory::add(const Reached& reached) {
  if (++own_[reached] > 1) return;
  note_reached(reached, self_);
  tell_all({.notice = Notice::listener_added,
            .local = reached.local,
            .transport = reached.transport,
            .reuse_port = reached.reuse_port});
  if (listening_ && by_uplink(reached) && reachable_listeners(reached.local.port) == 1)
    listening_(reached.local.port, true);
}

bool Directory::by_uplink(const Reached& reached) const {
  const net::Ipv4Address address = reached.local.address;
  return reached.transport == Transport::stream && !address.is_loopback() &&
         ((address.families() & 1) != 0 || names_ != nullptr);
}

void Directory::mark_names(net::AddressNames& names) const {
  for (const auto& [key, claims] : claims_)
    for (const PortClaim& c : claims) names.mark(c.local.address);
  for (const auto& [handle, c] : own_claims_) names.mark(c.local.address);
  for (const auto& [name, waiting] : waiting_) names.mark(waiting.claim.local.address);
  for (const auto& [key, entries] : listeners_)
    for (const ListenerEntry& e : entries) names.mark(e.address);
  for (const auto& [reached, count] : own_) names.mark(reached.local.address);
  for (const std::deque<Owed>& owed : owed_)
    for (const Owed& what : owed) names.mark(what.local.address);
}

// Only what others have told can have come before this kernel knew the address for the cob's.
void Directory::renew_names() {
  if (names_ == nullptr) return;
  const auto renew = [this](net::Ipv4Address& a) {
    if (has_bytes(a)) a = names_->name(names_->address(a));
  };
  for (auto& [key, claims] : claims_)
    for (PortClaim& c : claims)
      if (c.owner != self_) renew(c.local.address);
  for (auto& [key, entries] : listeners_)
    for (ListenerEntry& e : entries)
      if (e.kernel != self_) renew(e.address);
}

u32 Directory::reachable_listeners(Port port) const {
  return static_cast<u32>(std::ranges::count_if(
      own_, [&](const auto& own) { return by_uplink(own.first) && own.first.local.port == port; }));
}

void Directory::remove(const Reached& reached) {
  const auto found = own_.find(reached);
  if (found == own_.end() || --found->second != 0) return;
  own_.erase(found);
  if (listening_ && by_uplink(reached) && reachable_listeners(reached.local.port) == 0)
    listening_(reached.local.port, false);
  drop_reached(reached, self_);
  tell_all({.notice = Notice::listener_removed,
            .local = reached.local,
            .transport = reached.transport,
            .reuse_port = reached.reuse_port});
}

std::optional<KernelId> Directory::find_listener(net::Endpoint destination) {
  const auto found = listeners_.find(key_of(destination.port, Transport::stream));
  if (found == listeners_.end()) return std::nullopt;
  // Those that shall have nothing new are found where nobody else listens.
  for (const bool shunned : {false, true}) {
    const auto fits = [&](const ListenerEntry& e) {
      return e.address.overlaps(destination.address) && shunned_.contains(e.kernel) == shunned;
    };
    u32 matches = 0;
    for (const ListenerEntry& e : found->second) {
      if (!fits(e)) continue;
      if (e.kernel == self_) return self_;
      ++matches;
    }
    if (matches == 0) continue;
    u32 wanted = turn_++ % matches;
    for (const ListenerEntry& e : found->second)
      if (fits(e) && wanted-- == 0) return e.kernel;
  }
  return std::nullopt;
}

bool Directory::listened_elsewhere(net::Endpoint destination) const {
  const auto found = listeners_.find(key_of(destination.port, Transport::stream));
  return found != listeners_.end() && std::ranges::any_of(found->second, [&](const auto& e) {
           return e.kernel != self_ && e.address.overlaps(destination.address);
         });
}

bool Directory::listens_out_of_reach(net::Endpoint destination) const {
  const auto found = elsewhere_.find(key_of(destination.port, Transport::stream));
  return found != elsewhere_.end() && std::ranges::any_of(found->second, [&](const auto& e) {
           return e.address.overlaps(destination.address);
         });
}

std::optional<KernelId> Directory::find_datagram(net::Endpoint destination, u32 hash) const {
  const auto found = listeners_.find(key_of(destination.port, Transport::datagram));
  if (found == listeners_.end()) return std::nullopt;
  const ListenerEntry* best = nullptr;
  u32 equals = 0;
  bool all_reuse = true;
  for (const ListenerEntry& e : found->second) {
    if (!e.address.overlaps(destination.address)) continue;
    if (best == nullptr || e.address.precision() > best->address.precision()) {
      equals = 0;
      all_reuse = true;
    } else if (e.address.precision() < best->address.precision()) {
      continue;
    }
    best = &e;
    ++equals;
    all_reuse = all_reuse && e.reuse_port;
  }
  if (best == nullptr) return std::nullopt;
  if (equals == 1 || !all_reuse) return best->kernel;
  u32 wanted = static_cast<u32>(u64{hash} * equals >> 32);
  for (const ListenerEntry& e : found->second)
    if (e.address == best->address && wanted-- == 0) return e.kernel;
  return best->kernel;
}

std::vector<KernelId> Directory::find_group(net::Endpoint group, bool broadcast) const {
  std::vector<KernelId> kernels;
  const auto found = listeners_.find(key_of(group.port, Transport::datagram));
  if (found == listeners_.end()) return kernels;
  for (const ListenerEntry& e : found->second) {
    if (broadcast ? !e.address.overlaps(group.address) : e.address != group.address) continue;
    if (std::find(kernels.begin(), kernels.end(), e.kernel) == kernels.end())
      kernels.push_back(e.kernel);
  }
  return kernels;
}

std::optional<KernelId> Directory::listener_for(net::Endpoint destination,
                                                std::optional<KernelId> preferred, u32 hash) const {
  const auto found = listeners_.find(key_of(destination.port, Transport::stream));
  if (found == listeners_.end()) return std::nullopt;
  std::vector<KernelId> listen;
  for (const ListenerEntry& e : found->second) {
    if (!e.address.overlaps(destination.address)) continue;
    if (e.kernel == self_) return self_;
    listen.push_back(e.kernel);
  }
  if (listen.empty()) return std::nullopt;
  if (!shunned_.empty()) {
    std::vector<KernelId> wanted = listen;
    std::erase_if(wanted, [this](KernelId k) { return shunned_.contains(k); });
    if (!wanted.empty()) listen = std::move(wanted);
  }
  if (preferred && std::ranges::find(listen, *preferred) != listen.end()) return preferred;
  std::ranges::sort(listen, {}, &KernelId::value);
  return listen[hash % listen.size()];
}

bool Directory::listens(KernelId kernel, net::Endpoint destination) const {
  const auto found = listeners_.find(key_of(destination.port, Transport::stream));
  return found != listeners_.end() && std::ranges::any_of(found->second, [&](const auto& e) {
           return e.kernel == kernel && (e.address.is_any() || e.address == destination.address);
         });
}

void Directory::peer_up(KernelId peer) {
  forget_owed(peer);
  for (const auto& [handle, c] : own_claims_)
    if (home_of(c.local.port) == peer)
      tell(peer, {.notice = Notice::claim_again, .name = handle}, {});
  for (const auto& [reached, count] : own_)
    tell(peer,
         {.notice = Notice::listener_added,
          .local = reached.local,
          .transport = reached.transport,
          .reuse_port = reached.reuse_port},
         {});
}

void Directory::peer_down(KernelId peer) {
  forget_owed(peer);
  for (auto it = claims_.begin(); it != claims_.end();) {
    std::erase_if(it->second, [&](const PortClaim& c) { return c.owner == peer; });
    it = it->second.empty() ? claims_.erase(it) : std::next(it);
  }
  Table& table = table_of(peer);
  for (auto it = table.begin(); it != table.end();) {
    std::erase_if(it->second, [&](const ListenerEntry& e) { return e.kernel == peer; });
    it = it->second.empty() ? table.erase(it) : std::next(it);
  }
}

}  // namespace cob::kernel
