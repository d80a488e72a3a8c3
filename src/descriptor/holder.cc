// Holder: references, tokens, sessions. docs/descriptors.md, 1 to 3 and 6.
// Model: as holder.h. Owned by the kernel's loop.
#include "descriptor/holder.h"

#include <algorithm>

#include "descriptor/lease_protocol.h"

namespace cob::descriptor {

using message::ReplyToken;

Holder::Holder(message::Messenger& messenger, const Clock& clock)
    : messenger_(messenger), clock_(clock), pairs_(messenger.links().kernels()) {
  messenger_.on<Recall, Returned>(
      [this](KernelId from, const Recall& m, ReplyToken<Returned> reply) {
        const Pair& pair = look(from);
        const auto found = pair.slots.find(key(handle_of(m.handle)));
        if (found == pair.slots.end()) return reply.fail(ENOENT);
        const u32 slot = found->second;
        Remote& remote = remotes_[slot];
        if (remote.grant == 0 || remote.grant != m.grant) return reply.fail(ENOENT);
        ++counters_.recalled;
        remote.recall = std::move(reply);
        go_on(slot);
      });
  messenger_.on<Invalidate, Invalidated>(
      [this](KernelId from, const Invalidate& m) -> Result<Invalidated> {
        look(from);
        ++counters_.invalidated;
        end_file_lease(from, m.lease);
        return Invalidated{.reserved = 0U};
      });
  messenger_.know<Read>();
  messenger_.know<ReadReply>();
  messenger_.know<Write>();
  messenger_.know<Written>();
  messenger_.know<Seek>();
  messenger_.know<Sought>();
  messenger_.know<Hold>();
  messenger_.know<Held>();
  messenger_.know<Drop>();
  messenger_.know<Dropped>();
  messenger_.know<Renew>();
  messenger_.know<Renewed>();
}

Holder::~Holder() = default;

Holder::Pair& Holder::look(KernelId peer) {
  Pair& pair = pairs_[peer.value];
  const message::Link* link = messenger_.links().find(peer);
  const u32 generation = link->connected ? link->generation : 0;
  if (pair.link_generation != generation) [[unlikely]] {
    if (pair.link_generation != 0) session_ended(peer);
    pair.link_generation = generation;
  }
  return pair;
}

void Holder::session_ended(KernelId peer) {
  Pair& pair = pairs_[peer.value];
  pair.lease.end();
  end_file_leases(peer);
  pair.renewing = false;
  pair.renew_at = Time::never();
  const auto slots = std::exchange(pair.slots, {});
  for (const auto& [name, slot] : slots) {
    Remote& remote = remotes_[slot];
    ++counters_.lost;
    remote.lost = true;
    lose_token(remote);
    remote.recall = {};
    for (auto& use : std::exchange(remote.waiting, {}))
      end(std::move(use), Error::of(ESTALE, "the home has ended"), {});
    maybe_drop(slot);
  }
}

// ---- References.

Result<Holder::Ref> Holder::opened(const Opened& opened, Time asked) {
  Pair& pair = look(opened.home);
  if (pair.link_generation == 0) return Error::of(ESTALE, "the home has ended");
  if (!opened.handle || pair.slots.contains(key(opened.handle)))
    return Error::of(EPROTO, "a handle that is here already");
  u32 slot = 0;
  if (!free_.empty()) {
    slot = free_.back();
    free_.pop_back();
  } else {
    if (remotes_.size() == max_descriptions) return Error::of(ENFILE, "too many descriptions");
    slot = static_cast<u32>(remotes_.size());
    remotes_.emplace_back();
  }
  Remote& remote = remotes_[slot];
  remote.generation = generations_++;
  if (generations_ == 0) generations_ = 1;
  remote.references = 1;
  remote.home = opened.home;
  remote.handle = opened.handle;
  remote.appends = opened.appends;
  remote.has_offset = opened.has_offset;
  pair.slots.emplace(key(opened.handle), slot);
  if (opened.grant.value != 0) take_token(remote, opened.grant.value, opened.offset, asked);
  // One that is not known here by now is told again, with the size.
  const auto leased = pair.leased.find(opened.file_lease);
  if (leased != pair.leased.end())
    take_file_lease(remote, opened.file_lease, leased->second.size, asked);
  return Ref{slot, remote.generation};
}

std::optional<Holder::Ref> Holder::find(KernelId home, Handle handle) {
  const Pair& pair = look(home);
  const auto found = pair.slots.find(key(handle));
  if (found == pair.slots.end()) return std::nullopt;
  return Ref{found->second, remotes_[found->second].generation};
}

// One reference more to what is here already.
std::optional<Holder::Ref> Holder::refer_to(KernelId home, Handle handle) {
  const auto found = find(home, handle);
  if (found) ++remotes_[found->slot].references;
  return found;
}

void Holder::adopt(KernelId home, Handle handle, bool appends, bool has_offset, AdoptDone done) {
  if (const auto here = refer_to(home, handle)) return done(*here);
  // Whoever wants it meanwhile joins: a second Hold might be answered after a Drop.
  auto& waiting = pairs_[home.value].adopting[key(handle)];
  if (waiting != nullptr) return waiting->push_back(std::move(done));
  waiting = std::make_shared<std::vector<AdoptDone>>();
  const auto waiters = waiting;
  waiters->push_back(std::move(done));
  const HandleField name = field_of(handle);
  const auto sent = messenger_.request<Hold, Held>(
      home, Hold{.count = 1}, {.tail = std::as_bytes(std::span(&name, 1))}, Time::never(),
      [this, home, handle, appends, has_offset, waiters](Result<Held> held, message::Incoming& in) {
        pairs_[home.value].adopting.erase(key(handle));
        const auto ref = held.is_error() ? Result<Ref>(Error::of(ESTALE, "the home has ended"))
                         : in.tail.size() != 1 || in.tail[0] != std::byte{1}
                             ? Result<Ref>(Error::of(ENOENT, "what was passed has ended"))
                             : opened({.home = home,
                                       .handle = handle,
                                       .grant = {},
                                       .offset = 0,
                                       .appends = appends,
                                       .has_offset = has_offset},
                                      clock_.now());
        // A reference each, before the first of them can drop it.
        if (!ref.is_error())
          remotes_[ref.value().slot].references = static_cast<u32>(waiters->size());
        for (AdoptDone& waiter : *waiters) waiter(ref);
      });
  if (sent) return;
  pairs_[home.value].adopting.erase(key(handle));
  for (AdoptDone& waiter : *waiters) waiter(sent.error());
}

void Holder::refer(Ref ref) {
  VERIFY(lives(ref));
  ++remotes_[ref.slot].references;
}

void Holder::drop(Ref ref, Done done) {
  VERIFY(lives(ref));
  Remote& remote = remotes_[ref.slot];
  VERIFY(remote.references > 0);
  if (--remote.references > 0) return done(u64{0});
  remote.dropping = true;
  remote.dropped = std::move(done);
  maybe_drop(ref.slot);
}

// Operations that are under way end first.
void Holder::maybe_drop(u32 slot) {
  Remote& remote = remotes_[slot];
  if (!remote.dropping || remote.under_way > 0) return;
  if (remote.references > 0) {  // adopted again meanwhile
    remote.dropping = false;
    return std::exchange(remote.dropped, {})(u64{0});
  }
  if (remote.lost) {
    Done done = std::move(remote.dropped);
    forget(slot);
    return done(u64{0});
  }
  const auto done = std::make_shared<Done>(std::move(remote.dropped));
  const auto sent = messenger_.request<Drop, Dropped>(
      remote.home,
      Drop{.handle = field_of(remote.handle), .grant = remote.grant, .offset = remote.offset},
      Time::never(), [done](Result<Dropped> dropped) {
        const i32 result = dropped.is_error() ? 0 : dropped.value().result.get();
        (*done)(result < 0 ? Result<u64>(Error::of(-result, "close")) : Result<u64>(u64{0}));
      });
  if (sent) {
    forget(slot);
  } else if (sent.error().code == EAGAIN) {
    remote.dropped = std::move(*done);
    undropped_.push_back({slot, remote.generation});
  } else {  // its end is known here in a moment; there it is by now
    forget(slot);
    (*done)(u64{0});
  }
}

void Holder::forget(u32 slot) {
  Remote& remote = remotes_[slot];
  if (!remote.lost) pairs_[remote.home.value].slots.erase(key(remote.handle));
  lose_token(remote);
  leave_file_lease(remote);
  remote = {};
  free_.push_back(slot);
}

// ---- Tokens.

void Holder::take_token(Remote& remote, u64 grant, u64 offset, Time asked) {
  Pair& pair = pairs_[remote.home.value];
  lose_token(remote);
  remote.grant = grant;
  remote.offset = offset;
  ++pair.tokens;
  extend(remote.home, asked);
  ++counters_.tokens;
}

void Holder::lose_token(Remote& remote) {
  if (remote.grant == 0) return;
  remote.grant = 0;
  // The last one's lease is renewed once more: a fence ends when it is told.
  --pairs_[remote.home.value].tokens;
}

void Holder::renew(KernelId peer, Time now) {
  Pair& pair = pairs_[peer.value];
  const u32 session = pair.link_generation;
  const auto sent = messenger_.request<Renew, Renewed>(
      peer, Renew{}, Time::never(), [this, peer, session, now](Result<Renewed> renewed) {
        Pair& there = pairs_[peer.value];
        if (there.link_generation != session) return;
        there.renewing = false;
        if (renewed.is_error()) {  // it waits for a recall's answer, or look() will see to it
          there.renew_at = clock_.now() + renew_interval;
          return;
        }
        if (renewed.value().fenced) end_file_leases(peer);
        extend(peer, now);
        const bool more = there.tokens > 0 || !there.leased.empty();
        there.renew_at = more ? now + renew_interval : Time::never();
        if (!renewed.value().fenced) return;
        ++counters_.fenced;
        std::vector<u32> slots;
        slots.reserve(there.slots.size());
        for (const auto& [name, slot] : there.slots) slots.push_back(slot);
        for (const u32 slot : slots) {
          lose_token(remotes_[slot]);
          go_on(slot);
        }
      });
  pair.renewing = bool(sent);
}

// ---- The loop.

void Holder::poll(Time now) {
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    if (pairs_[i].link_generation == 0) continue;
    const KernelId peer(static_cast<u16>(i));
    const Pair& pair = look(peer);
    if (pair.link_generation != 0 && !pair.renewing && now >= pair.renew_at) renew(peer, now);
  }
  for (std::size_t n = unsent_.size(); n > 0; --n) {
    auto use = std::move(unsent_.front());
    unsent_.pop_front();
    ask(std::move(use));
  }
  for (const Ref ref : std::exchange(starved_, {})) {
    if (!lives(ref)) continue;
    remotes_[ref.slot].starved = false;
    go_on(ref.slot);
  }
  for (const Ref ref : std::exchange(undropped_, {}))
    if (lives(ref)) maybe_drop(ref.slot);
}

Time Holder::next_deadline() const {
  Time next = Time::never();
  for (const Pair& pair : pairs_)
    if (!pair.renewing) next = std::min(next, pair.renew_at);
  return next;
}

}  // namespace cob::descriptor
