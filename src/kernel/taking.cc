// Taking: the protocol between giver and taker; see taking.h and docs/angel.md. Kernel's loop only.
#include "kernel/taking.h"

#include <algorithm>

#include "kernel/angel_messages.h"
#include "kernel/wire_address.h"

namespace cob::kernel {

void Taking::attach(message::Messenger& messenger, net::Stack& stack) {
  messenger_ = &messenger;
  stack_ = &stack;
  messenger.on<TakeMessage, TakeReply>(
      [this](KernelId from, const TakeMessage& m) -> Result<TakeReply> {
        const net::Endpoint listener{
            from_wire(&stack_->names(), m.address, m.ipv6_first, m.ipv6_second), Port(m.port)};
        const u32 given = give(from, listener, std::min<u32>(m.most, most_at_once));
        if (given == 0) ++counters_.asked_in_vain;
        return TakeReply{.given = given};
      });
  messenger.on<TakenMessage>([this](message::Incoming& incoming, const TakenMessage& m) {
    on_taken(incoming.from, m, incoming.tail);
  });
  messenger.on<TakeWord>([this](KernelId from, const TakeWord& m) {
    on_word(from, m.move, static_cast<TakeStep>(u32{m.step}));
  });
}

bool Taking::ask(KernelId from, net::Endpoint listener, u32 most,
                 std::move_only_function<void(u32 given)> done) {
  if (takes_.size() + most > max_under_way) return false;
  const WireAddress at = to_wire(&stack_->names(), listener.address);
  const auto sent = messenger_->request<TakeMessage, TakeReply>(
      from,
      {.address = at.address,
       .port = listener.port.value,
       .most = static_cast<u16>(most),
       .ipv6_first = at.ipv6[0],
       .ipv6_second = at.ipv6[1]},
      now_ + patience, [done = std::move(done)](Result<TakeReply> reply) mutable {
        done(reply.is_error() ? 0 : u32{reply.value().given});
      });
  if (sent.is_error()) return false;
  ++counters_.asked;
  return true;
}

u32 Taking::give(KernelId to, net::Endpoint listener, u32 most) {
  u32 given = 0;
  while (giving_ && given < most && gives_.size() < max_under_way && may_give(to)) {
    auto taken = sockets_.give_waiting(listener);
    if (!taken) break;
    const u32 move = host_.new_move();
    departures_.hold_flow({taken->connection.local, taken->connection.remote}, move);
    const bool sent = send(to, move, *taken);
    gives_.emplace(move, Give{std::move(*taken), to, now_ + patience});
    if (!sent) {
      keep(move);
      break;
    }
    ++given;
    ++takers_[to.value].given;
  }
  return given;
}

bool Taking::may_give(KernelId to) {
  Taker& taker = takers_[to.value];
  if (now_ < taker.paused_until) return false;
  const u64 number = static_cast<u64>(now_.ns / period.ns);
  if (taker.period != number) {
    taker.period = number;
    taker.given = 0;
  }
  return taker.given < most_a_period;
}

void Taking::distrust(KernelId kernel) {
  Taker& taker = takers_[kernel.value];
  if (now_ < taker.paused_until) return;
  taker.paused_until = now_ + taker.pause;
  taker.pause = std::min(taker.pause * 2, longest_pause);
}

bool Taking::send(KernelId to, u32 move, const TakenConnection& taken) {
  const net::AddressNames& names = stack_->names();
  const WireAddress listener = to_wire(&names, taken.listener.address);
  const WireAddress local = to_wire(&names, taken.connection.local.address);
  const WireAddress remote = to_wire(&names, taken.connection.remote.address);
  std::vector<std::byte> tail = taken.connection.state;
  tail.insert(tail.end(), taken.unread.begin(), taken.unread.end());
  const TakenMessage m{.move = move,
                       .listener_address = listener.address,
                       .local_address = local.address,
                       .remote_address = remote.address,
                       .listener_port = taken.listener.port.value,
                       .local_port = taken.connection.local.port.value,
                       .remote_port = taken.connection.remote.port.value,
                       .route_kernel = taken.connection.route.kernel,
                       .came_us = taken.came_us,
                       .flags = taken.flags,
                       .state_bytes = static_cast<u16>(taken.connection.state.size()),
                       .listener_ipv6_first = listener.ipv6[0],
                       .listener_ipv6_second = listener.ipv6[1],
                       .local_ipv6_first = local.ipv6[0],
                       .local_ipv6_second = local.ipv6[1],
                       .remote_ipv6_first = remote.ipv6[0],
                       .remote_ipv6_second = remote.ipv6[1]};
  return !messenger_->send(to, m, {.tail = tail}).is_error();
}

// It goes on where it was, at the head of the queue.
void Taking::keep(u32 move) {
  const auto found = gives_.find(move);
  if (found == gives_.end()) return;
  const Give give = std::move(found->second);
  gives_.erase(found);
  ++counters_.given_back;
  (void)sockets_.take_waiting(give.taken, true);  // else its listener has ended, and so does it
  host_.take_held(departures_.give_up(move), now_);
}

void Taking::on_taken(KernelId from, const TakenMessage& m, std::span<const std::byte> tail) {
  net::AddressNames* names = &stack_->names();
  const auto endpoint = [&](u32 address, u64 first, u64 second, u16 port) {
    return net::Endpoint{from_wire(names, address, first, second), Port(port)};
  };
  TakenConnection taken;
  taken.listener =
      endpoint(m.listener_address, m.listener_ipv6_first, m.listener_ipv6_second, m.listener_port);
  taken.connection.local =
      endpoint(m.local_address, m.local_ipv6_first, m.local_ipv6_second, m.local_port);
  taken.connection.remote =
      endpoint(m.remote_address, m.remote_ipv6_first, m.remote_ipv6_second, m.remote_port);
  taken.connection.route.kernel = m.route_kernel;
  taken.flags = static_cast<u8>(u16{m.flags});
  taken.came_us = m.came_us;
  const std::size_t state_bytes = m.state_bytes;
  const bool formed = state_bytes <= tail.size() && u16{m.flags} <= 0xff &&
                      (taken.connection.route.is_uplink() || m.route_kernel < kernels_);
  if (formed) {
    const auto state = tail.first(state_bytes), unread = tail.subspan(state_bytes);
    taken.connection.state.assign(state.begin(), state.end());
    taken.unread.assign(unread.begin(), unread.end());
  }
  const u64 name = name_of(from, m.move);
  if (!formed || takes_.size() >= max_under_way || takes_.contains(name) ||
      sockets_.may_take_waiting(taken).is_error()) {
    ++counters_.refused;
    return say({from, m.move, TakeStep::refused});
  }
  const u32 move = host_.new_move();
  departures_.hold_flow({taken.connection.local, taken.connection.remote}, move);
  takes_.emplace(name, Take{std::move(taken), move});
  say({from, m.move, TakeStep::accepted});
}

void Taking::on_word(KernelId from, u32 move, TakeStep step) {
  if (step == TakeStep::accepted || step == TakeStep::refused) {
    const auto found = gives_.find(move);
    const bool known = found != gives_.end() && found->second.to == from;
    if (step == TakeStep::refused) {
      if (known) {
        distrust(from);
        keep(move);
      }
      return;
    }
    if (!known) return say({from, move, TakeStep::kept});
    // Peers are told first: what the taker sends them must not come before.
    const net::MovedConnection& c = found->second.taken.connection;
    if (!c.route.is_uplink()) host_.reroute(KernelId(c.route.kernel), {c.remote, c.local}, from);
    departures_.gone(move, from, now_);
    gives_.erase(found);
    ++counters_.given;
    takers_[from.value].pause = shortest_pause;
    return say({from, move, TakeStep::go});
  }
  const auto found = takes_.find(name_of(from, move));
  if (found == takes_.end()) return;
  Take take = std::move(found->second);
  takes_.erase(found);
  if (step == TakeStep::go) return take_in(from, std::move(take));
  host_.take_held(departures_.give_up(take.move), now_);
}

void Taking::take_in(KernelId from, Take take) {
  const net::MovedConnection& c = take.taken.connection;
  // A peer that is here.
  const auto here = net::Route::inside(self_);
  if (c.route == here && stack_->reroute(c.remote, c.local, net::Route::inside(from), here))
    departures_.peer_left({c.remote, c.local}, from, now_);
  if (sockets_.take_waiting(take.taken, false)) {
    ++counters_.taken;
  } else {
    ++counters_.lost;
  }
  host_.take_held(departures_.arrived(take.move, from, now_), now_);
}

void Taking::say(const Word& word) {
  if (!owed_.empty() || !try_say(word)) owed_.push_back(word);
}

// False: no room in its ring.
bool Taking::try_say(const Word& word) {
  const auto sent =
      messenger_->send(word.to, TakeWord{.move = word.move, .step = static_cast<u32>(word.step)});
  return !sent.is_error() || sent.error().code != EAGAIN;
}

void Taking::poll() {
  while (!owed_.empty() && try_say(owed_.front())) owed_.pop_front();
  if (gives_.empty()) return;
  std::vector<u32> late;
  for (const auto& [move, give] : gives_)
    if (give.until <= now_) late.push_back(move);
  for (const u32 move : late) {
    distrust(gives_.at(move).to);
    keep(move);
  }
}

Time Taking::next_deadline() const {
  Time next = Time::never();
  for (const auto& [move, give] : gives_) next = std::min(next, give.until);
  return next;
}

// What it was given is its own; what it had not yet is this kernel's.
void Taking::peer_down(KernelId peer) {
  std::erase_if(owed_, [&](const Word& word) { return word.to == peer; });
  std::vector<u32> back;
  for (const auto& [move, give] : gives_)
    if (give.to == peer) back.push_back(move);
  for (const u32 move : back) keep(move);
  takers_[peer.value] = {};
  std::vector<u32> over;
  std::erase_if(takes_, [&](const auto& entry) {
    if (entry.first >> 32 != peer.value) return false;
    over.push_back(entry.second.move);
    return true;
  });
  for (const u32 move : over) host_.take_held(departures_.give_up(move), now_);
}

}  // namespace cob::kernel
