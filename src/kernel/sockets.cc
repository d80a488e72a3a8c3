// Sockets: life, references and lines of descriptions; see sockets.h.
#include "kernel/sockets.h"

#include "kernel/far_seats.h"
#include "kernel/parts.h"
#include "kernel/wire_address.h"

namespace cob::kernel {

using call::SocketState;

static_assert(net::ipv6_loopback.value == call::ipv6_loopback &&
              net::ipv6_any.value == call::ipv6_any && net::dual_any.value == call::dual_any);

namespace {
constexpr u32 index_bits = 20;
constexpr u32 index_mask = (1u << index_bits) - 1;
}  // namespace

Description* Sockets::at_handle(u32 handle) {
  const u32 index = (handle & index_mask) - 1;
  if (handle == 0 || index >= descriptions_.size()) return nullptr;
  Description& d = descriptions_[index];
  return d.handle == handle && d.references > 0 ? &d : nullptr;
}

Result<Description*> Sockets::open() {
  u32 index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (descriptions_.size() >= std::min(options_.max_descriptions, index_mask - 1))
      return Error::of(ENFILE, "descriptions of this kernel");
    index = static_cast<u32>(descriptions_.size());
    descriptions_.emplace_back().handle = index + 1;
  }
  Description& d = descriptions_[index];
  d.handle += 1u << index_bits;  // the next generation
  d.state = SocketState::undecided;
  d.receive_limit = options_.receive_limit;
  d.send_limit = options_.send_limit;
  ++open_count_;
  return &d;
}

void Sockets::free_description(Description& d) {
  VERIFY(d.references == 0 && d.tcb == net::no_tcb);
  if (d.accept_counted) count_unaccepted(d, false);
  drop_pieces(d, d.send_buffered);
  if (d.datagram != nullptr) {
    close_datagram(d);
  } else if (d.bound) {
    directory_.unclaim(d.local, d.handle);
  }
  if (d.shared->part != nullptr) parts_->left(d);
  if (d.shared->token != 0) tokens_.erase(d.shared->token);
  const u32 handle = d.handle;
  d = Description{};
  d.handle = handle;
  free_.push_back((handle & index_mask) - 1);
  --open_count_;
}

void Sockets::release(Description& d, bool reset) {
  VERIFY(d.references > 0);
  stir(d);
  if (--d.references != 0) return;
  if (d.shared->far != nullptr) return far_seats_->last_reference(d, reset || d.linger_reset);
  close_now(d, reset || d.linger_reset);
}

// The last reference is gone: close(2) as tcp(7) and RFC 9293 section 3.10.4 have it.
void Sockets::close_now(Description& d, bool reset) {
  if (d.state == SocketState::listening) {
    end_queue(d);
    free_description(d);
    return;
  }
  const bool unread = d.kept.size() > 0;
  d.kept.clear();
  if (d.state == SocketState::file) programs_.file_closed(d);
  if (d.tcb == net::no_tcb) {
    free_description(d);
    return;
  }
  if (reset || unread || d.state == SocketState::connecting || d.accept_counted) {
    stack_->abort(d.tcb);
    d.tcb = net::no_tcb;
    free_description(d);
    return;
  }
  d.state = SocketState::closed;
  stack_->close(d.tcb);  // on_closed or on_error frees it
}

void Sockets::hold(Program& program, u32 number, Description& d, u32 generation) {
  Slot& slot = program.slot(number);
  VERIFY(slot.description == nullptr);
  slot.description = &d;
  slot.generation = generation;
  slot.ready_ring = 0;
  slot.posted = program.ours(number).acknowledged;
  program.count_slot(1);
  d.holders.push_back({.program = &program, .slot = number});
  ++d.references;

  call::KernelSocket& line = program.ours(number);
  const u64 consumed = load(program.theirs(number).consumed);
  line.first_position = consumed;
  line.first_chunk = call::no_chunk;
  publish(line.received, consumed);
  line.send_limit = d.send_limit;
  // A holder starts with nothing posted: a limit's worth comes on top of what lies there.
  d.send_limit_shown =
      static_cast<u32>(std::max<u64>(d.send_limit_shown, d.send_limit + d.send_buffered));
  line.handle = d.handle;
  line.error = d.error;
  line.events = 0;
  line.offer_ring = 0;
  if (d.holders.size() == 1 && d.shared->relays.empty() && !held_afar(d) &&
      d.state != SocketState::listening && d.state != SocketState::file) {
    d.seat = 0;
    d.first_chunk = d.last_chunk = call::no_chunk;
    d.first_position = d.consumed = consumed;
    line.flags = d.flags;
    take_in_kept(d);
  } else {
    line.flags =
        static_cast<u8>(d.flags | (d.state == SocketState::listening ? 0 : call::flag_shared));
    line.events = shared_events(d);
  }
  publish(line.state, d.state);
  publish(line.generation, generation);
  program.arena().ours().names[number] = names_of(d);
}

call::SocketNames Sockets::names_of(const Description& d) const {
  call::SocketNames names{.local_address = d.local.address.value,
                          .remote_address = d.remote.address.value,
                          .local_port = d.local.port.value,
                          .remote_port = d.remote.port.value,
                          .reserved = 0,
                          .remote_ipv6 = {}};
  if (!has_bytes(d.remote.address) || stack_->is_own_ipv6(d.remote.address)) [[likely]]
    return names;
  const WireAddress remote = to_wire(&stack_->names(), d.remote.address);
  names.remote_address = remote.address;
  std::memcpy(names.remote_ipv6, remote.ipv6, sizeof names.remote_ipv6);
  return names;
}

void Sockets::mark_names(net::AddressNames& names) const {
  for (u32 i = 0; i < descriptions_.size(); ++i) {
    const Description& d = descriptions_[i];
    names.mark(d.remote.address);
    names.mark(d.local.address);
    if (d.datagram != nullptr) names.mark(d.datagram->bound.address);
  }
  directory_.mark_names(names);
}

void Sockets::hold_file(Program& program, u32 number, Description& d, descriptor::Holder::Ref file,
                        u32 share) {
  d.state = SocketState::file;
  d.file = std::make_unique<OpenFile>(OpenFile{.ref = file, .share = share});
  hold(program, number, d, program.slot(number).generation + 1);
  publish(program.theirs(number).seat, static_cast<u32>(call::seat_idle));
}

void Sockets::publish_token(Description& d, u64 token) {
  u64& known = d.shared.make().token;
  if (known == token) return;
  if (known != 0) tokens_.erase(known);
  known = token;
  tokens_[token] = d.handle;
}

Description* Sockets::at_token(u64 token) {
  const auto found = tokens_.find(token);
  return found == tokens_.end() ? nullptr : at_handle(found->second);
}

// Bytes kept here go into the arena of the program that now has the seat. False: no chunks for
// them.
bool Sockets::take_in_kept(Description& d) {
  const auto kept = kept_to_mark(d);
  if (!kept.empty() && append_to_arena(d, kept) != kept.size()) {
    const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
    free_receive_chunks(d);
    call::KernelSocket& line = h.program->ours(h.slot);
    publish(line.received, d.consumed);
    publish(line.flags, static_cast<u8>(d.flags | call::flag_shared));
    d.seat = -1;
    return false;
  }
  if (d.urgent) [[unlikely]] {
    d.kept.drop(kept.size());
    leave_bytes_before_mark(d, kept.size());
    settle_mark(d);
    return true;
  }
  d.kept.clear();
  return true;
}

void Sockets::leave_holder(Description& d, std::size_t index) {
  give_offer_ring(d.holders[index]);
  if (d.seat == static_cast<i32>(index)) {
    d.seat = -1;
  } else if (d.seat > static_cast<i32>(index)) {
    --d.seat;
  }
  d.holders.erase(index);
}

void Sockets::let_go(Program& program, u32 number, bool reset) {
  Slot& slot = program.slot(number);
  Description& d = *slot.description;
  std::size_t index = 0;
  while (d.holders[index].program != &program || d.holders[index].slot != number) ++index;

  if (d.accept_counted && load(program.theirs(number).seat) != call::seat_offered)
    mark_accepted(d);  // accepted and closed before anyone looked

  if (d.state == SocketState::listening) {
    take_offers_back(d, d.holders[index]);
  } else if (d.seat == static_cast<i32>(index)) {
    if (d.references > 1 || (d.tcb == net::no_tcb && d.datagram == nullptr)) {
      take_unread(d);
    } else {
      // Unread data makes the last close a reset (RFC 2525 section 2.17, as Linux does).
      if (unread_bytes(d) > 0) reset = true;
      free_receive_chunks(d);
    }
  }
  leave_holder(d, index);
  if (d.shared->part != nullptr) parts_->look(d);

  call::KernelSocket& line = program.ours(number);
  line.flags = 0;
  line.handle = 0;
  publish(line.state, SocketState::free);
  slot.description = nullptr;
  program.count_slot(-1);
  if (number >= call::first_kernel_socket) program.give_slot(number);

  if (d.taking && d.seat < 0) seat_taken(d);
  release(d, reset);
}

void Sockets::touch_holders(Description& d) {
  for (const Holder& h : d.holders) {
    if (!h.program->attached()) continue;
    ++h.program->ours(h.slot).change;
    h.program->touch(h.slot);
  }
}

// Flags, state and error as every holder sees them, then the announcement.
void Sockets::write_flags(Description& d) {
  stir(d);
  if (d.shared->far != nullptr) [[unlikely]]
    far_seats_->changed(d);
  const bool shared = d.seat < 0 && d.state != SocketState::listening;
  for (const Holder& h : d.holders) {
    call::KernelSocket& line = h.program->ours(h.slot);
    line.error = d.error;
    line.events = shared ? shared_events(d) : 0;
    publish(line.state, d.state);
    const u8 keep = static_cast<u8>(line.flags & call::flag_wants_consumed);
    const bool is_seat = d.seat >= 0 && &h == &d.holders[static_cast<std::size_t>(d.seat)];
    const u8 away = is_seat || d.state == SocketState::listening ? 0 : call::flag_shared;
    publish(line.flags, static_cast<u8>(d.flags | keep | away));
  }
  touch_holders(d);
}

u32 Sockets::shared_events(const Description& d) const {
  u32 events = 0;
  if (d.state == SocketState::file) return call::ready_in | call::ready_out;
  if (is_away(d)) return d.shared->far->events;
  const bool reset = (d.flags & call::flag_reset) != 0;
  const bool peer_closed = (d.flags & call::flag_peer_closed) != 0;
  const bool send_closed = (d.flags & call::flag_send_closed) != 0;
  const u64 readable = d.kept.size() + d.shared->relay_unread;
  // At the mark a byte more is asked for: the urgent one is no reason to read (Linux tcp_poll).
  const u64 least = d.urgent && at_mark(d) && !d.settings->urgent_inline ? 1 : 0;
  if (readable > least || peer_closed || reset) events |= call::ready_in;
  if (d.urgent && d.shared->mark.state == UrgentMark::State::here) events |= call::ready_urgent;
  if (peer_closed || reset) events |= call::ready_read_hangup;
  const bool room = d.send_limit - std::min<u64>(d.send_limit, d.send_buffered) >= d.send_limit / 3;
  if (reset || send_closed || d.state == SocketState::datagram ||
      (d.state == SocketState::connected && room))
    events |= call::ready_out;
  if (reset || (peer_closed && send_closed) || d.state == SocketState::undecided)
    events |= call::ready_hangup;
  if (d.error != 0) events |= call::ready_error;
  return events;
}

void Sockets::fail(Description& d, int error) {
  d.tcb = net::no_tcb;
  drop_pieces(d, d.send_buffered);
  if (d.queue_of != nullptr) {
    // Nobody was offered it: it leaves the queue unseen.
    std::erase(d.queue_of->queue->pending, &d);
    std::erase_if(d.queue_of->queue->deferred,
                  [&](const ListenQueue::Deferred& one) { return one.connection == &d; });
    d.queue_of = nullptr;
    d.references = 0;
    free_description(d);
    return;
  }
  if (d.references == 0) {
    free_description(d);
    return;
  }
  d.state = SocketState::failed;
  d.error = static_cast<u16>(error);
  if (d.urgent) d.shared.make().mark.ended = (d.flags & call::flag_peer_closed) != 0;
  d.flags |= call::flag_reset | call::flag_peer_closed | call::flag_send_closed;
  write_flags(d);
}

// A handshake that was placed elsewhere and ran out of time has had its minutes: it is not begun
// anew.
void Sockets::on_error(net::TcbId tcb, u64 cookie, int error) {
  const bool placed = settle_placed(tcb, false);
  if (cookie == 0) return;
  Description& d = from_cookie(cookie);
  if (placed && error != ETIMEDOUT && connect_here(d)) return;
  fail(d, error);
}

void Sockets::on_closed(net::TcbId tcb, u64 cookie) {
  settle_placed(tcb, true);
  if (cookie == 0) return;
  Description& d = from_cookie(cookie);
  d.tcb = net::no_tcb;
  drop_pieces(d, d.send_buffered);
  if (d.references == 0) {
    free_description(d);
    return;
  }
  d.state = SocketState::closed;
  d.flags |= call::flag_peer_closed | call::flag_send_closed;
  write_flags(d);
}

void Sockets::on_peer_closed(net::TcbId tcb, u64 cookie) {
  settle_placed(tcb, true);
  if (cookie == 0) return;
  Description& d = from_cookie(cookie);
  d.flags |= call::flag_peer_closed;
  if (d.deferred) undefer(d);
  if (d.references > 0) write_flags(d);
}

// No connection comes any more, and accept gives EINVAL: its port is another's.
void Sockets::end_listening(Description& d) {
  if ((d.flags & call::flag_reset) == 0 && d.queue->announced) directory_.remove_listener(d.local);
  d.flags |= call::flag_reset | call::flag_peer_closed;
  write_flags(d);
}

void Sockets::shutdown(Program& program, u32 number, u32 how) {
  Description& d = *program.slot(number).description;
  if (d.state == SocketState::listening && (how & 2) != 0) {
    if (d.shared->part != nullptr) parts_->tell(d, PartNews::shutdown, nullptr);
    return stop_listening(d);
  }
  if (d.state == SocketState::datagram) {
    d.flags |= static_cast<u8>(((how & 1) != 0 ? call::flag_send_closed : 0) |
                               ((how & 2) != 0 ? call::flag_peer_closed : 0));
    return write_flags(d);
  }
  if (d.tcb == net::no_tcb) return;
  if ((how & 1) != 0 && (d.flags & call::flag_send_closed) == 0) {
    d.flags |= call::flag_send_closed;
    stack_->shutdown_send(d.tcb);
  }
  if ((how & 2) != 0) {
    d.flags |= call::flag_peer_closed;
    stack_->shutdown_receive(d.tcb);
  }
  write_flags(d);
}

void Sockets::answer(const CallOrigin& origin, i32 result, const u64* values, u32 count) {
  Program* program = programs_.find(origin.program);
  if (program == nullptr || !program->attached()) return;
  program->reply(origin.thread, origin.sequence, result, values, count);
}

}  // namespace cob::kernel
