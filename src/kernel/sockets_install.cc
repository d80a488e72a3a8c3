// Sockets, moving: all that programs have is made anew from their image; docs/moving.md.
// Model: the same install() makes programs on the kernel that they come to, and again on the one
// that they could not leave. Positions, slots, rings and chunks keep their numbers, so that a
// program sees nothing but progress. Each part's other half is in sockets_pack.cc. Kernel's loop
// only.
#include <algorithm>

#include "kernel/move_switches.h"
#include "kernel/moved_program.h"
#include "kernel/sockets.h"

namespace cob::kernel {

using call::SocketState;

Result<void> Sockets::may_install(const MovedGroup& moved) const {
  const std::size_t room = std::min(options_.max_descriptions, (1u << 20) - 2) - open_count_;
  if (moved.descriptions.size() > room)
    return Error::of(ENFILE, "the kernel has no room for its sockets");
  for (const MovedDescription& m : moved.descriptions) {
    u64 buffered = m.sent.size();
    for (const PiecePart& piece : m.pieces) buffered += static_cast<u64>(piece.end - piece.begin);
    if (!m.connection) {
      if (buffered != 0) return Error::of(EPROTO, "the image of a socket: it sends to nobody");
      continue;
    }
    TRY(stack_->may_take_in(*m.connection));
    const net::MovedFacts facts = stack_->facts_of(*m.connection);
    const bool waits = m.part.offered_by != no_description || m.part.queue_of != no_description;
    if (facts.announced_bytes != buffered || (facts.waits && !waits))
      return Error::of(EPROTO, "the image of a socket: its connection is another's");
  }
  for (const MovedDescription& m : moved.descriptions)
    for (const net::MovedConnection& one : m.handshakes) {
      TRY(stack_->may_take_in(one));
      const net::MovedFacts facts = stack_->facts_of(one);
      if (!facts.waits || facts.announced_bytes != 0)
        return Error::of(EPROTO, "the image of a listener: a handshake");
    }
  return {};
}

// The peer's kernel as seen from here: one end of a connection of the program's to itself comes
// along, so it is here.
net::Route Sockets::route_here(const MovedDescription& m, KernelId from) const {
  const net::Route route = m.connection->route;
  if (route != net::Route::inside(from)) return route;
  for (const Description* other : installing_)
    if (other != nullptr && other->local == m.remote && other->remote == m.local)
      return net::Route::inside(options_.self);
  return route;
}

void Sockets::install_connection(const MovedDescription& m, Description& d, net::ListenerId queue,
                                 KernelId from) {
  net::MovedConnection connection = *m.connection;
  connection.route = route_here(m, from);
  const net::MovedFacts facts = stack_->facts_of(connection);
  const auto taken =
      stack_->take_in(connection, to_cookie(d), facts.waits ? queue : net::ListenerId{0});
  if (taken.is_error()) return fail(d, ECONNRESET);
  d.tcb = taken.value();
  if (connection.route == net::Route::inside(options_.self))
    stack_->reroute(d.remote, d.local, net::Route::inside(from), net::Route::inside(options_.self));
  // Its port is one that the kernel it was opened on chooses from: that shall not choose it again.
  if (facts.passive || d.bound) return;
  d.bound = true;
  directory_.succeed(
      {.local = d.local, .owner = options_.self, .handle = d.handle, .group = group_of(d)}, from,
      m.part.former_handle, now_);
}

bool Sockets::install_listener(const MovedDescription& m, Description& d) {
  const auto joined = join_listener(d, m.listener.backlog);
  if (joined.is_error()) return false;
  const net::ListenerId id = joined.value();
  stack_->set_max_segment(id, d.settings->max_segment_bytes);
  if (d.settings->fast_open_queue != 0) stack_->set_fast_open(id, d.settings->fast_open_queue);
  d.queue = std::make_unique<ListenQueue>();
  d.queue->listener = id;
  d.queue->backlog = m.listener.backlog;
  d.queue->next_holder = m.listener.next_holder;
  d.queue->announced = (d.flags & call::flag_reset) == 0;
  if (d.queue->announced) directory_.add_listener(d.local);
  for (const net::MovedConnection& one : m.handshakes) (void)stack_->take_in(one, 0, id);
  return true;
}

bool Sockets::install_datagram(const MovedDescription& m, Description& d, KernelId from) {
  d.datagram = std::make_unique<Datagram>();
  d.datagram->groups = m.groups;
  d.datagram->dropped = m.datagram.dropped;
  if (!d.bound) return true;
  d.datagram->bound = m.bound;
  const auto opened = stack_->udp_open(m.bound, d.reuse_port, to_cookie(d));
  if (opened.is_error()) return false;
  d.datagram->id = opened.value();
  if (d.remote.port.value != 0) stack_->udp_connect(d.datagram->id, d.local, d.remote);
  directory_.add({m.bound, Transport::datagram, d.reuse_port});
  for (const net::Ipv4Address group : m.groups) {
    (void)stack_->udp_join(d.datagram->id, group);
    directory_.add({{group, m.bound.port}, Transport::datagram, d.reuse_port});
  }
  directory_.succeed({.local = m.bound,
                      .owner = options_.self,
                      .handle = d.handle,
                      .reuse_address = d.reuse_address,
                      .reuse_port = d.reuse_port,
                      .transport = Transport::datagram},
                     from, m.part.former_handle, now_);
  return true;
}

// What the socket is but for its connection, listener or datagrams.
void Sockets::install_socket(const MovingPrograms& group, const MovedDescription& m, Description& d,
                             KernelId from) {
  const DescriptionPart& q = m.part;
  d.state = q.state;
  d.flags = q.flags;
  d.error = q.error;
  d.local = m.local;
  d.remote = m.remote;
  d.last_fill = q.last_fill;
  d.first_position = q.first_position;
  d.consumed = q.consumed;
  d.window_limit = q.window_limit;
  d.receive_limit = q.receive_limit;
  d.send_limit = q.send_limit;
  d.send_limit_shown = q.send_limit_shown;
  for_each_switch(d, [&](u32 bit, bool, auto set) { set((q.switches & 1u << bit) != 0); });
  if (d.accept_counted) ++unaccepted_;
  d.came_us = static_cast<u32>(now_.ns / 1'000);
  if (q.has_settings != 0) d.settings.make() = m.settings;
  if (q.has_memory != 0) d.shared.make().memory = std::make_unique<std::array<u64, 6>>(m.memory);
  if (q.token != 0 && at_token(q.token) == nullptr) publish_token(d, q.token);
  d.kept.append(m.kept);
  d.references = std::max(m.slots + m.unadopted, 1u);  // one: its queue's
  for (std::size_t i = 0; i < m.chunks.size(); ++i)
    group[q.seat_program]->arena().chunk_header(m.chunks[i].chunk).next =
        i + 1 < m.chunks.size() ? m.chunks[i + 1].chunk : call::no_chunk;
  if (!m.chunks.empty()) {
    d.first_chunk = m.chunks.front().chunk;
    d.last_chunk = m.chunks.back().chunk;
    d.chunks_held = static_cast<u32>(m.chunks.size());
  }
  if (!m.pieces.empty()) {
    SendQueue& queue = send_queue(d);
    for (const PiecePart& piece : m.pieces) {
      Arena& arena = group[piece.program]->arena();
      VERIFY(arena.claim_send_chunk(piece.chunk));
      queue.pieces.push_back(
          {.arena = &arena, .chunk = piece.chunk, .begin = piece.begin, .end = piece.end});
      d.send_buffered += static_cast<u64>(piece.end - piece.begin);
    }
  }
  if (d.bound && m.part.has_datagram == 0)
    directory_.succeed({.local = d.local,
                        .owner = options_.self,
                        .handle = d.handle,
                        .reuse_address = d.reuse_address,
                        .reuse_port = d.reuse_port,
                        .listening = d.state == SocketState::listening,
                        .group = group_of(d)},
                       from, q.former_handle, now_);
}

void Sockets::install_queue(const MovedDescription& m, Description& d) {
  const auto waiting_one = [this](u32 index) -> Description* {
    Description* waiting = installing_[index];
    if (waiting == nullptr || waiting->tcb != net::no_tcb) return waiting;
    waiting->references = 0;  // nobody will ever be offered it
    free_description(*waiting);
    return nullptr;
  };
  for (const u32 index : m.pending) {
    Description* waiting = waiting_one(index);
    if (waiting == nullptr) continue;
    waiting->queue_of = &d;
    d.queue->pending.push_back(waiting);
  }
  for (const DeferredPart& one : m.deferred) {
    Description* waiting = waiting_one(one.description);
    if (waiting == nullptr) continue;
    waiting->queue_of = &d;
    d.queue->deferred.push_back({waiting, Time{one.until_ns}});
    deferred_check_ = std::min(deferred_check_, Time{one.until_ns});
  }
  if (!d.queue->pending.empty()) mark_busy(d);
}

void Sockets::install_program(Program& program, const MovedProgram& moved) {
  program.posix_locks = moved.head.posix_locks != 0;
  program.former_handles.clear();
  for (const UnadoptedPart& part : moved.unadopted) {
    Description* d = installing_[part.description];
    if (d == nullptr) continue;
    program.unadopted.push_back(d);
    program.former_handles.push_back({part.known_as, d->handle});
  }
  if (!program.attached()) return;
  std::vector<u32> rings;
  for (const OfferRingPart& ring : moved.offer_rings) {
    program.offers(ring.ring) = ring.offers;
    rings.push_back(ring.ring);
  }
  // A generation outlives its slot's use.
  const auto generations = [&](std::span<const std::byte> lines, u32 first) {
    for (u32 i = 0; i < lines.size() / sizeof(call::KernelSocket); ++i) {
      u32 generation;
      std::memcpy(
          &generation,
          lines.data() + i * sizeof(call::KernelSocket) + offsetof(call::KernelSocket, generation),
          sizeof generation);
      program.slot(first + i).generation = generation;
    }
  };
  generations(moved.low_lines, 0);
  generations(moved.high_lines, call::first_kernel_socket);
  install_slots(program, moved);
  program.restore_free_slots(rings);
}

void Sockets::install_slots(Program& program, const MovedProgram& moved) {
  for (const SlotPart& part : moved.slots) {
    Description* d = installing_[part.description];
    if (d == nullptr) continue;
    Slot& slot = program.slot(part.number);
    slot = {.description = d,
            .generation = part.generation,
            .ready_position = part.ready_position,
            .ready_ring = static_cast<u16>(part.ready_ring),
            .touched = 0,
            .posted = part.posted};
    program.count_slot(1);
    d->holders.push_back({.program = &program,
                          .slot = part.number,
                          .offer_ring = static_cast<u16>(part.offer_ring),
                          .wants_accept = part.wants_accept != 0});
    call::KernelSocket& line = program.ours(part.number);
    line.handle = d->handle;
    program.arena().ours().names[part.number] = names_of(*d);
  }
}

// REQUIRES: listeners are there.
void Sockets::install_network(const MovedDescription& m, Description& d, KernelId from) {
  if (m.part.has_datagram != 0 && !install_datagram(m, d, from)) {
    d.bound = false;
    d.error = ENOBUFS;
  }
  if (!m.connection) return;
  net::ListenerId queue{0};
  for (const u32 index : {m.part.offered_by, m.part.queue_of}) {
    if (index == no_description || installing_[index] == nullptr) continue;
    if (installing_[index]->queue != nullptr) queue = installing_[index]->queue->listener;
    if (index == m.part.offered_by) d.offered_by = installing_[index]->handle;
  }
  if (stack_->facts_of(*m.connection).waits && queue.value == 0) return fail(d, ECONNRESET);
  install_connection(m, d, queue, from);
}

void Sockets::install(const MovingPrograms& group, const MovedGroup& moved, KernelId from) {
  installing_.assign(moved.descriptions.size(), nullptr);
  for (std::size_t i = 0; i < group.size(); ++i) {
    const MovedProgram& m = moved.programs[i];
    if (!group[i]->attached()) continue;
    group[i]->restore_slots(m.head.low_slots, m.head.high_slots, m.head.unused_offer_ring);
    group[i]->arena().restore(m.receive_chunks, m.head.freed_head);
    for (const MovedChunk& lent : m.lent) group[i]->lend_chunk(lent.chunk);
  }
  for (u32 i = 0; i < moved.descriptions.size(); ++i) {
    auto opened = open();
    if (opened.is_error()) continue;
    installing_[i] = opened.value();
    install_socket(group, moved.descriptions[i], *opened.value(), from);
  }
  for (std::size_t i = 0; i < group.size(); ++i) install_program(*group[i], moved.programs[i]);
  const auto for_each = [&](auto f) {
    for (u32 i = 0; i < moved.descriptions.size(); ++i)
      if (installing_[i] != nullptr) f(moved.descriptions[i], *installing_[i]);
  };
  for_each([&](const MovedDescription& m, Description& d) {
    if (m.part.seat_program != no_program)
      for (std::size_t i = 0; i < d.holders.size(); ++i)
        if (d.holders[i].program == group[m.part.seat_program] &&
            d.holders[i].slot == m.part.seat_slot)
          d.seat = static_cast<i32>(i);
  });
  for_each([&](const MovedDescription& m, Description& d) {
    if (m.part.is_listener != 0 && !install_listener(m, d)) {
      d.state = SocketState::undecided;
      d.error = EADDRINUSE;
      d.flags |= call::flag_reset | call::flag_peer_closed;
    }
  });
  for_each([&](const MovedDescription& m, Description& d) { install_network(m, d, from); });
  for_each([&](const MovedDescription& m, Description& d) {
    if (d.queue != nullptr) install_queue(m, d);
  });
  for (std::size_t i = 0; i < group.size(); ++i) {
    for (const SlotPart& part : moved.programs[i].slots) {
      if (!group[i]->slot_open(part.number)) continue;
      // Room may have come before the move, and not been told: who waits for an edge would never
      // hear of it.
      if (load(group[i]->theirs(part.number).want_space) != 0) ++group[i]->ours(part.number).change;
      group[i]->touch(part.number);
    }
  }
  installing_.clear();
}

}  // namespace cob::kernel
