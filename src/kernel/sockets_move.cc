// Sockets, moving: all that a program has is written into an image, and made anew from one; see
// docs/moving.md.
// Model: the same install() makes a program on the kernel that it comes to, and again on the one
// that it could not leave. Positions, slots, rings and chunks keep their numbers, so that the
// program sees nothing but progress. Writing and making stay in one file, part by part: each is the
// other's specification. Kernel's loop only.
#include <algorithm>

#include "kernel/departures.h"
#include "kernel/moved_program.h"
#include "kernel/sockets.h"
#include "kernel/wire_address.h"

namespace cob::kernel {

using call::SocketState;

namespace {

// How long its ports are still reached on the kernel that a program left: every kernel has heard of
// the new one by then.
constexpr Duration leaves_in = Duration::milliseconds(10);

EndpointPart part_of(const net::AddressNames& names, net::Endpoint e) {
  const WireAddress a = to_wire(&names, e.address);
  return {.address = a.address, .port = e.port.value, .ipv6 = {a.ipv6[0], a.ipv6[1]}};
}

// The bools of a description, in the order of `switches`.
template <typename D, typename F>
void for_each_switch(D& d, F f) {
  f(0, d.bound, [&](bool on) { d.bound = on; });
  f(1, d.port_given, [&](bool on) { d.port_given = on; });
  f(2, d.listened, [&](bool on) { d.listened = on; });
  f(3, d.deferred, [&](bool on) { d.deferred = on; });
  f(4, d.accept_counted, [&](bool on) { d.accept_counted = on; });
  f(5, d.receive_fixed, [&](bool on) { d.receive_fixed = on; });
  f(6, d.send_fixed, [&](bool on) { d.send_fixed = on; });
  f(7, d.no_delay, [&](bool on) { d.no_delay = on; });
  f(8, d.cork, [&](bool on) { d.cork = on; });
  f(9, d.keep_alive, [&](bool on) { d.keep_alive = on; });
  f(10, d.linger_reset, [&](bool on) { d.linger_reset = on; });
  f(11, d.reuse_address, [&](bool on) { d.reuse_address = on; });
  f(12, d.reuse_port, [&](bool on) { d.reuse_port = on; });
}

u16 switches_of(Description& d) {
  u16 bits = 0;
  for_each_switch(d, [&](u32 bit, bool on, auto) {
    if (on) bits = static_cast<u16>(bits | 1u << bit);
  });
  return bits;
}

u32 index_in(const std::vector<Description*>& all, const Description* d) {
  const auto found = std::find(all.begin(), all.end(), d);
  return found == all.end() ? no_description : static_cast<u32>(found - all.begin());
}

template <typename T>
std::span<const std::byte> bytes_of(const T* first, std::size_t count) {
  return std::as_bytes(std::span(first, count));
}

}  // namespace

Result<void> Sockets::may_move(Program& program) const {
  if (!program.unadopted.empty() || program.child != 0)
    return Error::of(EBUSY, "it, or a child of it, has yet to take over its sockets");
  if (program.flights > 0 || program.flight.valid())
    return Error::of(EBUSY, "a socket of it is on its way to another program (SCM_RIGHTS)");
  if (program.file_calls > 0) return Error::of(EBUSY, "a call for a file is under way");
  Error refusal;
  program.for_each_slot([&](u32, Slot& slot) {
    const Description& d = *slot.description;
    if (d.state == SocketState::file) {
      refusal = Error::of(EOPNOTSUPP, "it has files of another island open; close them first");
    } else if (!d.shared->relays.empty()) {
      refusal = Error::of(EOPNOTSUPP,
                          "a connection of it was given to a program that the shim cannot reach; "
                          "that one must end first");
    } else if (d.holders.size() != 1 || d.references != 1) {
      refusal = Error::of(EOPNOTSUPP,
                          "a socket of it is shared with another program (by fork or SCM_RIGHTS); "
                          "end that one, or run the server as one process");
    } else if (d.shared->owner.id != 0) {
      refusal = Error::of(EOPNOTSUPP,
                          "a socket of it tells somebody of urgent data (F_SETOWN); close it, or "
                          "take the owner away");
    } else if (refusal.code == 0 && d.urgent) {
      refusal = Error::of(EBUSY, "urgent data of a connection are not read yet");
    } else if (refusal.code == 0 && (d.claiming || d.taking || !d.shared->parked.empty())) {
      refusal = Error::of(EBUSY, "a bind or listen of it waits for another kernel");
    } else if (refusal.code == 0 && d.tcb != net::no_tcb && !stack_->may_take_out(d.tcb)) {
      refusal = Error::of(EBUSY, "a handshake by Fast Open has not ended");
    } else if (refusal.code == 0 && d.datagram != nullptr && d.kept.size() > 0) {
      refusal = Error::of(EBUSY, "datagrams of a socket that was shared are not read yet");
    } else if (refusal.code == 0 && d.sends != nullptr) {
      for (std::size_t i = d.sends->taken; i < d.sends->pieces.size(); ++i)
        if (d.sends->pieces[i].arena != &program.arena())
          refusal = Error::of(
              EBUSY, "bytes that another program sent, or copies of small sends, are under way");
    }
    if (d.queue == nullptr || refusal.code != 0) return;
    for (const Description* waiting : d.queue->pending) {
      if (waiting->urgent)
        refusal = Error::of(EBUSY, "urgent data of a connection are not read yet");
      if (waiting->tcb != net::no_tcb && !stack_->may_take_out(waiting->tcb))
        refusal = Error::of(EBUSY, "a handshake by Fast Open has not ended");
    }
  });
  if (refusal.code != 0) return refusal;
  return {};
}

// Those in slots, and those that wait in the queues of its listeners.
std::vector<Description*> Sockets::moving_with(Program& program) const {
  std::vector<Description*> all;
  program.for_each_slot([&](u32, Slot& slot) { all.push_back(slot.description); });
  const std::size_t held = all.size();
  for (std::size_t i = 0; i < held; ++i) {
    if (all[i]->queue == nullptr) continue;
    for (Description* waiting : all[i]->queue->pending) all.push_back(waiting);
    for (const auto& one : all[i]->queue->deferred) all.push_back(one.connection);
  }
  return all;
}

std::size_t Sockets::image_bytes(Program& program) {
  constexpr std::size_t line = sizeof(call::KernelSocket) + sizeof(call::SocketNames);
  std::size_t bytes = sizeof(ImageHead) + sizeof(u32) * (call::send_chunks + call::max_sockets) +
                      call::max_threads * sizeof(ThreadPart) +
                      (program.low_slots() + program.high_slots()) * line +
                      program.unused_offer_ring() * sizeof(OfferRingPart) +
                      program.lent_chunks().size() * (call::chunk_bytes + sizeof(u32));
  for (u32 ring = 1; ring < call::max_ready_rings; ++ring)
    if (program.arena().ours().ready_head[ring].head != 0) bytes += sizeof(call::ReadyRingEntries);
  for (const Description* d : moving_with(program)) {
    bytes += sizeof(DescriptionPart) + sizeof(SlotPart) + sizeof(SettingsPart) +
             sizeof(DatagramPart) + sizeof(ListenerPart) + 2'048 + d->kept.size() +
             u64{d->chunks_held} * (call::chunk_bytes + sizeof(u32));
    if (d->sends != nullptr) bytes += d->sends->pieces.size() * sizeof(PiecePart);
    if (d->queue != nullptr)
      bytes += (d->queue->pending.size() + d->queue->deferred.size()) * sizeof(DeferredPart) +
               stack_->info(d->queue->listener).syn_queue * std::size_t{1'024};
  }
  return bytes;
}

// Connections that the program has closed stay where they are until they have ended; what they
// still send goes into chunks of the kernel's own, and the program's return to it.
void Sockets::own_pieces_of(Arena& arena) {
  for (u32 i = 0; i < descriptions_.size(); ++i) {
    Description& d = descriptions_[i];
    if (d.references != 0 || d.sends == nullptr) continue;
    for (std::size_t at = d.sends->taken; at < d.sends->pieces.size(); ++at) {
      SendPiece& piece = d.sends->pieces[at];
      if (piece.arena != &arena) continue;
      const u32 own = own_chunks_.take();
      std::memcpy(own_chunks_.at(own), arena.send_chunk(piece.chunk), call::chunk_bytes);
      arena.give_send_chunk(piece.chunk);
      piece.arena = nullptr;
      piece.chunk = own;
    }
  }
}

void Sockets::pack_listener(Description& d, ImageWriter& out, Departures& departures, u32 move,
                            std::vector<MovedEnd>& ends) {
  ListenQueue& queue = *d.queue;
  const auto group = by_listener_.find(queue.listener.value);
  VERIFY(group != by_listener_.end());
  const bool alone = group->second.members.size() == 1;
  std::vector<net::MovedConnection> handshakes;
  if (alone) {
    departures.hold_port(d.local.port, Transport::stream, move);
    for (const net::TcbId id : stack_->handshakes(queue.listener)) {
      auto taken = stack_->take_out(id, true);
      if (taken.is_error()) continue;
      const MovedFlow flow{taken.value().local, taken.value().remote};
      departures.hold_flow(flow, move);
      ends.push_back({flow, taken.value().route});
      handshakes.push_back(taken.release_value());
    }
  }
  const net::AddressNames& names = stack_->names();
  out.put(ListenerPart{.backlog = queue.backlog,
                       .next_holder = queue.next_holder,
                       .pending = static_cast<u32>(queue.pending.size()),
                       .deferred = static_cast<u32>(queue.deferred.size()),
                       .handshakes = static_cast<u32>(handshakes.size()),
                       .in_group = alone ? 0u : 1u,
                       .local = part_of(names, d.local)});
  for (const Description* waiting : queue.pending) out.put(index_in(installing_, waiting));
  for (const auto& one : queue.deferred)
    out.put(DeferredPart{.description = index_in(installing_, one.connection),
                         .reserved = 0,
                         .until_ns = one.until.ns});
  for (const net::MovedConnection& one : handshakes) {
    out.put(HandshakePart{.local = part_of(names, one.local),
                          .remote = part_of(names, one.remote),
                          .route_kernel = one.route.kernel,
                          .bytes = static_cast<u32>(one.state.size())});
    out.put_bytes(one.state);
  }
}

std::vector<MovedEnd> Sockets::pack(Program& program, ImageWriter& out, Departures& departures,
                                    u32 move) {
  std::vector<MovedEnd> ends;
  Arena& arena = program.arena();
  program.for_each_slot([&](u32, Slot& slot) {
    Description& d = *slot.description;
    if (d.state == SocketState::listening)
      for (Holder& h : d.holders) settle(d, h);
  });
  installing_ = moving_with(program);
  u64 pieces = 0;
  for (const Description* d : installing_)
    if (d->sends != nullptr) pieces += d->sends->pieces.size() - d->sends->taken;
  if (arena.send_chunks_held() > pieces) own_pieces_of(arena);
  arena.publish_freed();

  const call::KernelSide& k = arena.ours();
  const call::ProgramSide& theirs = static_cast<const Arena&>(arena).theirs();
  std::vector<u32> ready, offered;
  for (u32 ring = 1; ring < call::max_ready_rings; ++ring)
    if (k.ready_head[ring].head != 0) ready.push_back(ring);
  for (const Description* d : installing_)
    for (const Holder& h : d->holders)
      if (h.offer_ring != 0) offered.push_back(h.offer_ring);
  const u32 freed = std::min(arena.freed_head() - load(theirs.freed_tail.tail), call::send_chunks);
  auto& threads = program.threads();
  out.put(ImageHead{
      .magic = image_magic,
      .version = image_version,
      .bytes_of_parts = sizeof(DescriptionPart) + sizeof(SlotPart) + sizeof(call::KernelSocket),
      .threads = static_cast<u32>(threads.size()),
      .low_slots = program.low_slots(),
      .high_slots = program.high_slots(),
      .open_slots = program.open_slots(),
      .descriptions = static_cast<u32>(installing_.size()),
      .epoch = k.header.epoch,
      .freed_head = arena.freed_head(),
      .freed_entries = freed,
      .ready_rings = static_cast<u32>(ready.size()),
      .offer_rings = static_cast<u32>(offered.size()),
      .unused_offer_ring = program.unused_offer_ring(),
      .lent = static_cast<u32>(program.lent_chunks().size())});
  for (u32 t = 0; t < threads.size(); ++t)
    out.put(ThreadPart{.position = threads[t].position,
                       .active = threads[t].active ? 1u : 0u,
                       .reply = k.reply[t]});
  out.put_bytes(bytes_of(k.socket, program.low_slots()));
  out.put_bytes(bytes_of(k.names, program.low_slots()));
  out.put_bytes(bytes_of(&k.socket[call::first_kernel_socket], program.high_slots()));
  out.put_bytes(bytes_of(&k.names[call::first_kernel_socket], program.high_slots()));
  for (const u32 ring : ready) {
    const u32 head = k.ready_head[ring].head;
    const u32 entries = std::min(head - load(theirs.ready_tail[ring].tail), call::max_sockets);
    out.put(ReadyRingPart{.ring = ring, .head = head, .entries = entries});
    for (u32 i = 0; i < entries; ++i)
      out.put(k.ready[ring].socket[(head - entries + i) % call::max_sockets]);
  }
  for (u32 i = 0; i < freed; ++i)
    out.put(k.freed.chunk[(arena.freed_head() - freed + i) % call::send_chunks]);
  for (const u32 ring : offered)
    out.put(OfferRingPart{.ring = ring,
                          .head = k.offer_head[ring].head,
                          .offers = program.offers(ring),
                          .entries = k.offers[ring]});
  u32 open = 0;
  program.for_each_slot([&](u32 number, Slot& slot) {
    const Holder& h = slot.description->holders.front();
    out.put(SlotPart{.number = number,
                     .generation = slot.generation,
                     .ready_position = slot.ready_position,
                     .description = open++,
                     .posted = slot.posted,
                     .ready_ring = slot.ready_ring,
                     .offer_ring = h.offer_ring,
                     .wants_accept = h.wants_accept ? 1u : 0u,
                     .reserved = 0});
  });
  for (const u32 chunk : program.lent_chunks()) {
    out.put(chunk);
    out.put_bytes(bytes_of(k.chunk[chunk], call::chunk_bytes));
  }
  // Listeners last of all leave the stack: closing one resets whoever is still its child.
  std::size_t out_of_order = most_pieces_bytes;
  const net::AddressNames& names = stack_->names();
  for (Description* d : installing_) {
    const u64 newly = d->seat >= 0 ? take_consumed(*d) : 0;
    net::MovedConnection connection;
    if (d->tcb != net::no_tcb) {
      if (newly > 0) stack_->receive_consumed(d->tcb, newly);
      departures.hold_flow({d->local, d->remote}, move);
      auto taken = stack_->take_out(d->tcb, out_of_order >= (std::size_t{16} << 20));
      VERIFY(!taken.is_error());
      connection = taken.release_value();
      ends.push_back({{d->local, d->remote}, connection.route});
      out_of_order -= std::min(out_of_order, connection.state.size());
      d->tcb = net::no_tcb;
    }
    if (d->datagram != nullptr && d->datagram->id != net::no_udp) {
      departures.hold_port(d->datagram->bound.port, Transport::datagram, move);
      stack_->udp_close(d->datagram->id);
      d->datagram->id = net::no_udp;
    }
    std::vector<u32> chunks;
    for (u32 chunk = d->first_chunk; chunk != call::no_chunk && d->seat >= 0;
         chunk = chunk == d->last_chunk ? call::no_chunk : arena.chunk_header(chunk).next)
      chunks.push_back(chunk);
    const Description* offerer =
        d->offered_by != 0 ? const_cast<Sockets*>(this)->at_handle(d->offered_by) : nullptr;
    const bool has_memory = d->shared->memory != nullptr;
    out.put(DescriptionPart{
        .state = d->state,
        .flags = d->flags,
        .error = d->error,
        .last_fill = d->last_fill,
        .switches = switches_of(*d),
        .local = part_of(names, d->local),
        .remote = part_of(names, d->remote),
        .has_seat = d->seat >= 0 ? 1u : 0u,
        .receive_chunks = static_cast<u32>(chunks.size()),
        .first_position = d->first_position,
        .consumed = d->consumed,
        .window_limit = d->window_limit,
        .receive_limit = d->receive_limit,
        .send_limit = d->send_limit,
        .send_limit_shown = d->send_limit_shown,
        .kept_bytes = d->kept.size(),
        .send_pieces =
            static_cast<u32>(d->sends == nullptr ? 0 : d->sends->pieces.size() - d->sends->taken),
        .tcp_bytes = static_cast<u32>(connection.state.size()),
        .route_kernel = connection.route.kernel,
        .offered_by = index_in(installing_, offerer),
        .queue_of = index_in(installing_, d->queue_of),
        .has_settings = d->settings.made() ? 1u : 0u,
        .has_datagram = d->datagram != nullptr ? 1u : 0u,
        .is_listener = d->state == SocketState::listening ? 1u : 0u,
        .has_memory = has_memory ? 1u : 0u,
        .token = d->shared->token,
        .former_handle = d->handle,
        .holders = static_cast<u32>(d->holders.size())});
    for (const u32 chunk : chunks) {
      out.put(chunk);
      out.put_bytes(bytes_of(k.chunk[chunk], call::chunk_bytes));
    }
    out.put_bytes(d->kept.bytes());
    if (d->sends != nullptr)
      for (std::size_t i = d->sends->taken; i < d->sends->pieces.size(); ++i)
        out.put(PiecePart{.chunk = d->sends->pieces[i].chunk,
                          .begin = d->sends->pieces[i].begin,
                          .end = d->sends->pieces[i].end});
    out.put_bytes(connection.state);
    if (d->settings.made()) out.put(*d->settings);
    if (has_memory) out.put(*d->shared->memory);
    if (d->datagram != nullptr) {
      out.put(DatagramPart{.bound = part_of(names, d->datagram->bound),
                           .dropped = d->datagram->dropped,
                           .groups = static_cast<u32>(d->datagram->groups.size()),
                           .is_bound = d->bound ? 1u : 0u});
      for (const net::Ipv4Address group : d->datagram->groups) out.put(group.value);
    }
    if (d->state == SocketState::listening) pack_listener(*d, out, departures, move, ends);
  }
  for (Description* d : installing_) {
    if (d->state != SocketState::listening) continue;
    std::erase(busy_listeners_, d);
    leave_listener(*d);
  }
  installing_.clear();
  return ends;
}

// The description goes as if it had never been.
void Sockets::give_up_moved(Description& d) {
  const Time until = Time::never();  // leave_ports()
  if (d.state == SocketState::listening) {
    if ((d.flags & call::flag_reset) == 0) leaving_.push_back({until, {.local = d.local}});
    std::erase(busy_listeners_, &d);
  }
  if (d.datagram != nullptr && d.bound) {
    const net::Endpoint bound = d.datagram->bound;
    leaving_.push_back({until, {bound, Transport::datagram, d.reuse_port}});
    for (const net::Ipv4Address group : d.datagram->groups)
      leaving_.push_back({until, {{group, bound.port}, Transport::datagram, d.reuse_port}});
  }
  directory_.give_up(d.handle);
  if (d.shared->token != 0) tokens_.erase(d.shared->token);
  if (send_cursor_.handle == d.handle) send_cursor_ = {};
  const u32 handle = d.handle;
  d = Description{};
  d.handle = handle;
  free_.push_back((handle & ((1u << 20) - 1)) - 1);
  --open_count_;
}

void Sockets::leave_ports(Time now) {
  for (Leaving& one : leaving_) one.until = std::min(one.until, now + leaves_in);
}

void Sockets::drop_moved(Program& program) {
  const auto all = moving_with(program);
  program.restore_slots(program.low_slots(), program.high_slots(), program.unused_offer_ring());
  for (Description* d : all) give_up_moved(*d);
}

// ---- where it comes to

Result<void> Sockets::may_install(const MovedProgram& moved) const {
  const std::size_t room = std::min(options_.max_descriptions, (1u << 20) - 2) - open_count_;
  if (moved.descriptions.size() > room)
    return Error::of(ENFILE, "the kernel has no room for its sockets");
  for (const MovedDescription& m : moved.descriptions) {
    u64 buffered = 0;
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
  directory_.succeed({.local = d.local, .owner = options_.self, .handle = d.handle}, from,
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
  if ((d.flags & call::flag_reset) == 0) directory_.add_listener(d.local);
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
void Sockets::install_socket(Program& program, const MovedDescription& m, Description& d,
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
  if (q.has_settings != 0) d.settings.make() = m.settings;
  if (q.has_memory != 0) d.shared.make().memory = std::make_unique<std::array<u64, 6>>(m.memory);
  if (q.token != 0 && at_token(q.token) == nullptr) publish_token(d, q.token);
  d.kept.append(m.kept);
  d.references = 1;
  d.seat = q.has_seat != 0 ? 0 : -1;

  Arena& arena = program.arena();
  for (std::size_t i = 0; i < m.chunks.size(); ++i)
    arena.chunk_header(m.chunks[i].chunk).next =
        i + 1 < m.chunks.size() ? m.chunks[i + 1].chunk : call::no_chunk;
  if (!m.chunks.empty()) {
    d.first_chunk = m.chunks.front().chunk;
    d.last_chunk = m.chunks.back().chunk;
    d.chunks_held = static_cast<u32>(m.chunks.size());
  }
  if (!m.pieces.empty()) {
    SendQueue& queue = send_queue(d);
    for (const PiecePart& piece : m.pieces) {
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
                        .listening = d.state == SocketState::listening},
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

void Sockets::install(Program& program, const MovedProgram& moved, KernelId from) {
  installing_.assign(moved.descriptions.size(), nullptr);
  program.restore_slots(moved.head.low_slots, moved.head.high_slots, moved.head.unused_offer_ring);
  program.arena().restore(moved.receive_chunks, moved.head.freed_head);
  for (const MovedChunk& lent : moved.lent) program.lend_chunk(lent.chunk);
  for (u32 i = 0; i < moved.descriptions.size(); ++i) {
    auto opened = open();
    if (opened.is_error()) continue;
    installing_[i] = opened.value();
    install_socket(program, moved.descriptions[i], *opened.value(), from);
  }
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
  program.restore_free_slots(rings);
  const auto for_each = [&](auto f) {
    for (u32 i = 0; i < moved.descriptions.size(); ++i)
      if (installing_[i] != nullptr) f(moved.descriptions[i], *installing_[i]);
  };
  for_each([&](const MovedDescription& m, Description& d) {
    if (m.part.is_listener != 0 && !install_listener(m, d)) {
      d.state = SocketState::undecided;
      d.error = EADDRINUSE;
      d.flags |= call::flag_reset | call::flag_peer_closed;
    }
  });
  for_each([&](const MovedDescription& m, Description& d) {
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
  });
  for_each([&](const MovedDescription& m, Description& d) {
    if (d.queue != nullptr) install_queue(m, d);
  });
  for (const SlotPart& part : moved.slots)
    if (program.slot_open(part.number)) program.touch(part.number);
  installing_.clear();
}

}  // namespace cob::kernel
