// Kernel, moving programs within an island: the steps of docs/moving.md on the kernel that they
// come to; moving.cc has the other's. Model: nothing of this kernel's is changed before `go`; what
// comes for the programs' connections meanwhile is held. Kernel's loop only.
#include <algorithm>
#include <cstring>

#include "base/doorbell.h"
#include "base/log.h"
#include "base/passing.h"
#include "kernel/kernel.h"

namespace cob::kernel {

void Kernel::move_in(const message::Simple& order, std::vector<Fd>& descriptors) {
  if (descriptors.size() != 1) return;
  Arrival arrival;
  arrival.from = KernelId(static_cast<u16>(order.value));
  arrival.channel = std::move(descriptors[0]);
  if (order.value >= config_.kernels || arrivals_.size() >= max_arrivals)
    return refuse(arrival.channel.ref(), Error::of(EBUSY, "the kernel takes other programs in"));
  if (watch(arrival.channel.ref(), event_move).is_error()) return;
  arrival.move = next_move_++;
  arrivals_.push_back(std::move(arrival));
}

bool Kernel::poll_arrival(Arrival& arrival, Time now) {
  if (arrival.deadline == Time{}) arrival.deadline = now + arrival_patience;
  bool work = false;
  while (!arrival.over) {
    auto received = hear(arrival.channel.ref());
    if (received.is_error() && received.error().code == EAGAIN) break;
    work = true;
    if (received.is_error()) {
      arrival.over = true;
      break;
    }
    auto& [word, descriptors] = received.value();
    Result<void> done;
    switch (static_cast<MoveStep>(word.step)) {
      case MoveStep::offer:
        done = on_offer(arrival, word, descriptors);
        break;
      case MoveStep::program:
        done = on_program_offered(arrival, word, descriptors);
        break;
      case MoveStep::buttons:
        done = on_buttons(arrival, word, descriptors);
        break;
      case MoveStep::image:
        done = on_image(arrival, word.bytes);
        break;
      case MoveStep::go:
        if (arrival.group) settle_in(arrival, now);
        arrival.over = true;
        break;
      default:
        done = Error::of(EPROTO, "a step that is none");
        break;
    }
    if (done.is_error()) {
      refuse(arrival.channel.ref(), done.error());
      arrival.over = true;
    }
  }
  if (!arrival.over && now >= arrival.deadline) arrival.over = true;
  return work;
}

Result<void> Kernel::on_offer(Arrival& arrival, const MoveWord& word, std::vector<Fd>& fds) {
  if (fds.size() != 1) return Error::of(EMFILE, "the kernel has no descriptors left for it");
  if (arrival.expected != 0 || word.count == 0 || word.count > max_moved_programs)
    return Error::of(EPROTO, "an offer of nothing");
  arrival.expected = word.count;
  arrival.image = TRY(map_foreign(fds[0].ref(), most_image_bytes, Writers::creator, Access::read));
  const std::size_t likely = std::min(std::size_t{word.bytes}, most_touched_bytes);
  arrival.copy.resize(likely);
  arrival.image.populate_to_read(likely);
  return {};
}

Result<void> Kernel::on_program_offered(Arrival& arrival, const MoveWord& word,
                                        std::vector<Fd>& fds) {
  if (arrival.programs.size() >= arrival.expected)
    return Error::of(EPROTO, "a program that was not offered");
  if (fds.size() != 1 && fds.size() != 3)
    return Error::of(EMFILE, "the kernel has no descriptors left for it");
  Arriving program;
  program.pid = static_cast<u32>(word.bytes);
  program.command = word.text;
  program.liveness = std::move(fds[0]);
  if (fds.size() == 3) {
    program.arena = TRY(Arena::create_for(std::move(fds[1])));
    program.doorbell = std::move(fds[2]);
    program.arena->populate();
    program.arena->populate_lines(word.low_slots, word.high_slots);
    program.arena->count_in(sockets_->memory());
  }
  arrival.programs.push_back(std::move(program));
  if (arrival.programs.size() < arrival.expected) return {};
  hurry_until_ = now_ + move_hurry;
  return say(arrival.channel.ref(), MoveStep::ready);
}

Result<void> Kernel::on_buttons(Arrival& arrival, const MoveWord& word, std::vector<Fd>& fds) {
  if (word.count != fds.size() || word.count > buttons_a_word ||
      word.bytes >= arrival.programs.size())
    return Error::of(EPROTO, "the doorbells of its threads");
  Arriving& program = arrival.programs[word.bytes];
  if (program.buttons.size() > call::max_threads)
    return Error::of(EPROTO, "the doorbells of its threads");
  for (u32 i = 0; i < word.count; ++i)
    program.buttons.push_back({word.thread[i], std::move(fds[i])});
  return {};
}

Result<void> Kernel::on_image(Arrival& arrival, u64 bytes) {
  if (arrival.programs.empty() || arrival.programs.size() != arrival.expected || arrival.group ||
      bytes > arrival.image.size())
    return Error::of(EPROTO, "an image out of turn");
  arrival.copy.resize(bytes);
  std::memcpy(arrival.copy.data(), arrival.image.data(), bytes);
  MovedGroup group = TRY(MovedGroup::parse(std::move(arrival.copy), &stack_->names()));
  if (!std::ranges::equal(
          group.programs, arrival.programs, {},
          [](const MovedProgram& m) { return m.head.attached != 0; },
          [](const Arriving& one) { return one.arena != nullptr; }))
    return Error::of(EPROTO, "an image of other programs");
  TRY(sockets_->may_install(group));
  const auto hold = [&](const net::MovedConnection& c) {
    departures_->hold_flow({c.local, c.remote}, arrival.move);
  };
  for (const MovedDescription& d : group.descriptions) {
    if (d.connection) hold(*d.connection);
    for (const net::MovedConnection& one : d.handshakes) hold(one);
    if (d.part.is_listener != 0)
      departures_->hold_port(d.listens_at.port, Transport::stream, arrival.move);
    if (d.datagram.is_bound != 0)
      departures_->hold_port(d.bound.port, Transport::datagram, arrival.move);
  }
  arrival.group = std::move(group);
  hurry_until_ = now_ + move_hurry;
  return say(arrival.channel.ref(), MoveStep::accepted);
}

namespace {

// The program's side of it is there already; the kernel's side is what it was.
void fill_arena(Arena& arena, const MovedProgram& moved) {
  call::KernelSide& k = arena.ours();
  const auto copy = [](void* to, std::span<const std::byte> from) {
    if (!from.empty()) std::memcpy(to, from.data(), from.size());
  };
  for (u32 t = 0; t < moved.threads.size(); ++t) {
    k.consumed[t].consumed = moved.threads[t].position;
    k.reply[t] = moved.threads[t].reply;
  }
  copy(&k.socket[0], moved.low_lines);
  copy(&k.names[0], moved.low_names);
  copy(&k.socket[call::first_kernel_socket], moved.high_lines);
  copy(&k.names[call::first_kernel_socket], moved.high_names);
  for (const MovedReadyRing& ring : moved.ready_rings) {
    const u32 first = ring.part.head - ring.part.entries;
    for (u32 i = 0; i < ring.part.entries; ++i)
      std::memcpy(&k.ready[ring.part.ring].socket[(first + i) % call::max_sockets],
                  ring.entries.data() + i * sizeof(u32), sizeof(u32));
    k.ready_head[ring.part.ring].head = ring.part.head;
  }
  const u32 first_freed = moved.head.freed_head - moved.head.freed_entries;
  for (u32 i = 0; i < moved.head.freed_entries; ++i)
    std::memcpy(&k.freed.chunk[(first_freed + i) % call::send_chunks],
                moved.freed.data() + i * sizeof(u32), sizeof(u32));
  k.freed_head.head = moved.head.freed_head;
  for (const OfferRingPart& ring : moved.offer_rings) {
    k.offers[ring.ring] = ring.entries;
    k.offer_head[ring.ring].head = ring.head;
  }
  for (const MovedChunk& chunk : moved.lent) copy(k.chunk[chunk.chunk], chunk.bytes);
}

}  // namespace

// Null: it cannot be watched.
Program* Kernel::take_in(Arriving& arriving, const MovedProgram& moved) {
  const u32 id = add_program(arriving.pid, std::move(arriving.liveness));
  Program* const program = find(id);
  if (program == nullptr) return nullptr;
  program->set_identity(arriving.pid, arriving.command);
  if (arriving.arena == nullptr) return program;
  if (watch(arriving.doorbell.ref(), event_doorbell).is_error()) return nullptr;
  program->doorbell = std::move(arriving.doorbell);
  fill_arena(*arriving.arena, moved);
  call::ArenaHeader& header = arriving.arena->ours().header;
  fill_header(*program, header);
  header.epoch = moved.head.epoch;
  if (files_ != nullptr) files_->show_shares(arriving.arena->ours().remote_share);
  program->set_arena(std::move(arriving.arena));
  for (u32 t = 0; t < moved.threads.size(); ++t) {
    Program::Thread& thread = program->add_thread(t);
    thread.position = moved.threads[t].position;
    thread.active = moved.threads[t].active != 0;
  }
  for (Arriving::Button& button : arriving.buttons)
    if (button.thread < program->threads().size())
      program->threads()[button.thread].button = std::move(button.fd);
  return program;
}

void Kernel::settle_in(Arrival& arrival, Time now) {
  const MovedGroup& moved = *arrival.group;
  MovingPrograms group;
  for (std::size_t i = 0; i < moved.programs.size(); ++i) {
    group.push_back(take_in(arrival.programs[i], moved.programs[i]));
    if (group.back() != nullptr) continue;
    COB_LOG(error, "kernel {}: program {} could not be taken in: it ends here", config_.kernel,
            arrival.programs[i].pid);
    for (Program* program : group)
      if (program != nullptr) fault(*program, "one that moved with it could not be taken in");
    return;
  }
  for (const MovedDescription& d : moved.descriptions)
    for (const MovedChunk& chunk : d.chunks)
      std::memcpy(group[d.part.seat_program]->arena().ours().chunk[chunk.chunk], chunk.bytes.data(),
                  chunk.bytes.size());
  // Peers that are here: what the kernel that is left has sent them already is still to be taken.
  const auto here = net::Route::inside(KernelId(config_.kernel));
  for (const MovedDescription& d : moved.descriptions)
    if (d.connection && d.connection->route == here &&
        stack_->reroute(d.remote, d.local, net::Route::inside(arrival.from), here))
      departures_->peer_left({d.remote, d.local}, arrival.from, now);
  sockets_->install(group, moved, arrival.from);
  for (Program* program : group) {
    if (!program->attached()) continue;
    attached_.push_back(program);
    if (!tell_moved(*program)) untold_.push_back(program->id());
  }
  take_held(departures_->arrived(arrival.move, arrival.from, now), now);
  (void)say(arrival.channel.ref(), MoveStep::done, static_cast<u64>(HostClock::read().ns));
  next_board_ = now;
}

// False: not now. Whoever sleeps wakes and looks; who does not finds KernelSide moved.
bool Kernel::tell_moved(Program& program) {
  if (!program.attached()) return true;
  const call::AttachReply reply{.kind = static_cast<u32>(call::Hello::moved), .result = 0};
  const FdRef fds[] = {program.arena().ours_fd()};
  const auto sent = send_struct(program.liveness(), reply, fds, Blocking::never);
  if (sent.is_error() && sent.error().code == EAGAIN) return false;
  program.arena().close_descriptors();
  for (const Program::Thread& thread : program.threads())
    if (thread.button.valid()) cob::ring(thread.button.ref());
  return true;
}

}  // namespace cob::kernel
