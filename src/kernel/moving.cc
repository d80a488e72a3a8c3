// Kernel, moving programs within an island: the steps of docs/moving.md on both kernels.
// Model: until the old kernel reads `accepted` it may take everything back, and does when anything
// fails; from then on the program is the new one's. Nothing blocks: each turn looks at the
// channels. Kernel's loop only.
#include <algorithm>
#include <cstring>

#include "base/doorbell.h"
#include "base/log.h"
#include "base/passing.h"
#include "kernel/kernel.h"
#include "kernel/messages.h"
#include "kernel/wire_address.h"

namespace cob::kernel {
namespace {

// What a program that has not heard of the move yet finds: whoever posts rings, and so hears of it.
constexpr u32 armed_for_good = 0xffff'ffff;

template <std::size_t n>
void copy_text(char (&to)[n], const char* from) {
  std::strncpy(to, from, n - 1);
}

Result<void> say(FdRef channel, MoveStep step, u64 bytes = 0) {
  MoveWord word;
  word.step = static_cast<u32>(step);
  word.bytes = bytes;
  return send_struct(channel, word, {}, Blocking::never);
}

void refuse(FdRef channel, const Error& why) {
  MoveWord word;
  word.step = static_cast<u32>(MoveStep::refused);
  word.error = why.code;
  copy_text(word.text, why.what);
  (void)send_struct(channel, word, {}, Blocking::never);
}

struct Heard {
  MoveWord word;
  std::vector<Fd> descriptors;
};

// EAGAIN: nothing; ECONNRESET: the other kernel has ended, or given up.
Result<Heard> hear(FdRef channel) {
  Heard heard;
  auto received =
      receive_datagram(channel, std::as_writable_bytes(std::span(&heard.word, 1)), Blocking::never);
  if (received.is_error()) return received.error();
  auto datagram = received.release_value();
  if (datagram.bytes == 0) return Error::of(ECONNRESET, "the other kernel has ended");
  if (datagram.bytes != sizeof heard.word || datagram.truncated)
    return Error::of(EPROTO, "the other kernel broke the protocol");
  heard.word.text[sizeof heard.word.text - 1] = '\0';
  heard.descriptors = std::move(datagram.descriptors);
  return heard;
}

void report_to(FdRef report, i32 error, const char* why) {
  MoveReport words;
  words.error = error;
  copy_text(words.text, why);
  (void)send_struct(report, words, {}, Blocking::never);
}

}  // namespace

bool Kernel::poll_moves(Time now) {
  bool work = false;
  while (!rerouted_owed_.empty()) {
    const Rerouted& owed = rerouted_owed_.front();
    if (!tell_rerouted(owed.peer, owed.flow, owed.to)) break;
    rerouted_owed_.pop_front();
    work = true;
  }
  for (const Departures::Opening& opening : departures_->take_openings()) {
    reroute(opening.sender, opening.flow, opening.to);
    work = true;
  }
  std::erase_if(untold_, [this](u32 id) {
    Program* program = find(id);
    return program == nullptr || tell_moved(*program);
  });
  if (departure_) work |= poll_departure(now);
  for (Arrival& arrival : arrivals_) work |= poll_arrival(arrival, now);
  std::erase_if(arrivals_, [this](Arrival& arrival) {
    if (!arrival.over) return false;
    departures_->give_up(arrival.move);
    unwatch(arrival.channel.ref());
    return true;
  });
  return work;
}

// ---- the kernel that it leaves

void Kernel::move_out(const message::Simple& order, std::vector<Fd>& descriptors) {
  if (descriptors.size() != 2) return;
  const FdRef report = descriptors[1].ref();
  if (departure_) return report_to(report, EBUSY, "the kernel is moving another program");
  const auto target = static_cast<u16>(order.reserved);
  Program* program = nullptr;
  for (Program* one : attached_)
    if (one->pid() == order.value && !one->dead && !one->faulty) program = one;
  if (program == nullptr)
    return report_to(report, ESRCH, "the program has ended, or never used the cob");
  if (target >= config_.kernels || target == config_.kernel ||
      !islands_.together(KernelId(target), KernelId(config_.kernel)))
    return report_to(report, EINVAL, "not another kernel of this island");
  if (const auto may = sockets_->may_move(*program); may.is_error() && may.error().code != EBUSY)
    return report_to(report, may.error().code, may.error().what);
  auto image = create_memory("cob-move", most_image_bytes, Writers::creator);
  if (image.is_error()) return report_to(report, image.error().code, image.error().what);
  departure_.emplace();
  departure_->move = next_move_++;
  departure_->program = program->id();
  departure_->target = KernelId(target);
  departure_->channel = std::move(descriptors[0]);
  departure_->report = std::move(descriptors[1]);
  departure_->image = image.release_value();
  auto offered = watch(departure_->channel.ref(), event_move);
  if (!offered.is_error()) offered = offer_program(*program);
  if (offered.is_error()) fail_departure(now_, offered.error().code, offered.error().what);
}

Result<void> Kernel::offer_program(Program& program) {
  const FdRef channel = departure_->channel.ref();
  MoveWord word;
  word.step = static_cast<u32>(MoveStep::offer);
  word.bytes = program.pid();
  copy_text(word.text, program.command().c_str());
  const FdRef fds[] = {departure_->image.fd.ref(), program.arena().theirs_fd(), program.liveness(),
                       program.doorbell.ref()};
  TRY(send_struct(channel, word, fds, Blocking::never));
  return {};
}

void Kernel::report_departure(const MoveReport& report) {
  (void)send_struct(departure_->report.ref(), report, {}, Blocking::never);
  sockets_->leave_ports(now_);
  unwatch(departure_->channel.ref());
  departure_.reset();
}

// It stays here, as it was.
void Kernel::fail_departure(Time now, i32 error, const char* why) {
  Program* program = find(departure_->program);
  if (departure_->phase == Departure::Phase::frozen && program != nullptr) thaw(*program, now);
  COB_LOG(warn, "kernel {}: program {} was not moved to kernel {}: {}", config_.kernel,
          program != nullptr ? program->pid() : 0, departure_->target.value, why);
  MoveReport report;
  report.error = error;
  copy_text(report.text, why);
  report_departure(report);
}

bool Kernel::poll_departure(Time now) {
  if (departure_->deadline == Time{}) departure_->deadline = now + move_patience;
  const bool heard = hear_departure(now);
  if (!departure_) return true;
  Program* program = find(departure_->program);
  if (departure_->phase != Departure::Phase::gone && (program == nullptr || program->faulty)) {
    fail_departure(now, ESRCH, "the program has ended");
    return true;
  }
  if (departure_->phase == Departure::Phase::ready) {
    freeze(*program, now);
    return true;
  }
  if (now < departure_->deadline) return heard;
  if (departure_->phase == Departure::Phase::gone) {
    fail_departure(now, ETIMEDOUT, "it has moved, but its kernel has not confirmed it");
  } else {
    fail_departure(now, ETIMEDOUT, "the kernel that it should move to does not answer");
  }
  return true;
}

bool Kernel::hear_departure(Time now) {
  auto received = hear(departure_->channel.ref());
  if (received.is_error()) {
    if (received.error().code == EAGAIN) return false;
    fail_departure(now, ECONNRESET,
                   departure_->phase == Departure::Phase::gone
                       ? "it has moved, and then its kernel ended"
                       : "the kernel that it should move to has ended, or has no room for a move");
    return true;
  }
  const MoveWord& word = received.value().word;
  Program* program = find(departure_->program);
  switch (static_cast<MoveStep>(word.step)) {
    case MoveStep::ready:
      if (departure_->phase != Departure::Phase::offered) break;
      departure_->phase = Departure::Phase::ready;
      departure_->deadline = now + move_patience;
      break;
    case MoveStep::accepted:
      if (departure_->phase == Departure::Phase::frozen && program != nullptr) leave(*program, now);
      break;
    case MoveStep::done: {
      if (departure_->phase != Departure::Phase::gone) break;
      MoveReport report;
      report.connections = static_cast<u32>(departure_->ends.size());
      report.pause_ns = (HostClock::read() - departure_->frozen_at).ns;
      report_departure(report);
      break;
    }
    case MoveStep::refused:
      fail_departure(now, word.error > 0 ? word.error : EPROTO, word.text);
      break;
    default:
      break;
  }
  return true;
}

// Nobody stops the program: what it posts from here on lies in its rings for whoever has it next.
void Kernel::freeze(Program& program, Time now) {
  read_hellos(program);
  if (!program.dead && program.attached()) drain(program);
  const auto gone = [&] { return program.dead || program.faulty || !program.attached(); };
  if (gone()) return fail_departure(now, ESRCH, "the program has ended, or become another");
  const Time began = HostClock::read();
  u32& armed = program.arena().ours().armed.armed;
  __atomic_store_n(&armed, armed_for_good, __ATOMIC_SEQ_CST);
  drain(program);
  if (gone()) return fail_departure(now, ESRCH, "the program has ended, or become another");
  const auto may = sockets_->may_move(program);
  const bool fits = sockets_->image_bytes(program) + Sockets::most_pieces_bytes <= most_image_bytes;
  if (may.is_error() || !fits) {
    publish(armed, 0u);
    if (may.is_error() && may.error().code == EBUSY && now < departure_->deadline) return;
    return fail_departure(now, may.is_error() ? may.error().code : ENOBUFS,
                          may.is_error() ? may.error().what : "too much lies in its buffers");
  }
  // Its threads' buttons may have come but now.
  MoveWord word;
  std::vector<FdRef> buttons;
  const auto tell = [&] {
    word.step = static_cast<u32>(MoveStep::buttons);
    word.count = static_cast<u32>(buttons.size());
    const auto told = send_struct(departure_->channel.ref(), word, buttons, Blocking::never);
    buttons.clear();
    return !told.is_error();
  };
  bool told = true;
  for (u32 t = 0; t < program.threads().size(); ++t) {
    if (!program.threads()[t].button.valid()) continue;
    word.thread[buttons.size()] = static_cast<u16>(t);
    buttons.push_back(program.threads()[t].button.ref());
    if (buttons.size() == buttons_a_word) told = tell() && told;
  }
  if (!buttons.empty()) told = tell() && told;
  if (!told) {
    publish(armed, 0u);
    return fail_departure(now, ENOBUFS, "its threads' doorbells could not be passed on");
  }
  std::erase(attached_, &program);
  unwatch(program.liveness());
  unwatch(program.doorbell.ref());
  ImageWriter out(departure_->image.mapping.bytes());
  departure_->ends = sockets_->pack(program, out, *departures_, departure_->move);
  VERIFY(!out.full());
  departure_->image_bytes = out.bytes();
  departure_->phase = Departure::Phase::frozen;
  departure_->frozen_at = began;
  departure_->deadline = now + move_patience;
  if (const auto said = say(departure_->channel.ref(), MoveStep::image, out.bytes());
      said.is_error())
    fail_departure(now, ECONNRESET, "the kernel that it should move to has ended");
}

// As if it came from another kernel: its sockets are made anew out of the image.
void Kernel::thaw(Program& program, Time now) {
  const auto bytes = departure_->image.mapping.bytes().first(departure_->image_bytes);
  auto image = MovedProgram::parse({bytes.begin(), bytes.end()}, &stack_->names());
  VERIFY(!image.is_error());
  sockets_->drop_moved(program);
  sockets_->install(program, image.value(), KernelId(config_.kernel));
  attached_.push_back(&program);
  publish(program.arena().ours().armed.armed, 0u);
  if (watch(program.liveness(), program.id()).is_error() ||
      watch(program.doorbell.ref(), event_doorbell).is_error())
    fault(program, "it could not be watched again");
  take_held(departures_->give_up(departure_->move), now);
}

void Kernel::take_held(const std::vector<Departures::HeldFrame>& frames, Time now) {
  for (const Departures::HeldFrame& frame : frames)
    stack_->on_frame(frame.bytes, frame.from, frame.flags, now);
}

// The peers are told first: what the new kernel sends them must not come before.
void Kernel::leave(Program& program, Time now) {
  const KernelId target = departure_->target;
  for (const MovedEnd& end : departure_->ends)
    if (!end.route.is_uplink())
      reroute(KernelId(end.route.kernel), {end.flow.remote, end.flow.local}, target);
  departures_->gone(departure_->move, target, now);
  device_->flush();
  publish(program.arena().ours().header.moved, 1u);
  (void)say(departure_->channel.ref(), MoveStep::go);  // dead by now: the program will see it
  departure_->phase = Departure::Phase::gone;
  departure_->deadline = now + move_patience;
  sockets_->drop_moved(program);
  (void)program.drop_arena();
  program.dead = true;
  program.close_liveness();
  any_dead_ = true;
  next_board_ = now;
}

void Kernel::reroute(KernelId peer, const MovedFlow& flow, KernelId to) {
  if (peer == KernelId(config_.kernel)) {
    departures_->peer_left(flow, peer, now_);
    stack_->reroute(flow.local, flow.remote, net::Route::inside(peer), net::Route::inside(to));
  } else if (!rerouted_owed_.empty() || !tell_rerouted(peer, flow, to)) {
    rerouted_owed_.push_back({peer, flow, to});
  }
}

// False: no room in its ring.
bool Kernel::tell_rerouted(KernelId peer, const MovedFlow& flow, KernelId to) {
  const WireAddress local = to_wire(&stack_->names(), flow.local.address);
  const WireAddress remote = to_wire(&stack_->names(), flow.remote.address);
  const auto sent = messenger_->send(peer, ReroutedMessage{.local_address = local.address,
                                                           .remote_address = remote.address,
                                                           .local_port = flow.local.port.value,
                                                           .remote_port = flow.remote.port.value,
                                                           .kernel = to.value,
                                                           .reserved = 0,
                                                           .local_ipv6_first = local.ipv6[0],
                                                           .local_ipv6_second = local.ipv6[1],
                                                           .remote_ipv6_first = remote.ipv6[0],
                                                           .remote_ipv6_second = remote.ipv6[1]});
  return !sent.is_error() || sent.error().code != EAGAIN;
}

// ---- the kernel that it comes to

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
      case MoveStep::buttons:
        if (word.count != descriptors.size() || word.count > buttons_a_word ||
            arrival.buttons.size() > call::max_threads) {
          done = Error::of(EPROTO, "the doorbells of its threads");
          break;
        }
        for (u32 i = 0; i < word.count; ++i)
          arrival.buttons.push_back({word.thread[i], std::move(descriptors[i])});
        break;
      case MoveStep::image:
        done = on_image(arrival, word.bytes);
        break;
      case MoveStep::go:
        if (arrival.program) settle_in(arrival, now);
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
  if (fds.size() != 4 || arrival.arena != nullptr)
    return Error::of(EMFILE, "the kernel has no descriptors left for it");
  arrival.pid = static_cast<u32>(word.bytes);
  arrival.command = word.text;
  arrival.image = TRY(map_foreign(fds[0].ref(), most_image_bytes, Writers::creator, Access::read));
  arrival.arena = TRY(Arena::create_for(std::move(fds[1])));
  arrival.liveness = std::move(fds[2]);
  arrival.doorbell = std::move(fds[3]);
  arrival.arena->populate();
  arrival.arena->count_in(sockets_->memory());
  return say(arrival.channel.ref(), MoveStep::ready);
}

Result<void> Kernel::on_image(Arrival& arrival, u64 bytes) {
  if (arrival.arena == nullptr || arrival.program || bytes > arrival.image.size())
    return Error::of(EPROTO, "an image out of turn");
  const auto image = arrival.image.bytes().first(bytes);
  MovedProgram program = TRY(MovedProgram::parse({image.begin(), image.end()}, &stack_->names()));
  TRY(sockets_->may_install(program));
  const auto hold = [&](const net::MovedConnection& c) {
    departures_->hold_flow({c.local, c.remote}, arrival.move);
  };
  for (const MovedDescription& d : program.descriptions) {
    if (d.connection) hold(*d.connection);
    for (const net::MovedConnection& one : d.handshakes) hold(one);
    if (d.part.is_listener != 0)
      departures_->hold_port(d.listens_at.port, Transport::stream, arrival.move);
    if (d.datagram.is_bound != 0)
      departures_->hold_port(d.bound.port, Transport::datagram, arrival.move);
  }
  arrival.program = std::move(program);
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
  for (const MovedDescription& d : moved.descriptions)
    for (const MovedChunk& chunk : d.chunks) copy(k.chunk[chunk.chunk], chunk.bytes);
}

}  // namespace

void Kernel::settle_in(Arrival& arrival, Time now) {
  const MovedProgram& moved = *arrival.program;
  const u32 id = add_program(arrival.pid, std::move(arrival.liveness));
  Program* const program = find(id);
  if (program == nullptr || watch(arrival.doorbell.ref(), event_doorbell).is_error()) {
    COB_LOG(error, "kernel {}: program {} could not be taken in: it ends here", config_.kernel,
            arrival.pid);
    return;
  }
  program->doorbell = std::move(arrival.doorbell);
  program->set_identity(arrival.pid, arrival.command);
  fill_arena(*arrival.arena, moved);
  call::ArenaHeader& header = arrival.arena->ours().header;
  fill_header(*program, header);
  header.epoch = moved.head.epoch;
  if (files_ != nullptr) files_->show_shares(arrival.arena->ours().remote_share);
  program->set_arena(std::move(arrival.arena));
  for (u32 t = 0; t < moved.threads.size(); ++t) {
    Program::Thread& thread = program->add_thread(t);
    thread.position = moved.threads[t].position;
    thread.active = moved.threads[t].active != 0;
  }
  for (Arrival::Button& button : arrival.buttons)
    if (button.thread < program->threads().size())
      program->threads()[button.thread].button = std::move(button.fd);
  sockets_->install(*program, moved, arrival.from);
  attached_.push_back(program);
  if (!tell_moved(*program)) untold_.push_back(id);
  take_held(departures_->arrived(arrival.move, arrival.from, now), now);
  (void)say(arrival.channel.ref(), MoveStep::done);
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
