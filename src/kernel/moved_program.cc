// MovedGroup: reading an image; see moved_program.h.
#include "kernel/moved_program.h"

#include <algorithm>

#include "kernel/wire_address.h"

namespace cob::kernel {

using call::SocketState;

namespace {

Error malformed(const char* what) { return Error::of(EPROTO, what); }

net::Endpoint endpoint(const EndpointPart& p, net::AddressNames* names) {
  return {from_wire(names, p.address, p.ipv6[0], p.ipv6[1]), Port(static_cast<u16>(p.port))};
}

// Numbers of chunks: each in range and once.
class ChunkNumbers {
 public:
  explicit ChunkNumbers(u32 chunks) : seen_(chunks) {}
  bool take(u32 chunk) {
    if (chunk >= seen_.size() || seen_[chunk]) return false;
    seen_[chunk] = true;
    return true;
  }

 private:
  std::vector<bool> seen_;
};

struct Parse {
  Parse(MovedGroup& group_of, net::AddressNames* address_names)
      : group(group_of), names(address_names), in(group.bytes) {}

  MovedGroup& group;
  net::AddressNames* names;
  ImageReader in;
  std::vector<ChunkNumbers> received, sent;  // by program

  Result<void> head();
  Result<void> program(u32 number);
  Result<void> program_head(MovedProgram& p);
  Result<void> rings(MovedProgram& p);
  Result<void> slots(MovedProgram& p);
  Result<void> lent(MovedProgram& p, ChunkNumbers& numbers);
  Result<void> unadopted(MovedProgram& p);
  Result<void> description(MovedDescription& d);
  Result<void> buffers(MovedDescription& d);
  Result<void> listener(MovedDescription& d);
  Result<void> references();
  Result<void> positions(const MovedDescription& d) const;
  bool is_description(u32 index) const { return index < group.descriptions.size(); }
  bool is_attached(u32 number) const {
    return number < group.programs.size() && group.programs[number].head.attached != 0;
  }
};

Result<void> Parse::head() {
  const auto h = in.take<ImageHead>();
  if (in.failed() || h.magic != image_magic || h.version != image_version ||
      h.bytes_of_parts != sizeof(ProgramPart) + sizeof(DescriptionPart) + sizeof(SlotPart) +
                              sizeof(call::KernelSocket))
    return malformed("the image of a program: another build wrote it");
  if (h.programs == 0 || h.programs > max_moved_programs ||
      h.descriptions > (h.programs + 1) * call::max_sockets ||
      u64{h.descriptions} * sizeof(DescriptionPart) > in.left())
    return malformed("the image of programs: its counts");
  group.programs.resize(h.programs);
  group.descriptions.resize(h.descriptions);
  return {};
}

Result<void> Parse::program_head(MovedProgram& p) {
  p.head = in.take<ProgramPart>();
  const ProgramPart& h = p.head;
  constexpr u32 half = call::first_kernel_socket;
  if (in.failed() || h.attached > 1 || h.unadopted > group.descriptions.size() ||
      h.posix_locks > 1 || h.threads > call::max_threads || h.low_slots > half ||
      h.high_slots > half || h.open_slots > h.low_slots + h.high_slots ||
      h.freed_entries > call::send_chunks || h.ready_rings > call::max_ready_rings ||
      h.unused_offer_ring < 1 || h.unused_offer_ring > call::max_listeners ||
      h.offer_rings >= call::max_listeners || h.lent > call::receive_chunks)
    return malformed("the image of a program: its counts");
  if (h.attached == 0 && (h.threads != 0 || h.low_slots != 0 || h.high_slots != 0 ||
                          h.freed_entries != 0 || h.ready_rings != 0 || h.lent != 0))
    return malformed("the image of a program: more than a new child has");
  for (u32 i = 0; i < h.threads; ++i) p.threads.push_back(in.take<ThreadPart>());
  return {};
}

Result<void> Parse::program(u32 number) {
  MovedProgram& p = group.programs[number];
  ChunkNumbers& numbers = received.emplace_back(call::receive_chunks);
  sent.emplace_back(call::send_chunks);
  TRY(program_head(p));
  TRY(rings(p));
  TRY(slots(p));
  TRY(lent(p, numbers));
  return unadopted(p);
}

Result<void> Parse::unadopted(MovedProgram& p) {
  for (u32 i = 0; i < p.head.unadopted; ++i) {
    const auto part = in.take<UnadoptedPart>();
    if (in.failed() || !is_description(part.description))
      return malformed("the image of a program: what it has yet to take over");
    ++group.descriptions[part.description].unadopted;
    p.unadopted.push_back(part);
  }
  return {};
}

Result<void> Parse::rings(MovedProgram& p) {
  const ProgramPart& h = p.head;
  p.low_lines = in.take_bytes(u64{h.low_slots} * sizeof(call::KernelSocket));
  p.low_names = in.take_bytes(u64{h.low_slots} * sizeof(call::SocketNames));
  p.high_lines = in.take_bytes(u64{h.high_slots} * sizeof(call::KernelSocket));
  p.high_names = in.take_bytes(u64{h.high_slots} * sizeof(call::SocketNames));
  for (u32 i = 0; i < h.ready_rings; ++i) {
    MovedReadyRing ring{.part = in.take<ReadyRingPart>(), .entries = {}};
    if (ring.part.ring == 0 || ring.part.ring >= call::max_ready_rings ||
        ring.part.entries > call::max_sockets)
      return malformed("the image of a program: a ready ring");
    ring.entries = in.take_bytes(u64{ring.part.entries} * sizeof(u32));
    p.ready_rings.push_back(ring);
  }
  p.freed = in.take_bytes(u64{h.freed_entries} * sizeof(u32));
  for (u32 i = 0; i < h.offer_rings; ++i) {
    const auto ring = in.take<OfferRingPart>();
    if (ring.ring == 0 || ring.ring >= h.unused_offer_ring ||
        ring.offers.made - ring.offers.settled > call::offer_slots || ring.head != ring.offers.made)
      return malformed("the image of a program: an offer ring");
    if (std::ranges::any_of(p.offer_rings, [&](const auto& o) { return o.ring == ring.ring; }))
      return malformed("the image of a program: an offer ring twice");
    p.offer_rings.push_back(ring);
  }
  return in.failed() ? malformed("the image of a program: it is too short") : Result<void>{};
}

Result<void> Parse::slots(MovedProgram& p) {
  for (u32 i = 0; i < p.head.open_slots; ++i) {
    const auto slot = in.take<SlotPart>();
    const bool high = slot.number >= call::first_kernel_socket;
    const u32 index = high ? slot.number - call::first_kernel_socket : slot.number;
    if (in.failed() || slot.number == 0 || index >= (high ? p.head.high_slots : p.head.low_slots) ||
        (!p.slots.empty() && slot.number <= p.slots.back().number) ||
        !is_description(slot.description) || slot.ready_ring >= call::max_ready_rings)
      return malformed("the image of a program: a slot");
    const bool has_ring = std::ranges::any_of(
        p.offer_rings, [&](const auto& o) { return o.ring == slot.offer_ring; });
    if ((slot.offer_ring != 0 && !has_ring) || (slot.wants_accept != 0 && slot.offer_ring == 0))
      return malformed("the image of a program: a slot's offers");
    ++group.descriptions[slot.description].slots;
    p.slots.push_back(slot);
  }
  return {};
}

Result<void> Parse::lent(MovedProgram& p, ChunkNumbers& numbers) {
  for (u32 i = 0; i < p.head.lent; ++i) {
    const u32 chunk = in.take<u32>();
    const auto bytes = in.take_bytes(call::chunk_bytes);
    if (in.failed() || !numbers.take(chunk)) return malformed("the image of a program: a loan");
    p.lent.push_back({chunk, bytes});
    p.receive_chunks.push_back(chunk);
  }
  return {};
}

Result<void> Parse::description(MovedDescription& d) {
  d.part = in.take<DescriptionPart>();
  const DescriptionPart& q = d.part;
  if (in.failed() || q.state == SocketState::free || q.state >= SocketState::file ||
      (q.seat_program != no_program && !is_attached(q.seat_program)) ||
      q.receive_chunks > call::receive_chunks || q.send_pieces > 2 * call::send_chunks ||
      q.last_fill > call::receive_chunk_payload || q.error >= 4'096 ||
      (q.token != 0 && (q.token & call::token_mark_mask) != call::token_mark))
    return malformed("the image of a socket");
  if ((q.flags & ~(call::flag_peer_closed | call::flag_send_closed | call::flag_reset)) != 0)
    return malformed("the image of a socket: its flags");
  constexpr u32 most_limit = 1u << 30;
  if (q.receive_limit == 0 || q.receive_limit > most_limit || q.send_limit > most_limit ||
      q.window_limit > most_limit || q.send_limit_shown > 2 * most_limit)
    return malformed("the image of a socket: its limits");
  d.local = endpoint(q.local, names);
  d.remote = endpoint(q.remote, names);
  TRY(buffers(d));
  if (q.tcp_bytes != 0) {
    const auto bytes = in.take_bytes(q.tcp_bytes);
    d.connection = net::MovedConnection{.local = d.local,
                                        .remote = d.remote,
                                        .route = {static_cast<u16>(q.route_kernel)},
                                        .state = {bytes.begin(), bytes.end()}};
  }
  if (q.has_settings != 0) d.settings = in.take<SettingsPart>();
  if (d.settings.congestion > call::CongestionName::reno)
    return malformed("the image of a socket: its congestion control");
  if (q.has_memory != 0) d.memory = in.take<std::array<u64, 6>>();
  if (q.has_datagram != 0) {
    d.datagram = in.take<DatagramPart>();
    d.bound = endpoint(d.datagram.bound, names);
    if (d.datagram.groups > net::max_udp_groups || d.datagram.is_bound > 1 || d.connection ||
        (d.datagram.is_bound != 0 && d.bound.port.value == 0))
      return malformed("the image of a datagram socket");
    for (u32 i = 0; i < d.datagram.groups; ++i) {
      d.groups.push_back({in.take<u32>()});
      if (!d.groups.back().is_multicast())
        return malformed("the image of a datagram socket: a group");
    }
  }
  if ((q.is_listener != 0) != (q.state == SocketState::listening) ||
      (q.is_listener != 0 && d.connection))
    return malformed("the image of a listener");
  if (q.is_listener != 0) TRY(listener(d));
  return in.failed() ? malformed("the image of a socket: it is too short") : Result<void>{};
}

// What lies in the arenas of those who hold it.
Result<void> Parse::buffers(MovedDescription& d) {
  const DescriptionPart& q = d.part;
  if (q.receive_chunks != 0 && q.seat_program == no_program)
    return malformed("the image of a socket: chunks without a reader");
  for (u32 i = 0; i < q.receive_chunks; ++i) {
    const u32 chunk = in.take<u32>();
    const auto bytes = in.take_bytes(call::chunk_bytes);
    if (in.failed() || !received[q.seat_program].take(chunk))
      return malformed("the image of a socket: a chunk");
    d.chunks.push_back({chunk, bytes});
    group.programs[q.seat_program].receive_chunks.push_back(chunk);
  }
  d.kept = in.take_bytes(q.kept_bytes);
  u64 buffered = 0;
  for (u32 i = 0; i < q.send_pieces; ++i) {
    const auto piece = in.take<PiecePart>();
    if (in.failed() || piece.begin >= piece.end || piece.end > call::chunk_bytes ||
        !is_attached(piece.program) || !sent[piece.program].take(piece.chunk))
      return malformed("the image of a socket: what it sends");
    buffered += static_cast<u64>(piece.end - piece.begin);
    d.pieces.push_back(piece);
  }
  if (q.sent_bytes != 0 && q.send_pieces != 0)
    return malformed("the image of a socket: what it sends");
  d.sent = in.take_bytes(q.sent_bytes);
  buffered += d.sent.size();
  if (buffered > q.send_limit_shown) return malformed("the image of a socket: it sends too much");
  return {};
}

Result<void> Parse::listener(MovedDescription& d) {
  d.listener = in.take<ListenerPart>();
  d.listens_at = endpoint(d.listener.local, names);
  if (d.listens_at.port.value == 0 || d.listener.backlog > 65'536)
    return malformed("the image of a listener: where");
  const std::size_t all = group.descriptions.size();
  if (d.listener.pending > all || d.listener.deferred > all || d.listener.handshakes > 65'536)
    return malformed("the image of a listener: its queues");
  for (u32 i = 0; i < d.listener.pending; ++i) d.pending.push_back(in.take<u32>());
  for (u32 i = 0; i < d.listener.deferred; ++i) d.deferred.push_back(in.take<DeferredPart>());
  for (u32 i = 0; i < d.listener.handshakes && !in.failed(); ++i) {
    const auto part = in.take<HandshakePart>();
    const auto bytes = in.take_bytes(part.bytes);
    d.handshakes.push_back({.local = endpoint(part.local, names),
                            .remote = endpoint(part.remote, names),
                            .route = {static_cast<u16>(part.route_kernel)},
                            .state = {bytes.begin(), bytes.end()}});
  }
  return {};
}

// What lies in the arena is what the line says: the kernel goes by it afterwards.
Result<void> Parse::positions(const MovedDescription& d) const {
  const DescriptionPart& q = d.part;
  if (q.seat_program == no_program) return {};
  const MovedProgram& p = group.programs[q.seat_program];
  const auto slot = std::ranges::lower_bound(p.slots, q.seat_slot, {}, &SlotPart::number);
  if (slot == p.slots.end() || slot->number != q.seat_slot ||
      &group.descriptions[slot->description] != &d)
    return malformed("the image of a socket: a seat of nobody's");
  const call::KernelSocket line = p.line(q.seat_slot);
  if (d.chunks.empty()) {
    if (line.received != q.consumed && q.state != SocketState::listening)
      return malformed("the image of a socket: bytes without chunks");
    return {};
  }
  constexpr u64 room = call::receive_chunk_payload;
  const u64 held = line.received - q.first_position, last = u64{q.receive_chunks} - 1;
  if (held != last * room + q.last_fill || q.last_fill == 0 || q.consumed - q.first_position > held)
    return malformed("the image of a socket: where it stands");
  return {};
}

// Who names whom: each description has one place.
Result<void> Parse::references() {
  std::vector<u32> queued(group.descriptions.size(), no_description);
  const auto queue = [&](u32 listener, u32 index) {
    if (!is_description(index) || queued[index] != no_description) return false;
    queued[index] = listener;
    return group.descriptions[index].slots == 0 && group.descriptions[index].unadopted == 0 &&
           group.descriptions[index].connection.has_value() &&
           group.descriptions[index].part.queue_of == listener;
  };
  for (u32 i = 0; i < group.descriptions.size(); ++i) {
    for (const u32 index : group.descriptions[i].pending)
      if (!queue(i, index)) return malformed("the image of a listener: who waits");
    for (const DeferredPart& one : group.descriptions[i].deferred)
      if (!queue(i, one.description)) return malformed("the image of a listener: who waits");
  }
  const auto listens = [&](u32 index) {
    return is_description(index) && group.descriptions[index].part.is_listener != 0;
  };
  for (u32 i = 0; i < group.descriptions.size(); ++i) {
    const MovedDescription& d = group.descriptions[i];
    const bool held = d.slots + d.unadopted > 0;
    if (d.part.holders != d.slots || held == (queued[i] != no_description) ||
        (d.part.queue_of != no_description) != (queued[i] != no_description) ||
        (d.part.offered_by != no_description && !listens(d.part.offered_by)))
      return malformed("the image of a program: a socket that is nowhere");
    TRY(positions(d));
  }
  return {};
}

}  // namespace

call::KernelSocket MovedProgram::line(u32 slot) const {
  const bool high = slot >= call::first_kernel_socket;
  const u64 index = high ? slot - call::first_kernel_socket : slot;
  call::KernelSocket line;
  std::memcpy(static_cast<void*>(&line),
              (high ? high_lines : low_lines).data() + index * sizeof line, sizeof line);
  return line;
}

Result<MovedGroup> MovedGroup::parse(std::vector<std::byte> bytes, net::AddressNames* names) {
  MovedGroup group;
  group.bytes = std::move(bytes);
  Parse parse(group, names);
  TRY(parse.head());
  for (u32 i = 0; i < group.programs.size(); ++i) TRY(parse.program(i));
  for (MovedDescription& d : group.descriptions) TRY(parse.description(d));
  if (parse.in.failed() || parse.in.left() != 0)
    return malformed("the image of a program: its length");
  TRY(parse.references());
  return group;
}

}  // namespace cob::kernel
