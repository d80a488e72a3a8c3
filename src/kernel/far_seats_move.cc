// Far seats: how one goes from kernel to kernel; see far_seats.h. The steps are those of taking.cc,
// with an image in pieces. docs/descriptors.md, 11.
#include <algorithm>
#include <cstring>
#include <utility>

#include "kernel/far_seats.h"
#include "kernel/seat_messages.h"
#include "message/messenger.h"

namespace cob::kernel {

using Where = FarSeat::Where;

// ---- The giver.

// False: too many are under way.
bool FarSeats::give(Description& d, KernelId to, bool last) {
  if (gives_.size() >= max_under_way) return false;
  sockets_.retain(d);
  gives_.emplace(host_.new_move(), Give{.token = d.shared->token,
                                        .handle = d.handle,
                                        .to = to,
                                        .until = now_ + image_patience,
                                        .last = last});
  return true;
}

void FarSeats::step(u32 move) {
  const auto found = gives_.find(move);
  if (found == gives_.end()) return;
  Give& one = found->second;
  if (!one.packed) {
    Description* d = sockets_.at_handle(one.handle);
    VERIFY(d != nullptr);
    const auto may = sockets_.may_go_alone(*d, true);  // asks for the seat
    if (may.is_error()) {
      if (may.error().code == EBUSY && now_ < one.until) return;
      return drop_give(move, may.error().code, true);
    }
    pack(move, one, *d);
  }
  while (one.sent < one.image.size()) {
    const std::size_t part = std::min(one.image.size() - one.sent, SeatImage::max_tail);
    const auto sent =
        messenger_->send(one.to,
                         SeatImage{.token = one.token,
                                   .move = move,
                                   .bytes = static_cast<u32>(one.image.size()),
                                   .offset = static_cast<u32>(one.sent),
                                   .reserved = 0},
                         {.tail = std::span<const std::byte>(one.image).subspan(one.sent, part)});
    if (sent.is_error()) {
      if (sent.error().code != EAGAIN || now_ >= one.until) keep(move);
      return;
    }
    one.sent += part;
    one.until = now_ + image_patience;
  }
  if (now_ >= one.until) keep(move);
}

// From here on it is hollow.
void FarSeats::pack(u32 move, Give& one, Description& d) {
  auto& far = d.shared.make().far;
  if (far == nullptr) far = std::make_unique<FarSeat>();
  far_.insert(d.handle);
  far->events = sockets_.shared_events(d);
  far->where = Where::leaving;
  message::KernelSet others = far->others;
  others.remove(one.to);
  others.add(self_);  // perhaps not any more by then: it says so
  std::vector<u32> head{static_cast<u32>(others.size())};
  others.for_each([&](KernelId k) { head.push_back(k.value); });
  const auto bytes = std::as_bytes(std::span(head));
  one.image.assign(bytes.begin(), bytes.end());
  one.head = bytes.size();
  const auto image = sockets_.pack_alone(d, departures_, move, one.end);
  one.image.insert(one.image.end(), image.begin(), image.end());
  one.packed = true;
  one.until = now_ + image_patience;
}

// It was not packed yet. `error`, if it is to be told.
void FarSeats::drop_give(u32 move, i32 error, bool tell) {
  const Give one = std::move(gives_.at(move));
  gives_.erase(move);
  ++counters_.kept;
  if (tell && !one.last) say({one.to, one.token, move, SeatStep::refused, static_cast<u32>(error)});
  Description* d = sockets_.at_handle(one.handle);
  if (one.last && d->shared->far != nullptr) d->shared.make().far->others.remove(one.to);
  sockets_.release(*d);
}

// It goes on here as if it had never been packed.
void FarSeats::keep(u32 move) {
  Give one = std::move(gives_.at(move));
  gives_.erase(move);
  ++counters_.kept;
  Description& d = *sockets_.at_handle(one.handle);
  auto image = MovedGroup::parse(
      {one.image.begin() + static_cast<std::ptrdiff_t>(one.head), one.image.end()},
      &stack_->names());
  VERIFY(!image.is_error());
  VERIFY(!sockets_.take_alone(image.value(), &d, self_).is_error());
  FarSeat& far = *d.shared.make().far;
  far.where = Where::here;
  if (one.last) far.others.remove(one.to);
  host_.take_held(departures_.give_up(move), now_);
  sockets_.write_flags(d);
  run_waiting(d);
  sockets_.release(d);
}

void FarSeats::on_accepted(KernelId from, u64 token, u32 move) {
  const auto found = gives_.find(move);
  if (found == gives_.end() || found->second.to != from || found->second.token != token ||
      !found->second.packed || found->second.sent != found->second.image.size())
    return say({from, token, move, SeatStep::kept, 0});
  const Give one = std::move(found->second);
  gives_.erase(found);
  ++counters_.gone;
  // Peers are told first: what the taker sends them must not come before.
  if (one.end && !one.end->route.is_uplink())
    host_.reroute(KernelId(one.end->route.kernel), {one.end->flow.remote, one.end->flow.local},
                  from);
  departures_.gone(move, from, now_);
  say({from, token, move, SeatStep::go, 0});
  Description& d = *sockets_.at_handle(one.handle);
  sockets_.leave_alone(d);
  FarSeat& far = *d.shared.make().far;
  far.where = Where::away;
  far.at = from;
  far.others = {};
  if (!far.waiting.empty()) ask(token, from, {});
  sockets_.release(d);
}

// ---- The taker.

void FarSeats::on_image(KernelId from, const SeatImage& m, std::span<const std::byte> tail) {
  const u64 token = m.token, name = name_of(from, m.move);
  const u32 bytes = m.bytes, offset = m.offset;
  auto found = takes_.find(name);
  const auto refuse = [&](i32 error) {
    if (found != takes_.end()) takes_.erase(found);
    say({from, token, m.move, SeatStep::refused, static_cast<u32>(error)});
  };
  if (found == takes_.end()) {
    if (offset != 0) return;  // of one that was refused
    const auto asked = asks_.find(token);
    const Description* d = sockets_.at_token(token);
    const bool awaited = (asked != asks_.end() && asked->second.asked == from) ||
                         (d != nullptr && Sockets::is_away(*d) && d->shared->far->at == from);
    if (!awaited) return refuse(ENOENT);
    if (bytes == 0 || bytes > most_image || takes_.size() >= max_under_way) return refuse(ENOBUFS);
    if (std::ranges::any_of(takes_, [&](const auto& t) { return t.second.token == token; }))
      return refuse(EAGAIN);
    found = takes_.emplace(name, Take{.token = token, .bytes = bytes}).first;
  }
  Take& take = found->second;
  if (take.group || take.token != token || take.bytes != bytes || offset != take.image.size() ||
      tail.empty() || tail.size() > bytes - offset) {
    if (take.group) drop_take(take);
    return refuse(EPROTO);
  }
  take.image.insert(take.image.end(), tail.begin(), tail.end());
  if (take.image.size() < bytes) return;
  const i32 error = accept(from, take);
  if (error != 0) return refuse(error);
  say({from, token, m.move, SeatStep::accepted, 0});
}

// Nothing is believed: the image is looked at as one of programs is.
i32 FarSeats::accept(KernelId from, Take& take) {
  ImageReader in(take.image);
  const u32 others = in.take<u32>();
  if (in.failed() || others > kernels_) return EPROTO;
  for (u32 i = 0; i < others; ++i) {
    const u32 k = in.take<u32>();
    if (in.failed() || k >= kernels_) return EPROTO;
    if (other_kernel(KernelId(static_cast<u16>(k)))) take.others.add(KernelId(static_cast<u16>(k)));
  }
  take.others.add(from);
  const auto left = in.take_bytes(in.left());
  auto parsed = MovedGroup::parse({left.begin(), left.end()}, &stack_->names());
  if (parsed.is_error()) return EPROTO;
  MovedGroup group = parsed.release_value();
  if (group.programs.size() != 1 || group.programs[0].head.attached != 0 ||
      group.descriptions.size() != 1)
    return EPROTO;
  const MovedDescription& d = group.descriptions[0];
  if (d.part.token != take.token || d.part.is_listener != 0 || !d.pieces.empty()) return EPROTO;
  const Description* known = sockets_.at_token(take.token);
  if (known != nullptr && !Sockets::is_away(*known)) return EEXIST;
  if (const auto may = sockets_.may_install(group); may.is_error()) return may.error().code;
  take.move = host_.new_move();
  if (d.connection) departures_.hold_flow({d.connection->local, d.connection->remote}, take.move);
  if (d.datagram.is_bound != 0) departures_.hold_port(d.bound.port, Transport::datagram, take.move);
  take.group = std::move(group);
  take.image = {};
  return 0;
}

void FarSeats::take_in(KernelId from, Take take) {
  const MovedDescription& m = take.group->descriptions[0];
  const auto here = net::Route::inside(self_);
  // A peer that is here.
  if (m.connection && m.connection->route == here &&
      stack_->reroute(m.remote, m.local, net::Route::inside(from), here))
    departures_.peer_left({m.remote, m.local}, from, now_);
  Description* known = sockets_.at_token(take.token);
  auto taken = sockets_.take_alone(*take.group, known, from);
  auto held = departures_.arrived(take.move, from, now_);
  if (taken.is_error()) {
    host_.take_held(held, now_);
    return end(take.token, nullptr, ENFILE);
  }
  ++counters_.came;
  Description& d = *taken.value();
  sockets_.retain(d);
  auto& far = d.shared.make().far;
  if (far == nullptr) far = std::make_unique<FarSeat>();
  far_.insert(d.handle);
  far->where = Where::here;
  far->others = take.others;
  host_.take_held(held, now_);
  take.others.for_each([&](KernelId k) {
    if (k != from) say({k, take.token, 0, SeatStep::here, 0});
  });
  sockets_.write_flags(d);
  run_waiting(d);
  end(take.token, &d, 0);
  if (known == nullptr) sockets_.release(d);  // take_alone's
  sockets_.release(d);
}

void FarSeats::drop_take(Take& take) {
  if (take.group) host_.take_held(departures_.give_up(take.move), now_);
}

}  // namespace cob::kernel
