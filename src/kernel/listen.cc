// Sockets, passive opens: listeners and the offering of connections to the programs that accept;
// docs/calls.md, "Listening". Model: one queue a listener; connections are offered to programs that
// asked, taken by compare-and-swap of the seat, and taken back from a program that sits on them
// while another waits. listen(2), accept(2).
#include <algorithm>

#include "kernel/parts.h"
#include "kernel/sockets.h"

namespace cob::kernel {

using call::SocketState;

namespace {
constexpr u32 max_outstanding_offers = 64;
// How long a program that accepted takes to be seen: its taking of an offer tells nobody.
constexpr Duration offer_retry = Duration::microseconds(200);
constexpr Duration offer_patience = Duration::milliseconds(2);

// A thread of the program sleeps in accept, poll or epoll_wait on the listener.
bool waits(const Holder& holder) {
  const call::ProgramSocket& line = holder.program->theirs(holder.slot);
  return load(line.ready_ring) != 0 || load(line.read_waiter) != 0 || load(line.write_waiter) != 0;
}

bool takes_offers(const Holder& holder) {
  return holder.wants_accept &&
         holder.program->offers(holder.offer_ring).outstanding() < max_outstanding_offers;
}

Holder* holder_of(Description& d, const Program& program, u32 number) {
  for (Holder& h : d.holders)
    if (h.program == &program && h.slot == number) return &h;
  VERIFY(false);
  return nullptr;
}
}  // namespace

void Sockets::listen(Program& program, u32 number, u32 backlog, net::Ipv4Address any,
                     const CallOrigin& origin) {
  Description& d = *program.slot(number).description;
  backlog = std::clamp<u32>(backlog, 1, 4096);  // as net.core.somaxconn
  if (d.state == SocketState::listening) {
    d.queue->backlog = backlog;
    stack_->set_backlog(d.queue->listener, backlog);
    if (d.shared->part != nullptr) parts_->tell_listen(d, backlog);
    return answer(origin, 0);
  }
  if (d.state != SocketState::undecided || d.datagram != nullptr) return answer(origin, -EINVAL);
  if (d.claiming) return answer(origin, -EALREADY);
  if (!take_offer_ring(*holder_of(d, program, number))) return answer(origin, -ENOBUFS);
  if (!d.bound) {  // listen without bind takes an ephemeral port, as in Linux
    if (d.listened && !d.local.address.is_any()) any = d.local.address;  // as bind named it
    const auto port = any.is_any() || d.listened
                          ? ephemeral_port({}, any)
                          : Result<Port>(Error::of(EINVAL, "listening nowhere"));
    if (port.is_error()) {
      for (Holder& h : d.holders) give_offer_ring(h);
      return answer(origin, -EADDRINUSE);
    }
    d.local = {any, port.value()};
  }
  const PortClaim claim{.local = d.local,
                        .owner = options_.self,
                        .handle = d.handle,
                        .reuse_address = d.reuse_address,
                        .reuse_port = d.reuse_port,
                        .listening = true,
                        .group = group_of(d)};
  d.claiming = true;
  directory_.claim(claim, now_,
                   [this, local = d.local, handle = d.handle, backlog, origin](i32 result) {
                     const i32 answered = finish_listen(handle, local, backlog, result);
                     Description* listener = at_handle(handle);
                     if (answered == 0 && listener->shared->part != nullptr)
                       parts_->tell_listen(*listener, backlog);
                     answer(origin, answered);
                   });
}

// The port's home has answered. What the description was then it need not be any more.
i32 Sockets::finish_listen(u32 handle, net::Endpoint local, u32 backlog, i32 result) {
  Description* listener = at_handle(handle);
  if (listener == nullptr) {
    if (result == 0) directory_.unclaim(local, handle);
    return -EBADF;
  }
  listener->claiming = false;
  if (result == 0) {
    listener->bound = true;  // whatever follows, its end gives the port back
    if (listener->state != SocketState::undecided) result = -EINVAL;
  }
  net::ListenerId id;
  if (result == 0) {
    const auto joined = join_listener(*listener, backlog);
    if (joined.is_error()) {
      result = -joined.error().code;
    } else {
      id = joined.value();
    }
  }
  if (result != 0) {
    for (Holder& h : listener->holders) give_offer_ring(h);
    return result;
  }
  listener->listened = true;
  listener->state = SocketState::listening;
  listener->seat = -1;
  stack_->set_max_segment(id, listener->settings->max_segment_bytes);
  if (listener->settings->fast_open_queue != 0)
    stack_->set_fast_open(id, listener->settings->fast_open_queue);
  listener->queue = std::make_unique<ListenQueue>();
  listener->queue->listener = id;
  listener->queue->backlog = backlog;
  fit_announcement(*listener);
  write_names(*listener);
  write_flags(*listener);
  return 0;
}

// A program that has none left cannot accept from one more listener.
bool Sockets::take_offer_ring(Holder& holder) {
  if (holder.offer_ring == 0)
    holder.offer_ring = static_cast<u16>(holder.program->take_offer_ring());
  return holder.offer_ring != 0;
}

void Sockets::give_offer_ring(Holder& holder) {
  if (holder.offer_ring != 0) holder.program->give_offer_ring(holder.offer_ring);
  holder.offer_ring = 0;
}

// Listens in the stack, or with SO_REUSEPORT joins who does already.
Result<net::ListenerId> Sockets::join_listener(Description& d, u32 backlog) {
  for (auto& [id, group] : by_listener_) {
    const Description& other = *group.members.front();
    if (!d.reuse_port || !other.reuse_port || other.local != d.local) continue;
    group.members.push_back(&d);
    return net::ListenerId(id);
  }
  const net::ListenerId id = TRY(stack_->listen(d.local, backlog));
  by_listener_[id.value].members.push_back(&d);
  return id;
}

void Sockets::leave_listener(Description& d) {
  const auto group = by_listener_.find(d.queue->listener.value);
  VERIFY(group != by_listener_.end());
  std::erase(group->second.members, &d);
  if (!group->second.members.empty()) return fit_quiet(d.queue->listener);
  by_listener_.erase(group);
  stack_->close_listener(d.queue->listener);
}

// Connections that nobody was offered are reset. Returns how many.
std::size_t Sockets::reset_waiting(Description& d) {
  auto pending = std::move(d.queue->pending);
  for (const auto& one : d.queue->deferred) pending.push_back(one.connection);
  d.queue->deferred.clear();
  for (Description* waiting : pending) {
    waiting->queue_of = nullptr;
    waiting->deferred = false;
    waiting->linger_reset = true;
    release(*waiting);
  }
  return pending.size();
}

// Nobody listens on it any more: connections that nobody accepted are reset.
void Sockets::end_queue(Description& d) {
  if ((d.flags & call::flag_reset) == 0 && d.queue->announced) directory_.remove_listener(d.local);
  for (Holder& h : d.holders) take_offers_back(d, h);
  std::erase(busy_listeners_, &d);
  reset_waiting(d);
  leave_listener(d);
  d.queue.reset();
}

// shutdown(2) for reading: the socket is undecided again, as Linux's tcp_disconnect leaves it. A
// port that bind named stays its own, an address in any case; holders that wanted offers want them
// again when it listens again.
void Sockets::stop_listening(Description& d) {
  end_queue(d);
  d.state = SocketState::undecided;
  if (d.port_given) {
    directory_.claim({.local = d.local,
                      .owner = options_.self,
                      .handle = d.handle,
                      .reuse_address = d.reuse_address,
                      .reuse_port = d.reuse_port,
                      .group = group_of(d)},
                     now_, [](i32) {});
  } else {
    directory_.unclaim(d.local, d.handle);
    d.bound = false;
  }
  if (d.holders.size() == 1) {
    const Holder& h = d.holders.front();
    d.seat = 0;
    d.first_chunk = d.last_chunk = call::no_chunk;
    d.first_position = d.consumed = h.program->ours(h.slot).received;  // nothing is unread
    publish(h.program->theirs(h.slot).seat, static_cast<u32>(call::seat_idle));
  }
  write_flags(d);
}

// It connects after having listened: the lines, which counted offers, count bytes from now on.
void Sockets::forget_offers(Description& d) {
  d.listened = false;
  for (std::size_t i = 0; i < d.holders.size(); ++i) {
    Holder& h = d.holders[i];
    h.wants_accept = false;
    give_offer_ring(h);
    call::KernelSocket& line = h.program->ours(h.slot);
    const u64 position = load(h.program->theirs(h.slot).consumed);
    line.offer_ring = 0;
    line.first_position = position;
    publish(line.received, position);
    if (d.seat == static_cast<i32>(i)) d.first_position = d.consumed = position;
  }
}

// Connections are led to a part of a listener if programs here ask for them; if none does on any
// kernel, to the first that has a part, where they wait.
void Sockets::fit_announcement(Description& d) {
  if (d.queue == nullptr || (d.flags & call::flag_reset) != 0) return;
  const SharedListener* part = d.shared->part.get();
  bool wanted = true;
  if (part != nullptr && !part->accepts) {
    wanted = part->accepting.empty();
    part->others.for_each([&](KernelId other) { wanted &= options_.self < other; });
  }
  if (wanted == d.queue->announced) return;
  d.queue->announced = wanted;
  if (wanted) {
    directory_.add_listener(d.local);
  } else {
    directory_.remove_listener(d.local);
  }
  fit_quiet(d.queue->listener);
}

// Of those behind one listener of the stack, one that is announced is enough.
void Sockets::fit_quiet(net::ListenerId listener) {
  const auto& members = by_listener_.at(listener.value).members;
  stack_->set_quiet(listener, std::ranges::none_of(members, [](const Description* one) {
                      return one->queue != nullptr && one->queue->announced;
                    }));
}

void Sockets::want_accept(Program& program, u32 number) {
  Description& d = *program.slot(number).description;
  if (d.state != SocketState::listening) return;
  for (Holder& h : d.holders) {
    if (h.program != &program || h.slot != number || h.wants_accept) continue;
    call::KernelSocket& line = program.ours(number);
    if (!take_offer_ring(h)) {  // a listener that others opened: its accept gives ENOBUFS
      publish(line.offer_ring, call::no_offer_ring);
      return;
    }
    h.wants_accept = true;
    Offers& offers = program.offers(h.offer_ring);
    offers.made = offers.settled = static_cast<u32>(line.received);
    program.arena().ours().offer_head[h.offer_ring].head = offers.made;
    publish(line.offer_ring, h.offer_ring);
  }
  if (d.shared->part != nullptr) parts_->look(d);
  // What another program was offered while it was alone may be wanted here now.
  if (d.holders.size() > 1) offers_check_ = std::min(offers_check_, now_ + offer_patience);
  offer(d);
}

// The rest is a listener's own.
void Sockets::inherit_settings(Description& d, const SettingsPart& from) {
  SettingsPart only{.keep_alive_idle_s = from.keep_alive_idle_s,
                    .keep_alive_interval_s = from.keep_alive_interval_s,
                    .keep_alive_probes = from.keep_alive_probes,
                    .limits = from.limits,
                    .congestion = from.congestion,
                    .defer_accept_s = 0,
                    .fast_open_queue = 0,
                    .max_segment_bytes = 0,
                    .urgent_inline = from.urgent_inline};
  if (only != SettingsPart{}) d.settings.make() = only;
}

void Sockets::on_incoming(net::ListenerId listener, net::TcbId tcb) {
  const auto found = by_listener_.find(listener.value);
  const auto opened =
      found == by_listener_.end() ? Result<Description*>(Error::of(EBADF, "listener")) : open();
  if (opened.is_error()) {
    stack_->abort(tcb);
    return;
  }
  Description& d = *opened.value();
  const auto info = stack_->info(tcb);
  d.state = SocketState::connected;
  d.tcb = tcb;
  d.local = info.value().local;
  d.remote = info.value().remote;
  ListenerGroup& group = found->second;
  Description* next = group.members[group.turn++ % group.members.size()];
  for (std::size_t i = 1; i < group.members.size() && !next->queue->announced; ++i)
    next = group.members[group.turn++ % group.members.size()];
  Description& parent = *next;
  d.queue_of = &parent;
  d.came_us = static_cast<u32>(now_.ns / 1'000);
  count_unaccepted(d, true);
  inherit(d, parent);
  d.references = 1;  // the queue's
  stack_->set_cookie(tcb, to_cookie(d));
  apply_options(d);
  if (parent.settings->defer_accept_s != 0) return defer(d, parent);
  parent.queue->pending.push_back(&d);
  mark_busy(parent);
}

// accept(2): socket options of the listener are inherited.
void Sockets::inherit(Description& d, const Description& listener) {
  d.no_delay = listener.no_delay;
  d.cork = listener.cork;
  d.keep_alive = listener.keep_alive;
  d.receive_limit = listener.receive_limit;
  d.send_limit = listener.send_limit;
  d.receive_fixed = listener.receive_fixed;
  d.send_fixed = listener.send_fixed;
  if (listener.settings.made()) inherit_settings(d, *listener.settings);
}

// TCP_DEFER_ACCEPT, tcp(7): a connection is not offered before its peer sends or ends, or the time
// is over. It counts against the backlog meanwhile.
void Sockets::defer(Description& connection, Description& listener) {
  connection.deferred = true;
  const Time until = now_ + Duration::seconds(listener.settings->defer_accept_s);
  listener.queue->deferred.push_back({&connection, until});
  deferred_check_ = std::min(deferred_check_, until);
}

void Sockets::undefer(Description& connection) {
  Description& listener = *connection.queue_of;
  connection.deferred = false;
  std::erase_if(listener.queue->deferred,
                [&](const ListenQueue::Deferred& one) { return one.connection == &connection; });
  listener.queue->pending.push_back(&connection);
  mark_busy(listener);
}

void Sockets::check_deferred() {
  deferred_check_ = Time::never();
  for (const auto& [id, group] : by_listener_) {
    for (Description* listener : group.members) {
      auto& deferred = listener->queue->deferred;
      for (std::size_t i = 0; i < deferred.size();) {
        if (deferred[i].until <= now_) {
          undefer(*deferred[i].connection);
        } else {
          deferred_check_ = std::min(deferred_check_, deferred[i++].until);
        }
      }
    }
  }
}

void Sockets::mark_busy(Description& listener) {
  if (std::find(busy_listeners_.begin(), busy_listeners_.end(), &listener) == busy_listeners_.end())
    busy_listeners_.push_back(&listener);
}

// Looks at the offers that the program has looked at since: taken ones leave the backlog.
void Sockets::settle(Description&, Holder& holder) {
  if (!holder.wants_accept) return;
  Program& program = *holder.program;
  Offers& offers = program.offers(holder.offer_ring);
  const u32 seen = static_cast<u32>(load(program.theirs(holder.slot).consumed));
  if (seen - offers.settled > offers.made - offers.settled) return;  // a lie; only the liar waits
  const auto& ring = program.arena().ours().offers[holder.offer_ring];
  for (; offers.settled != seen; ++offers.settled) {
    const u32 number = ring.socket[offers.settled % call::offer_slots];
    if (!program.slot_open(number)) continue;
    Description& d = *program.slot(number).description;
    if (!d.accept_counted) continue;
    // An offer again: what was taken then is closed, and its slot offered anew. (Looked at and left
    // is never written by our shim; whoever does it keeps that connection waiting, his own loss.)
    if (load(program.theirs(number).seat) == call::seat_offered) continue;
    mark_accepted(d);
  }
}

void Sockets::mark_accepted(Description& connection) {
  count_unaccepted(connection, false);
  ++counters_.accepted;
  if (const Description* l = at_handle(connection.offered_by); l != nullptr && l->queue != nullptr)
    ++l->queue->accepted;
  connection.offered_by = 0;
  // Its listener may have been closed behind a program that said it had looked at the offer.
  if (connection.tcb != net::no_tcb && !stack_->accepted(connection.tcb))
    fail(connection, ECONNRESET);
}

bool Sockets::offer_to(Description& listener, Holder& holder, Description& connection) {
  Program& program = *holder.program;
  const u32 number = program.take_slot();
  if (number == 0) return false;
  const u32 generation = program.slot(number).generation + 1;
  hold(program, number, connection, generation);
  release(connection);  // the queue's reference: the holder has one now
  publish(program.theirs(number).seat, static_cast<u32>(call::seat_offered));
  auto& ring = program.arena().ours();
  Offers& offers = program.offers(holder.offer_ring);
  ring.offers[holder.offer_ring].socket[offers.made % call::offer_slots] = number;
  ++offers.made;
  publish(ring.offer_head[holder.offer_ring].head, offers.made);
  call::KernelSocket& line = program.ours(holder.slot);
  publish(line.received, line.received + 1);
  ++line.change;
  program.touch(holder.slot);
  connection.queue_of = nullptr;
  connection.offered_by = listener.handle;
  if (listener.holders.size() > 1) offers_check_ = std::min(offers_check_, now_ + offer_patience);
  return true;
}

void Sockets::offer(Description& listener) {
  ListenQueue& queue = *listener.queue;
  if (listener.holders.empty()) return;
  u32 refused = 0;
  for (Holder& h : listener.holders) settle(listener, h);
  while (!queue.pending.empty() && refused < listener.holders.size()) {
    // Programs that wait on it at this moment come first, then those that merely asked once.
    Holder* chosen = nullptr;
    for (u32 i = 0; i < listener.holders.size() && chosen == nullptr; ++i) {
      Holder& h = listener.holders[(queue.next_holder + i) % listener.holders.size()];
      if (!takes_offers(h)) continue;
      if (waits(h) || listener.holders.size() == 1) {
        chosen = &h;
        queue.next_holder += i + 1;
      }
    }
    for (Holder& h : listener.holders) {
      if (chosen != nullptr) break;
      if (takes_offers(h)) chosen = &h;
    }
    if (chosen == nullptr) {
      for (const Holder& h : listener.holders)
        if (h.wants_accept) offers_retry_ = now_ + offer_retry;
      break;
    }
    Description& connection = *queue.pending.front();
    queue.pending.pop_front();
    if (!offer_to(listener, *chosen, connection)) {
      queue.pending.push_front(&connection);
      ++refused;
    }
  }
}

// The holder goes, or is too slow: what it has not taken returns to the front of the queue, oldest
// first.
void Sockets::take_offers_back(Description& listener, Holder& holder) {
  if (!holder.wants_accept) return;
  settle(listener, holder);
  Program& program = *holder.program;
  auto& entries = program.arena().ours().offers[holder.offer_ring];
  const Offers offers = program.offers(holder.offer_ring);
  for (u32 at = offers.made; at != offers.settled; --at) {
    const u32 number = entries.socket[(at - 1) % call::offer_slots];
    if (!program.slot_open(number)) continue;
    u32 expected = call::seat_offered;
    Description& d = *program.slot(number).description;
    // The slot may be another's by now, and its seat word says what the program likes.
    if (d.offered_by != listener.handle) continue;
    if (d.references > 1) {  // passed on
      mark_accepted(d);
      continue;
    }
    if (!__atomic_compare_exchange_n(&program.theirs(number).seat, &expected,
                                     static_cast<u32>(call::seat_away), false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_RELAXED)) {
      if (d.accept_counted) mark_accepted(d);  // the program was quicker
      continue;
    }
    retain(d);  // the queue's again
    d.offered_by = 0;
    const bool counted = d.accept_counted;
    d.accept_counted = false;  // not accepted: merely gone from this program
    if (d.seat >= 0) take_unread(d);
    let_go(program, number, false);
    d.accept_counted = counted;
    ++counters_.offers_taken_back;
    if (d.tcb == net::no_tcb) {
      release(d);
      continue;
    }
    d.queue_of = &listener;
    listener.queue->pending.push_front(&d);
  }
  mark_busy(listener);
}

void Sockets::poll(Time now) {
  now_ = now;
  while (!leaving_.empty() && leaving_.front().until <= now) [[unlikely]] {
    directory_.remove(leaving_.front().reached);
    leaving_.pop_front();
  }
  if (now >= deferred_check_) check_deferred();
  offers_retry_ = Time::never();
  for (std::size_t i = 0; i < busy_listeners_.size();) {
    Description& listener = *busy_listeners_[i];
    offer(listener);
    if (listener.queue->pending.empty()) {
      busy_listeners_[i] = busy_listeners_.back();
      busy_listeners_.pop_back();
    } else {
      ++i;
    }
  }
  if (now < offers_check_) return;
  offers_check_ = Time::never();
  for (const auto& [id, group] : by_listener_)
    for (Description* listener : group.members) check_patience(*listener);
}

// A program that has sat on offers since the last look loses them while another one waits.
void Sockets::check_patience(Description& listener) {
  if (listener.holders.size() < 2) return;
  Holder* slow = nullptr;
  bool another_waits = false;
  for (Holder& h : listener.holders) {
    settle(listener, h);
    if (!h.wants_accept) continue;
    Offers& offers = h.program->offers(h.offer_ring);
    if (offers.outstanding() != 0) {
      if (offers.settled_at_check == offers.settled && offers.made_at_check != offers.settled)
        slow = &h;
      offers.settled_at_check = offers.settled;
      offers.made_at_check = offers.made;
      offers_check_ = now_ + offer_patience;
    } else {
      another_waits |= waits(h);
    }
  }
  if (slow != nullptr && another_waits) take_offers_back(listener, *slow);
}

}  // namespace cob::kernel
