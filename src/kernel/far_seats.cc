// Far seats: who is asked, and what waits; see far_seats.h. far_seats_move.cc has the images.
#include "kernel/far_seats.h"

#include <algorithm>
#include <utility>

#include "kernel/seat_messages.h"
#include "message/messenger.h"

namespace cob::kernel {

using call::SocketState;
using Where = FarSeat::Where;

void FarSeats::attach(message::Messenger& messenger, net::Stack& stack) {
  messenger_ = &messenger;
  stack_ = &stack;
  messenger.on<SeatAsk, SeatReply>(
      [this](KernelId from, const SeatAsk& m) { return on_ask(from, m.token); });
  messenger.on<SeatImage>([this](message::Incoming& incoming, const SeatImage& m) {
    if (other_kernel(incoming.from)) on_image(incoming.from, m, incoming.tail);
  });
  messenger.on<SeatWord>([this](KernelId from, const SeatWord& m) {
    if (other_kernel(from)) on_word(from, m);
  });
}

// ---- Who asks.

void FarSeats::find(u64 token, std::optional<KernelId> first, Found found) {
  if (!asks_.contains(token) && asks_.size() >= max_asks) return found(nullptr, EAGAIN);
  ask(token, first, std::move(found));
}

void FarSeats::ask(u64 token, std::optional<KernelId> first, Found found) {
  const auto [at, fresh] = asks_.try_emplace(token);
  Ask& one = at->second;
  if (found) one.found.push_back(std::move(found));
  if (!fresh) return;
  one.until = now_ + patience;
  for (u16 k = 0; k < kernels_; ++k)
    if (other_kernel(KernelId(k)) && first != KernelId(k)) one.to_ask.push_back(k);
  if (first && other_kernel(*first)) one.to_ask.push_front(first->value);
  one.again = now_;  // from poll(): who asks may not be ready for the answer
}

void FarSeats::ask_next(u64 token) {
  Ask& one = asks_.at(token);
  one.asked.reset();
  while (!one.to_ask.empty()) {
    const KernelId peer(one.to_ask.front());
    one.to_ask.pop_front();
    const auto sent = messenger_->request<SeatAsk, SeatReply>(
        peer, SeatAsk{.token = token}, now_ + image_patience,
        [this, token, round = ++rounds_, peer](Result<SeatReply> reply) {
          heard(token, round, peer, reply);
        });
    if (!sent.is_error()) {
      one.asked = peer;
      one.round = rounds_;
      return;
    }
    if (sent.error().code != EAGAIN) continue;
    one.to_ask.push_front(peer.value);
    one.again = now_ + retry;
    return;
  }
  end(token, nullptr, one.error);
}

void FarSeats::heard(u64 token, u64 round, KernelId peer, const Result<SeatReply>& reply) {
  const auto found = asks_.find(token);
  if (found == asks_.end() || found->second.round != round) return;
  Ask& one = found->second;
  one.round = 0;
  const auto later = [&] {
    one.asked.reset();
    one.to_ask.push_front(peer.value);
    one.again = now_ + retry;
  };
  if (reply.is_error()) {
    const i32 error = reply.error().code;
    if (error == EAGAIN || error == ETIMEDOUT) return later();
    if (error == EOPNOTSUPP) one.error = error;
    return ask_next(token);
  }
  if (u32{reply.value().answer} == std::to_underlying(SeatAnswer::comes)) return;
  const u32 kernel = reply.value().kernel;
  // It may be on its way to here, or who was asked has old news: a chain of those has an end.
  if (kernel >= kernels_ || !other_kernel(KernelId(static_cast<u16>(kernel))) ||
      ++one.hops > 2u * kernels_ + 8u) {
    one.hops = 0;
    return later();
  }
  one.to_ask.push_front(static_cast<u16>(kernel));
  ask_next(token);
}

// Who waited for it has it, or hears that it does not come.
void FarSeats::end(u64 token, Description* came, i32 error) {
  const auto found = asks_.find(token);
  if (found != asks_.end()) {
    std::vector<Found> askers = std::move(found->second.found);
    asks_.erase(found);
    for (Found& asker : askers) asker(came, error);
  }
  Description* d = came != nullptr ? nullptr : sockets_.at_token(token);
  if (d == nullptr || !Sockets::is_away(*d)) return;
  if (error == ENOENT) return lose(*d);
  refuse_waiting(*d, EBUSY);
}

// ---- What waits for it.

void FarSeats::park(Description& d, const ParkedCall& call) {
  FarSeat& far = *d.shared.make().far;
  far_.insert(d.handle);
  far.waiting.push_back(call);
  if (far.waiting.size() > max_waiting) return refuse_waiting(d, EBUSY);
  if (far.where == Where::away) ask(d.shared->token, far.at, {});
}

void FarSeats::run_waiting(Description& d) {
  const auto waiting = std::exchange(d.shared.make().far->waiting, {});
  for (const ParkedCall& call : waiting) {
    Program* program = sockets_.programs_.find(call.program);
    if (program != nullptr && program->attached())
      sockets_.programs_.execute(*program, call.thread, call.slot);
  }
}

void FarSeats::refuse_waiting(Description& d, i32 error) {
  const auto waiting = std::exchange(d.shared.make().far->waiting, {});
  for (const ParkedCall& call : waiting) {
    Program* program = sockets_.programs_.find(call.program);
    if (program == nullptr || !program->attached()) continue;
    if (call.slot.op >= call::Op::open)
      program->reply(call.thread, call.slot.sequence, -error, nullptr, 0);
    else
      sockets_.refuse_send(*program, call.slot);
  }
}

// Whoever had it has ended.
void FarSeats::lose(Description& d) {
  ++counters_.lost;
  const auto far = std::move(d.shared.make().far);
  far_.erase(d.handle);
  sockets_.retain(d);
  sockets_.fail(d, ECONNRESET);
  for (const ParkedCall& call : far->waiting) {
    Program* program = sockets_.programs_.find(call.program);
    if (program != nullptr && program->attached())
      sockets_.programs_.execute(*program, call.thread, call.slot);
  }
  sockets_.release(d);
}

void FarSeats::last_reference(Description& d, bool reset) {
  FarSeat& far = *d.shared.make().far;
  if (far.where == Where::away) {
    say({far.at, d.shared->token, 0, SeatStep::left, self_.value});
    return close(d, reset);
  }
  std::optional<KernelId> heir;
  far.others.for_each([&](KernelId k) {
    if (!heir && other_kernel(k) && messenger_->connected(k)) heir = k;
  });
  if (heir && give(d, *heir, true)) return;
  close(d, reset);
}

void FarSeats::close(Description& d, bool reset) {
  far_.erase(d.handle);
  d.shared.make().far.reset();
  sockets_.close_now(d, reset);
}

void FarSeats::changed(Description& d) {
  FarSeat& far = *d.shared.make().far;
  if (far.where != Where::here || far.others.empty() || far.news) return;
  far.news = true;
  news_.push_back(d.handle);
}

// ---- Who is asked.

Result<SeatReply> FarSeats::on_ask(KernelId from, u64 token) {
  Description* d = other_kernel(from) ? sockets_.at_token(token) : nullptr;
  if (d == nullptr || d->state == SocketState::file || d->state == SocketState::listening)
    return Error::of(ENOENT, "a socket with this token");
  const auto reply = [](SeatAnswer answer, KernelId kernel) {
    return SeatReply{.answer = std::to_underlying(answer), .kernel = kernel.value};
  };
  const FarSeat* far = d->shared->far.get();
  if (far != nullptr && far->where == Where::away) return reply(SeatAnswer::elsewhere, far->at);
  const auto may = sockets_.may_go_alone(*d, false);
  if (may.is_error() && may.error().code != EBUSY) return may.error();
  if (far != nullptr && far->where == Where::leaving)
    return Error::of(EAGAIN, "it is on its way to another kernel");
  if (std::ranges::any_of(gives_, [&](const auto& g) { return g.second.handle == d->handle; }) ||
      !give(*d, from, false))
    return Error::of(EAGAIN, "it, or too many others, are on their way");
  return reply(SeatAnswer::comes, self_);
}

void FarSeats::on_word(KernelId from, const SeatWord& m) {
  const u64 token = m.token;
  const u32 move = m.move, value = m.value;
  const auto take = takes_.find(name_of(from, move));
  const auto give = gives_.find(move);
  const bool given = give != gives_.end() && give->second.to == from && give->second.token == token;
  Description* d = sockets_.at_token(token);
  FarSeat* far = d != nullptr ? d->shared->far.get() : nullptr;
  switch (static_cast<SeatStep>(u32{m.step})) {
    case SeatStep::accepted:
      return on_accepted(from, token, move);
    case SeatStep::refused:  // by the taker; or the giver has nothing to send
      if (given) return give->second.packed ? keep(move) : drop_give(move, 0, false);
      if (const auto asked = asks_.find(token); asked != asks_.end() && asked->second.asked == from)
        end(token, nullptr, value == ENOENT ? EBUSY : static_cast<i32>(value));
      return;
    case SeatStep::go:
    case SeatStep::kept:
      if (take == takes_.end() || take->second.token != token || !take->second.group) return;
      {
        Take one = std::move(take->second);
        takes_.erase(take);
        if (static_cast<SeatStep>(u32{m.step}) == SeatStep::go)
          return take_in(from, std::move(one));
        drop_take(one);
      }
      if (const auto asked = asks_.find(token);
          asked != asks_.end() && asked->second.asked == from) {
        asked->second.to_ask.push_front(from.value);
        asked->second.again = now_ + retry;
      }
      return;
    case SeatStep::left:
      if (value < kernels_) on_left(token, KernelId(static_cast<u16>(value)), move);
      return;
    case SeatStep::here:
      if (d == nullptr) return say({from, token, 0, SeatStep::left, self_.value});
      if (far != nullptr && far->where == Where::away) far->at = from;
      return;
    case SeatStep::ready:
      if (far == nullptr || far->where != Where::away || far->at != from) return;
      far->events = value;
      return sockets_.write_flags(*d);
  }
}

void FarSeats::on_left(u64 token, KernelId who, u32 hops) {
  Description* d = sockets_.at_token(token);
  if (d == nullptr || d->shared->far == nullptr) return;
  FarSeat& far = *d->shared.make().far;
  if (far.where != Where::away) {
    far.others.remove(who);
  } else if (far.at != who && hops < 8) {
    say({far.at, token, hops + 1, SeatStep::left, who.value});
  }
}

// ---- The loop.

void FarSeats::poll() {
  while (!owed_.empty() && try_say(owed_.front())) owed_.pop_front();
  if (!news_.empty()) {
    for (const u32 handle : std::exchange(news_, {})) {
      Description* d = sockets_.at_handle(handle);
      FarSeat* far = d != nullptr ? d->shared->far.get() : nullptr;
      if (far == nullptr) continue;
      far->news = false;
      if (far->where != Where::here) continue;
      const u32 events = sockets_.shared_events(*d);
      far->others.for_each([&](KernelId k) {
        if (owed_.size() < max_owed) say({k, d->shared->token, 0, SeatStep::ready, events});
      });
    }
  }
  if (!gives_.empty()) {
    std::vector<u32> moves;
    moves.reserve(gives_.size());
    for (const auto& [move, one] : gives_) moves.push_back(move);
    for (const u32 move : moves) step(move);
  }
  if (asks_.empty()) return;
  std::vector<std::pair<u64, bool>> due;
  for (const auto& [token, one] : asks_)
    if (now_ >= one.until || now_ >= one.again) due.emplace_back(token, now_ >= one.until);
  for (const auto& [token, late] : due) {
    const auto found = asks_.find(token);
    if (found == asks_.end()) continue;
    if (late) {
      end(token, nullptr, EBUSY);
    } else {
      found->second.again = Time::never();
      ask_next(token);
    }
  }
}

Time FarSeats::next_deadline() const {
  Time next = Time::never();
  if (!news_.empty()) next = now_;
  for (const auto& [token, one] : asks_) next = std::min({next, one.until, one.again});
  for (const auto& [move, one] : gives_)
    next = std::min(next, one.packed && one.sent == one.image.size() ? one.until : now_ + retry);
  return next;
}

void FarSeats::peer_down(KernelId peer) {
  std::erase_if(owed_, [&](const Word& word) { return word.to == peer; });
  std::vector<u32> back;
  for (const auto& [move, one] : gives_)
    if (one.to == peer) back.push_back(move);
  for (const u32 move : back) gives_.at(move).packed ? keep(move) : drop_give(move, 0, false);
  std::vector<Take> over;
  std::erase_if(takes_, [&](auto& entry) {
    if (entry.first >> 32 != peer.value) return false;
    over.push_back(std::move(entry.second));
    return true;
  });
  for (Take& one : over) drop_take(one);
  for (auto& [token, one] : asks_)  // a request that is under way fails by itself
    if (one.asked == peer && one.round == 0) one.again = now_;
  std::erase_if(far_, [&](u32 handle) {
    Description* d = sockets_.at_handle(handle);
    FarSeat* far = d != nullptr ? d->shared->far.get() : nullptr;
    if (far == nullptr) return true;
    far->others.remove(peer);
    // It may have given the seat to another just before.
    if (far->where == Where::away && far->at == peer) ask(d->shared->token, std::nullopt, {});
    return false;
  });
}

void FarSeats::say(const Word& word) {
  if (!owed_.empty() || !try_say(word)) owed_.push_back(word);
}

// False: no room in its ring.
bool FarSeats::try_say(const Word& word) {
  const auto sent = messenger_->send(word.to, SeatWord{.token = word.token,
                                                       .move = word.move,
                                                       .step = std::to_underlying(word.step),
                                                       .value = word.value,
                                                       .reserved = 0});
  return !sent.is_error() || sent.error().code != EAGAIN;
}

}  // namespace cob::kernel
