// Sockets, connections that nobody has accepted yet: what load is made of, and how they go to
// another kernel's listener; docs/angel.md. Model: they leave in the order in which they came; what
// was offered to a program that does not look comes back first. Kernel's loop only. accept(2).
#include <algorithm>

#include "kernel/sockets.h"

namespace cob::kernel {

using call::SocketState;

namespace {

// Threads of the program that wait on the listener just now; 2: or more.
u32 waiting_threads(const Holder& holder) {
  if (!holder.wants_accept) return 0;
  const call::ProgramSocket& line = holder.program->theirs(holder.slot);
  const auto threads = [](u32 waiter) { return waiter == 0 ? 0u : waiter == 0xffff ? 2u : 1u; };
  u32 waiting = threads(load(line.read_waiter));
  const u32 ring = load(line.ready_ring);
  if (ring != 0 && ring < call::max_ready_rings)
    waiting += threads(load(holder.program->arena().theirs().ready_tail[ring].waiter));
  return std::min(waiting, 2u);
}

}  // namespace

void Sockets::count_unaccepted(Description& d, bool waits) {
  if (d.accept_counted == waits) return;
  d.accept_counted = waits;
  waits ? ++unaccepted_ : --unaccepted_;
}

AcceptLoad Sockets::load_of(ListenerGroup& group) {
  AcceptLoad out{.local = group.members.front()->local};
  const auto note = [&](const Description& d) {
    const u32 age = static_cast<u32>(now_.ns / 1'000) - d.came_us;
    if (static_cast<i32>(age) > 0) out.oldest_us = std::max(out.oldest_us, age);
  };
  for (Description* listener : group.members) {
    for (Holder& h : listener->holders) {
      settle(*listener, h);
      out.waiting += waiting_threads(h);
      if (!h.wants_accept) continue;
      const Offers& offers = h.program->offers(h.offer_ring);
      out.unaccepted += offers.outstanding();
      if (offers.outstanding() == 0) continue;
      const u32 number =
          h.program->arena().ours().offers[h.offer_ring].socket[offers.settled % call::offer_slots];
      if (h.program->slot_open(number)) note(*h.program->slot(number).description);
    }
    const auto& pending = listener->queue->pending;
    out.unaccepted += static_cast<u32>(pending.size());
    if (!pending.empty()) note(*pending.front());
    out.accepted += listener->queue->accepted;
  }
  return out;
}

void Sockets::accept_loads(std::size_t most, std::vector<AcceptLoad>& out) {
  constexpr Duration look_interval = Duration::milliseconds(5);
  if (now_ >= shared_listeners_due_) {
    shared_listeners_due_ = now_ + look_interval;
    shared_listeners_.clear();
    for (const auto& [id, group] : by_listener_)
      if (shared_listeners_.size() < most &&
          directory_.listened_elsewhere(group.members.front()->local))
        shared_listeners_.push_back(id);
  }
  out.clear();
  for (const u32 id : shared_listeners_)
    if (const auto found = by_listener_.find(id); found != by_listener_.end())
      out.push_back(load_of(found->second));
}

Sockets::ListenerGroup* Sockets::group_at(net::Endpoint to) {
  for (auto& [id, group] : by_listener_) {
    const Description& d = *group.members.front();
    if (d.local.port == to.port && d.local.address.overlaps(to.address)) return &group;
  }
  return nullptr;
}

std::optional<AcceptLoad> Sockets::accept_load(net::Endpoint to) {
  ListenerGroup* group = group_at(to);
  if (group == nullptr) return std::nullopt;
  return load_of(*group);
}

// What is rare stays: it is accepted here, in its turn.
bool Sockets::may_give(const Description& d) const {
  return d.state == SocketState::connected && d.tcb != net::no_tcb && d.references == 1 &&
         d.holders.empty() && d.error == 0 && (d.flags & ~call::flag_peer_closed) == 0 &&
         !d.urgent && !d.shared.made() && d.send_buffered == 0 &&
         d.kept.size() <= most_taken_unread && stack_->may_take_out(d.tcb);
}

std::optional<TakenConnection> Sockets::give_waiting(net::Endpoint at) {
  ListenerGroup* const group = group_at(at);
  if (group == nullptr) return std::nullopt;
  Description* first = nullptr;
  for (Description* listener : group->members) {
    for (Holder& h : listener->holders)
      if (waiting_threads(h) == 0) take_offers_back(*listener, h);
    for (Description* d : listener->queue->pending) {
      if (!may_give(*d)) continue;
      if (first == nullptr || static_cast<i32>(d->came_us - first->came_us) < 0) first = d;
      break;
    }
  }
  if (first == nullptr) return std::nullopt;
  Description& d = *first;
  Description& listener = *d.queue_of;
  auto taken = stack_->take_out(d.tcb, false);
  if (taken.is_error()) return std::nullopt;
  TakenConnection out{.listener = listener.local,
                      .connection = taken.release_value(),
                      .flags = d.flags,
                      .came_us = d.came_us,
                      .unread = {}};
  const auto unread = d.kept.bytes();
  out.unread.assign(unread.begin(), unread.end());
  std::erase(listener.queue->pending, &d);
  d.tcb = net::no_tcb;
  d.queue_of = nullptr;
  d.references = 0;
  free_description(d);
  return out;
}

Result<void> Sockets::may_take_waiting(const TakenConnection& taken) {
  const ListenerGroup* group = group_at(taken.listener);
  if (group == nullptr || group->members.front()->local != taken.listener)
    return Error::of(ENOENT, "nobody listens there");
  if ((taken.flags & ~call::flag_peer_closed) != 0 || taken.unread.size() > most_taken_unread)
    return Error::of(EPROTO, "a waiting connection's state");
  TRY(stack_->may_take_in(taken.connection));
  const net::MovedFacts facts = stack_->facts_of(taken.connection);
  if (!facts.waits || !facts.passive || facts.announced_bytes != 0)
    return Error::of(EPROTO, "not a connection that waits to be accepted");
  return {};
}

bool Sockets::take_waiting(const TakenConnection& taken, bool first) {
  if (may_take_waiting(taken).is_error()) return false;
  ListenerGroup& group = *group_at(taken.listener);
  Description* parent = group.members.front();
  for (Description* listener : group.members)
    if (std::ranges::any_of(listener->holders, [](const Holder& h) { return waiting_threads(h); }))
      parent = listener;
  const auto opened = open();
  if (opened.is_error()) return false;
  Description& d = *opened.value();
  const auto tcb = stack_->take_in(taken.connection, to_cookie(d), parent->queue->listener);
  if (tcb.is_error()) {
    free_description(d);
    return false;
  }
  d.state = SocketState::connected;
  d.tcb = tcb.value();
  d.local = taken.connection.local;
  d.remote = taken.connection.remote;
  d.flags = taken.flags;
  d.came_us = taken.came_us;
  d.kept.append(taken.unread);
  d.queue_of = parent;
  d.references = 1;  // the queue's
  count_unaccepted(d, true);
  inherit(d, *parent);
  apply_options(d);
  if (first) {
    parent->queue->pending.push_front(&d);
  } else {
    parent->queue->pending.push_back(&d);
  }
  mark_busy(*parent);
  return true;
}

}  // namespace cob::kernel
