// Sockets, moving: all that programs which move together have is written into an image;
// docs/moving.md.
// Model: positions, slots, rings and chunks are told by their numbers, which they keep, so that a
// program sees nothing but progress; a description is told once, whoever holds it. Each part's
// other half is in sockets_install.cc. Kernel's loop only.
#include <algorithm>
#include <unordered_set>

#include "kernel/departures.h"
#include "kernel/move_switches.h"
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

u16 switches_of(Description& d) {
  u16 bits = 0;
  for_each_switch(d, [&](u32 bit, bool on, auto) {
    if (on) bits = static_cast<u16>(bits | 1u << bit);
  });
  return bits;
}

const Holder& holder_of(const Program& program, u32 number, const Description& d) {
  const auto found = std::find_if(d.holders.begin(), d.holders.end(), [&](const Holder& h) {
    return h.program == &program && h.slot == number;
  });
  VERIFY(found != d.holders.end());
  return *found;
}

template <typename T>
std::span<const std::byte> bytes_of(const T* first, std::size_t count) {
  return std::as_bytes(std::span(first, count));
}

}  // namespace

Error Sockets::why_never(const Description& d) const {
  if (!d.shared->relays.empty())
    return Error::of(EOPNOTSUPP,
                     "a connection of it was given to a program that the shim cannot reach; that "
                     "one must end first");
  if (d.shared->part != nullptr)
    return Error::of(EOPNOTSUPP,
                     "programs of other kernels hold a listener of it too (cob run --spread)");
  if (d.shared->owner.id != 0)
    return Error::of(EOPNOTSUPP,
                     "a socket of it tells somebody of urgent data (F_SETOWN); close it, or take "
                     "the owner away");
  return {};
}

Error Sockets::why_not_now(const Description& d) const {
  if (d.urgent) return Error::of(EBUSY, "urgent data of a connection are not read yet");
  if (d.claiming || d.taking || !d.shared->parked.empty())
    return Error::of(EBUSY, "a bind or listen of it waits for another kernel");
  if (d.tcb != net::no_tcb && !stack_->may_take_out(d.tcb))
    return Error::of(EBUSY, "a handshake by Fast Open has not ended");
  return {};
}

Error Sockets::why_stays(const Description& d, const MovingPrograms& group) const {
  if (d.state == SocketState::file)
    return Error::of(EOPNOTSUPP, "it has files of another island open; close them first");
  if (held_afar(d))
    return Error::of(EOPNOTSUPP, "programs of other kernels hold a socket of it too (SCM_RIGHTS)");
  if (const Error why = why_never(d); why.code != 0) return why;
  if (const Error why = why_not_now(d); why.code != 0) return why;
  if (d.datagram != nullptr && d.kept.size() > 0 && d.seat >= 0)
    return Error::of(EBUSY, "datagrams of a socket that was shared are not read yet");
  if (d.sends != nullptr)
    for (std::size_t i = d.sends->taken; i < d.sends->pieces.size(); ++i)
      if (std::ranges::none_of(group, [&](Program* p) {
            return p->attached() && &p->arena() == d.sends->pieces[i].arena;
          }))
        return Error::of(
            EBUSY, "bytes that another program sent, or copies of small sends, are under way");
  if (d.queue == nullptr) return {};
  for (const Description* waiting : d.queue->pending) {
    if (waiting->urgent) return Error::of(EBUSY, "urgent data of a connection are not read yet");
    if (waiting->tcb != net::no_tcb && !stack_->may_take_out(waiting->tcb))
      return Error::of(EBUSY, "a handshake by Fast Open has not ended");
  }
  return {};
}

Result<void> Sockets::may_move(const MovingPrograms& group) const {
  std::unordered_map<const Description*, u32> shared;  // how often it was met
  Error busy;
  const auto look = [&](const Description& d) -> Error {
    if (d.references > 1 && ++shared[&d] > 1) return {};
    const Error why = why_stays(d, group);
    if (why.code == EBUSY) busy = why;
    return why.code == EBUSY ? Error{} : why;
  };
  for (Program* program : group) {
    if (program->attached() && load(program->arena().theirs().armed[0].confined) != 0)
      return Error::of(EOPNOTSUPP, "it is behind a seccomp filter of its own");
    if (program->several())
      return Error::of(EOPNOTSUPP,
                       "threads of it are on several kernels (cob run --spread-threads)");
    if (program->child != 0) return Error::of(EBUSY, "it is about to make a child");
    if (program->flights > 0 || program->flight.valid())
      return Error::of(EBUSY, "a socket of it is on its way to another program (SCM_RIGHTS)");
    if (program->file_calls > 0) return Error::of(EBUSY, "a call for a file is under way");
    Error never;
    program->for_each_slot([&](u32, Slot& slot) {
      if (const Error why = look(*slot.description); why.code != 0) never = why;
    });
    for (const Description* d : program->unadopted)
      if (const Error why = look(*d); why.code != 0) never = why;
    if (never.code != 0) return never;
  }
  for (const auto& [d, count] : shared)
    if (d->references != count)
      busy = Error::of(EBUSY, "a socket of it is on its way to another program");
  if (busy.code != 0) return busy;
  return {};
}

// Those that the programs hold or have yet to take over, and those that wait in the queues of
// listeners.
std::vector<Description*> Sockets::moving_with(const MovingPrograms& group) const {
  std::vector<Description*> all;
  std::unordered_set<const Description*> shared;
  const auto add = [&](Description* d) {
    if (d->references <= 1 || shared.insert(d).second) all.push_back(d);
  };
  for (Program* program : group) {
    program->for_each_slot([&](u32, Slot& slot) { add(slot.description); });
    for (Description* d : program->unadopted) add(d);
  }
  const std::size_t held = all.size();
  for (std::size_t i = 0; i < held; ++i) {
    if (all[i]->queue == nullptr) continue;
    for (Description* waiting : all[i]->queue->pending) all.push_back(waiting);
    for (const auto& one : all[i]->queue->deferred) all.push_back(one.connection);
  }
  return all;
}

std::size_t Sockets::image_bytes(const MovingPrograms& group) const {
  constexpr std::size_t line = sizeof(call::KernelSocket) + sizeof(call::SocketNames);
  std::size_t bytes = sizeof(ImageHead);
  for (Program* program : group) {
    bytes += sizeof(ProgramPart) + program->unadopted.size() * sizeof(UnadoptedPart);
    if (!program->attached()) continue;
    bytes += sizeof(u32) * (call::send_chunks + call::max_sockets) +
             call::max_threads * sizeof(ThreadPart) +
             (program->low_slots() + program->high_slots()) * line +
             program->open_slots() * sizeof(SlotPart) +
             program->unused_offer_ring() * sizeof(OfferRingPart) +
             program->lent_chunks().size() * (call::chunk_bytes + sizeof(u32));
    for (u32 ring = 1; ring < call::max_ready_rings; ++ring)
      if (program->arena().ours().ready_head[ring].head != 0)
        bytes += sizeof(call::ReadyRingEntries);
  }
  for (const Description* d : moving_with(group)) {
    bytes += sizeof(DescriptionPart) + sizeof(SettingsPart) + sizeof(DatagramPart) +
             sizeof(ListenerPart) + 2'048 + d->kept.size() +
             u64{d->chunks_held} * (call::chunk_bytes + sizeof(u32));
    if (d->sends != nullptr) bytes += d->sends->pieces.size() * sizeof(PiecePart);
    if (d->queue != nullptr)
      bytes += (d->queue->pending.size() + d->queue->deferred.size()) * sizeof(DeferredPart) +
               stack_->info(d->queue->listener).syn_queue * std::size_t{1'024};
  }
  return bytes;
}

std::size_t Sockets::likely_image_bytes(const MovingPrograms& group) const {
  constexpr std::size_t line = sizeof(call::KernelSocket) + sizeof(call::SocketNames),
                        connection = 448, chunk = call::chunk_bytes + sizeof(u32);
  std::size_t bytes = 0;
  for (const Program* program : group)
    bytes += 4'096 + (program->low_slots() + program->high_slots()) * line +
             program->open_slots() * sizeof(SlotPart) + program->lent_chunks().size() * chunk;
  for (const Description* d : moving_with(group)) {
    bytes += sizeof(DescriptionPart) + d->chunks_held * chunk + d->kept.size();
    if (d->tcb != net::no_tcb) bytes += connection;
    if (d->sends != nullptr) bytes += d->sends->pieces.size() * sizeof(PiecePart);
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
  for (const Description* waiting : queue.pending) out.put(packed_as(waiting));
  for (const auto& one : queue.deferred)
    out.put(DeferredPart{
        .description = packed_as(one.connection), .reserved = 0, .until_ns = one.until.ns});
  for (const net::MovedConnection& one : handshakes) {
    out.put(HandshakePart{.local = part_of(names, one.local),
                          .remote = part_of(names, one.remote),
                          .route_kernel = one.route.kernel,
                          .bytes = static_cast<u32>(one.state.size())});
    out.put_bytes(one.state);
  }
}

u32 Sockets::packed_as(const Description* d) const {
  const auto found = d == nullptr ? packing_.end() : packing_.find(d);
  return found == packing_.end() ? no_description : found->second;
}

// What is the program's alone: its lines and rings as they lie, and who holds what.
void Sockets::pack_program(Program& program, ImageWriter& out) {
  ProgramPart head{};
  head.attached = program.attached() ? 1 : 0;
  head.unadopted = static_cast<u32>(program.unadopted.size());
  head.unused_offer_ring = program.unused_offer_ring();
  head.posix_locks = program.posix_locks ? 1 : 0;
  const auto take_over = [&] {
    for (std::size_t i = 0; i < program.unadopted.size(); ++i)
      out.put(UnadoptedPart{.description = packed_as(program.unadopted[i]),
                            .known_as = program.known_as(*program.unadopted[i])});
  };
  if (!program.attached()) {
    out.put(head);
    return take_over();
  }
  Arena& arena = program.arena();
  const call::KernelSide& k = arena.ours();
  const call::ProgramSide& theirs = static_cast<const Arena&>(arena).theirs();
  std::vector<u32> ready, offered;
  for (u32 ring = 1; ring < call::max_ready_rings; ++ring)
    if (k.ready_head[ring].head != 0) ready.push_back(ring);
  program.for_each_slot([&](u32 number, Slot& slot) {
    if (const u32 ring = holder_of(program, number, *slot.description).offer_ring; ring != 0)
      offered.push_back(ring);
  });
  const u32 freed = std::min(arena.freed_head() - load(theirs.freed_tail.tail), call::send_chunks);
  auto& threads = program.threads();
  head.threads = static_cast<u32>(threads.size());
  head.low_slots = program.low_slots();
  head.high_slots = program.high_slots();
  head.open_slots = program.open_slots();
  head.epoch = k.header.epoch;
  head.freed_head = arena.freed_head();
  head.freed_entries = freed;
  head.ready_rings = static_cast<u32>(ready.size());
  head.offer_rings = static_cast<u32>(offered.size());
  head.lent = static_cast<u32>(program.lent_chunks().size());
  out.put(head);
  for (u32 t = 0; t < threads.size(); ++t)
    out.put(ThreadPart{.position = threads[t].position,
                       .active = threads[t].active ? 1u : 0u,
                       .reply = k.reply[t]});
  out.put_bytes(bytes_of(k.socket, program.low_slots()));
  out.put_bytes(bytes_of(k.names, program.low_slots()));
  out.put_bytes(bytes_of(&k.socket[call::first_kernel_socket], program.high_slots()));
  out.put_bytes(bytes_of(&k.names[call::first_kernel_socket], program.high_slots()));
  for (const u32 ring : ready) {
    const u32 at = k.ready_head[ring].head;
    const u32 entries = std::min(at - load(theirs.ready_tail[ring].tail), call::max_sockets);
    out.put(ReadyRingPart{.ring = ring, .head = at, .entries = entries});
    for (u32 i = 0; i < entries; ++i)
      out.put(k.ready[ring].socket[(at - entries + i) % call::max_sockets]);
  }
  for (u32 i = 0; i < freed; ++i)
    out.put(k.freed.chunk[(arena.freed_head() - freed + i) % call::send_chunks]);
  for (const u32 ring : offered)
    out.put(OfferRingPart{.ring = ring,
                          .head = k.offer_head[ring].head,
                          .offers = program.offers(ring),
                          .entries = k.offers[ring]});
  program.for_each_slot([&](u32 number, Slot& slot) {
    const Holder& h = holder_of(program, number, *slot.description);
    out.put(SlotPart{.number = number,
                     .generation = slot.generation,
                     .ready_position = slot.ready_position,
                     .description = packed_as(slot.description),
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
  take_over();
}

// The connection leaves the stack. `room`: for what it has out of order; less and less.
net::MovedConnection Sockets::take_connection(Description& d, Departures& departures, u32 move,
                                              std::size_t& room) {
  const u64 newly = d.seat >= 0 ? take_consumed(d) : 0;
  if (d.tcb == net::no_tcb) return {};
  if (newly > 0) stack_->receive_consumed(d.tcb, newly);
  departures.hold_flow({d.local, d.remote}, move);
  settle_placed(d.tcb, true);
  auto taken = stack_->take_out(d.tcb, room >= most_pieces_bytes / 2);
  VERIFY(!taken.is_error());
  room -= std::min(room, taken.value().state.size());
  d.tcb = net::no_tcb;
  return taken.release_value();
}

// Of no group: it goes alone, nobody holds it there yet, and what it sends goes as bytes.
void Sockets::pack_description(Description& d, const net::MovedConnection& connection,
                               const MovingPrograms& group, ImageWriter& out) {
  const net::AddressNames& names = stack_->names();
  const auto index_of = [&](const Arena* arena) {
    for (u32 i = 0; i < group.size(); ++i)
      if (group[i]->attached() && &group[i]->arena() == arena) return i;
    return no_program;
  };
  const Holder* seat = d.seat >= 0 ? &d.holders[static_cast<std::size_t>(d.seat)] : nullptr;
  Arena* arena = seat != nullptr ? &seat->program->arena() : nullptr;
  std::vector<u32> chunks;
  for (u32 chunk = d.first_chunk; chunk != call::no_chunk && arena != nullptr;
       chunk = chunk == d.last_chunk ? call::no_chunk : arena->chunk_header(chunk).next)
    chunks.push_back(chunk);
  const bool alone = group.empty();
  const std::size_t queued = d.sends == nullptr ? 0 : d.sends->pieces.size() - d.sends->taken;
  const std::size_t pieces = alone ? 0 : queued;
  const bool has_memory = d.shared->memory != nullptr;
  out.put(DescriptionPart{
      .state = d.state,
      .flags = d.flags,
      .error = d.error,
      .last_fill = d.last_fill,
      .switches = switches_of(d),
      .local = part_of(names, d.local),
      .remote = part_of(names, d.remote),
      .seat_program = index_of(arena),
      .seat_slot = seat != nullptr ? seat->slot : 0,
      .receive_chunks = static_cast<u32>(chunks.size()),
      .first_position = d.first_position,
      .consumed = d.consumed,
      .window_limit = d.window_limit,
      .receive_limit = d.receive_limit,
      .send_limit = d.send_limit,
      .send_limit_shown = d.send_limit_shown,
      .kept_bytes = d.kept.size(),
      .send_pieces = static_cast<u32>(pieces),
      .sent_bytes = alone ? d.send_buffered : 0,
      .tcp_bytes = static_cast<u32>(connection.state.size()),
      .route_kernel = connection.route.kernel,
      .offered_by = d.offered_by != 0 ? packed_as(at_handle(d.offered_by)) : no_description,
      .queue_of = packed_as(d.queue_of),
      .has_settings = d.settings.made() ? 1u : 0u,
      .has_datagram = d.datagram != nullptr ? 1u : 0u,
      .is_listener = d.state == SocketState::listening ? 1u : 0u,
      .has_memory = has_memory ? 1u : 0u,
      .token = d.shared->token,
      .former_handle = d.handle,
      .holders = alone ? 0 : static_cast<u32>(d.holders.size())});
  for (const u32 chunk : chunks) {
    out.put(chunk);
    out.put_bytes(bytes_of(arena->ours().chunk[chunk], call::chunk_bytes));
  }
  out.put_bytes(d.kept.bytes());
  for (std::size_t i = 0; i < pieces; ++i) {
    const SendPiece& piece = d.sends->pieces[d.sends->taken + i];
    out.put(PiecePart{.program = index_of(piece.arena),
                      .chunk = piece.chunk,
                      .begin = piece.begin,
                      .end = piece.end});
  }
  for (std::size_t i = 0; alone && i < queued; ++i) {
    const SendPiece& piece = d.sends->pieces[d.sends->taken + i];
    out.put_bytes({piece_bytes(piece) + piece.begin, static_cast<u64>(piece.end - piece.begin)});
  }
  out.put_bytes(connection.state);
  if (d.settings.made()) out.put(*d.settings);
  if (has_memory) out.put(*d.shared->memory);
  if (d.datagram == nullptr) return;
  out.put(DatagramPart{.bound = part_of(names, d.datagram->bound),
                       .dropped = d.datagram->dropped,
                       .groups = static_cast<u32>(d.datagram->groups.size()),
                       .is_bound = d.bound ? 1u : 0u});
  for (const net::Ipv4Address group_address : d.datagram->groups) out.put(group_address.value);
}

void Sockets::put_head(ImageWriter& out, std::size_t programs, std::size_t descriptions) {
  out.put(ImageHead{.magic = image_magic,
                    .version = image_version,
                    .bytes_of_parts = sizeof(ProgramPart) + sizeof(DescriptionPart) +
                                      sizeof(SlotPart) + sizeof(call::KernelSocket),
                    .programs = static_cast<u32>(programs),
                    .descriptions = static_cast<u32>(descriptions)});
}

std::vector<MovedEnd> Sockets::pack(const MovingPrograms& group, ImageWriter& out,
                                    Departures& departures, u32 move) {
  for (Program* program : group)
    program->for_each_slot([&](u32, Slot& slot) {
      Description& d = *slot.description;
      if (d.state == SocketState::listening)
        for (Holder& h : d.holders) settle(d, h);
    });
  const auto all = moving_with(group);
  packing_.reserve(all.size());
  for (u32 i = 0; i < all.size(); ++i) packing_.emplace(all[i], i);
  std::unordered_map<const Arena*, u64> pieces;
  for (const Description* d : all)
    if (d->sends != nullptr)
      for (std::size_t i = d->sends->taken; i < d->sends->pieces.size(); ++i)
        ++pieces[d->sends->pieces[i].arena];
  for (Program* program : group) {
    if (!program->attached()) continue;
    Arena& arena = program->arena();
    if (arena.send_chunks_held() > pieces[&arena]) own_pieces_of(arena);
    arena.publish_freed();
  }
  put_head(out, group.size(), all.size());
  for (Program* program : group) pack_program(*program, out);
  std::vector<MovedEnd> ends;
  std::size_t room = most_pieces_bytes;
  for (Description* d : all) {
    const net::MovedConnection connection = take_connection(*d, departures, move, room);
    if (!connection.state.empty()) ends.push_back({{d->local, d->remote}, connection.route});
    if (d->datagram != nullptr && d->datagram->id != net::no_udp) {
      departures.hold_port(d->datagram->bound.port, Transport::datagram, move);
      stack_->udp_close(d->datagram->id);
      d->datagram->id = net::no_udp;
    }
    pack_description(*d, connection, group, out);
    if (d->state == SocketState::listening) pack_listener(*d, out, departures, move, ends);
  }
  // Listeners last of all leave the stack: closing one resets whoever is still its child.
  for (Description* d : all) {
    if (d->state != SocketState::listening) continue;
    std::erase(busy_listeners_, d);
    leave_listener(*d);
  }
  packing_.clear();
  return ends;
}

// They are still reached here for a moment: leave_ports().
void Sockets::leave_its_ports(const Description& d) {
  const Time until = Time::never();
  if (d.state == SocketState::listening && (d.flags & call::flag_reset) == 0)
    leaving_.push_back({until, {.local = d.local}});
  if (d.datagram != nullptr && d.bound) {
    const net::Endpoint bound = d.datagram->bound;
    leaving_.push_back({until, {bound, Transport::datagram, d.reuse_port}});
    for (const net::Ipv4Address group : d.datagram->groups)
      leaving_.push_back({until, {{group, bound.port}, Transport::datagram, d.reuse_port}});
  }
}

// The description goes as if it had never been.
void Sockets::give_up_moved(Description& d) {
  if (d.state == SocketState::listening) std::erase(busy_listeners_, &d);
  leave_its_ports(d);
  directory_.give_up(d.handle);
  if (d.shared->token != 0) tokens_.erase(d.shared->token);
  if (send_cursor_.handle == d.handle) send_cursor_ = {};
  const u32 handle = d.handle;
  count_unaccepted(d, false);
  d = Description{};
  d.handle = handle;
  free_.push_back((handle & ((1u << 20) - 1)) - 1);
  --open_count_;
}

void Sockets::leave_ports(Time now) {
  for (Leaving& one : leaving_) one.until = std::min(one.until, now + leaves_in);
}

void Sockets::drop_moved(const MovingPrograms& group) {
  const auto all = moving_with(group);
  for (Program* program : group) {
    program->unadopted.clear();
    if (program->attached())
      program->restore_slots(program->low_slots(), program->high_slots(),
                             program->unused_offer_ring());
  }
  for (Description* d : all) give_up_moved(*d);
}

}  // namespace cob::kernel
