// Kernel, moving programs within an island: the steps of docs/moving.md on the kernel that they
// leave; arriving.cc has the other's. Model: until the old kernel reads `accepted` it may take
// everything back, and does when anything fails; from then on the programs are the new one's.
// Nothing blocks: each turn looks at the channels. Kernel's loop only.
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

// Those that hold, or have yet to take over, what another of them does: `first`, and the others.
std::vector<Program*> Kernel::sharing_with(Program& first) {
  std::vector<Program*> group{&first};
  const auto add = [&](Program* program) {
    if (std::ranges::find(group, program) == group.end()) group.push_back(program);
  };
  const auto follow = [&](const Description& d) {
    if (d.references <= 1) return;
    for (const Holder& h : d.holders) add(h.program);
    if (d.references == d.holders.size()) return;
    for (const auto& [id, program] : programs_)
      if (std::ranges::find(program->unadopted, &d) != program->unadopted.end()) add(program.get());
  };
  for (std::size_t i = 0; i < group.size(); ++i) {
    group[i]->for_each_slot([&](u32, Slot& slot) { follow(*slot.description); });
    for (const Description* d : group[i]->unadopted) follow(*d);
  }
  return group;
}

// The programs of the departure; none if one of them has ended.
std::vector<Program*> Kernel::departing() {
  std::vector<Program*> group;
  for (const u32 id : departure_->programs) {
    Program* program = find(id);
    if (program == nullptr || program->dead || program->faulty) return {};
    group.push_back(program);
  }
  return group;
}

void Kernel::move_out(const message::Simple& order, std::vector<Fd>& descriptors) {
  if (descriptors.size() != 2 && descriptors.size() != 3) return;
  const FdRef report = descriptors[1].ref();
  if (departure_) return report_to(report, EBUSY, "the kernel is moving another program");
  const u32 target = order.reserved & 0xffff;
  const bool together = (order.reserved & message::move_together) != 0;
  Program* program = nullptr;
  for (Program* one : attached_)
    if (one->pid() == order.value && !one->dead && !one->faulty) program = one;
  if (program == nullptr)
    return report_to(report, ESRCH, "the program has ended, or never used the cob");
  if (program->several())
    return report_to(report, EOPNOTSUPP,
                     "its threads are on several kernels (cob run --spread-threads); `cob migrate "
                     "PID/TID K` moves one of them");
  const bool apart = (order.reserved & message::move_apart) != 0;
  if (target < config_.kernels && target != config_.kernel && descriptors.size() == 3 &&
      (apart || can_go_by_itself(*program)))
    return ask_to_leave(*program, KernelId(static_cast<u16>(target)), std::move(descriptors[1]),
                        std::move(descriptors[2]));
  if (target >= config_.kernels || target == config_.kernel ||
      !islands_.together(KernelId(static_cast<u16>(target)), KernelId(config_.kernel)))
    return report_to(report, EINVAL, "not another kernel of this island");
  const std::vector<Program*> group = sharing_with(*program);
  if (group.size() > 1 && !together)
    return report_to(report, EOPNOTSUPP,
                     "a socket of it is shared with another program (by fork or SCM_RIGHTS); "
                     "`cob migrate --tree` moves all that share together");
  if (group.size() > max_moved_programs)
    return report_to(report, EOPNOTSUPP, "more than 64 programs share sockets with it");
  if (const auto may = sockets_->may_move(group); may.is_error() && may.error().code != EBUSY)
    return report_to(report, may.error().code, may.error().what);
  auto image = create_memory("cob-move", most_image_bytes, Writers::creator);
  if (image.is_error()) return report_to(report, image.error().code, image.error().what);
  departure_.emplace();
  departure_->move = next_move_++;
  for (const Program* one : group) {
    departure_->programs.push_back(one->id());
    departure_->attached.push_back(one->attached());
  }
  departure_->target = KernelId(static_cast<u16>(target));
  departure_->channel = std::move(descriptors[0]);
  departure_->report = std::move(descriptors[1]);
  departure_->image = image.release_value();
  auto offered = watch(departure_->channel.ref(), event_move);
  if (!offered.is_error()) offered = offer_programs(group);
  if (offered.is_error()) fail_departure(now_, offered.error().code, offered.error().what);
}

Result<void> Kernel::offer_programs(const std::vector<Program*>& group) {
  const FdRef channel = departure_->channel.ref();
  const std::size_t likely = std::min(sockets_->likely_image_bytes(group), most_touched_bytes);
  departure_->image.mapping.populate(0, likely);
  MoveWord offer;
  offer.step = static_cast<u32>(MoveStep::offer);
  offer.count = static_cast<u32>(group.size());
  offer.bytes = likely;
  const FdRef image[] = {departure_->image.fd.ref()};
  TRY(send_struct(channel, offer, image, Blocking::never));
  for (Program* program : group) {
    MoveWord word;
    word.step = static_cast<u32>(MoveStep::program);
    word.bytes = program->pid();
    word.low_slots = static_cast<u16>(program->low_slots());
    word.high_slots = static_cast<u16>(program->high_slots());
    copy_text(word.text, program->command().c_str());
    std::vector<FdRef> fds{program->liveness()};
    if (program->attached())
      fds.insert(fds.end(), {program->arena().theirs_fd(), program->doorbell.ref()});
    TRY(send_struct(channel, word, fds, Blocking::never));
  }
  return {};
}

void Kernel::report_departure(const MoveReport& report) {
  (void)send_struct(departure_->report.ref(), report, {}, Blocking::never);
  sockets_->leave_ports(now_);
  unwatch(departure_->channel.ref());
  departure_.reset();
}

// They stay here, as they were.
void Kernel::fail_departure(Time now, i32 error, const char* why) {
  const Program* first = find(departure_->programs.front());
  const u32 pid = first != nullptr ? first->pid() : 0;
  if (departure_->phase == Departure::Phase::frozen) thaw(now);
  COB_LOG(warn, "kernel {}: program {} was not moved to kernel {}: {}", config_.kernel, pid,
          departure_->target.value, why);
  MoveReport report;
  report.error = error;
  copy_text(report.text, why);
  report_departure(report);
}

bool Kernel::poll_departure(Time now) {
  if (departure_->deadline == Time{}) departure_->deadline = now + move_patience;
  const bool heard = hear_departure(now);
  if (!departure_) return true;
  if (departure_->phase != Departure::Phase::gone && departing().empty()) {
    fail_departure(now, ESRCH, "the program, or one that moves with it, has ended");
    return true;
  }
  if (departure_->phase == Departure::Phase::ready) {
    freeze(now);
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
  switch (static_cast<MoveStep>(word.step)) {
    case MoveStep::ready:
      if (departure_->phase != Departure::Phase::offered) break;
      departure_->phase = Departure::Phase::ready;
      departure_->deadline = now + move_patience;
      break;
    case MoveStep::accepted:
      if (departure_->phase == Departure::Phase::frozen) leave(now);
      break;
    case MoveStep::done: {
      if (departure_->phase != Departure::Phase::gone) break;
      MoveReport report;
      report.connections = static_cast<u32>(departure_->ends.size());
      report.programs = static_cast<u32>(departure_->pids.size());
      std::ranges::copy(departure_->pids, report.pid);
      report.paused_at_ns = departure_->frozen_at.ns;
      report.pause_ns = static_cast<i64>(word.bytes) - departure_->frozen_at.ns;
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

// What the programs have posted is done, and they hear of the move when they post more. Why not:
// EBUSY is for the moment.
Result<void> Kernel::quiesce(const std::vector<Program*>& group) {
  const auto take_posts = [&]() -> Result<void> {
    for (Program* program : group) {
      if (program->dead || program->faulty) return Error::of(ESRCH, "it has ended");
      if (program->attached()) drain(*program);
    }
    return {};
  };
  std::vector<bool> attached;
  for (Program* program : group) {
    if (!program->dead) read_hellos(*program);
    attached.push_back(program->attached());
  }
  TRY(take_posts());
  for (Program* program : group)
    if (program->attached())
      __atomic_store_n(&program->arena().ours().armed.armed, armed_for_good, __ATOMIC_SEQ_CST);
  TRY(take_posts());
  for (std::size_t i = 0; i < group.size(); ++i) {
    if (group[i]->dead || group[i]->faulty) return Error::of(ESRCH, "it has ended");
    if (group[i]->attached() != attached[i]) return Error::of(ESRCH, "it has become another");
    if (group[i]->attached() != departure_->attached[i])
      return Error::of(EAGAIN, "a child of it has just begun");
  }
  auto now_sharing = sharing_with(*group.front());
  if (now_sharing.size() != group.size() || !std::ranges::is_permutation(now_sharing, group))
    return Error::of(EAGAIN, "it shares sockets with others than a moment ago");
  TRY(sockets_->may_move(group));
  if (sockets_->image_bytes(group) + Sockets::most_pieces_bytes > most_image_bytes)
    return Error::of(ENOBUFS, "too much lies in its buffers");
  return {};
}

// Its threads' buttons may have come but now.
bool Kernel::pass_buttons(Program& program, u32 number) {
  MoveWord word;
  std::vector<FdRef> buttons;
  const auto tell = [&] {
    word.step = static_cast<u32>(MoveStep::buttons);
    word.bytes = number;
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
  return told;
}

// Nobody stops the programs: what they post from here on lies in their rings for whoever has them
// next.
void Kernel::freeze(Time now) {
  const std::vector<Program*> group = departing();
  const Time began = HostClock::read();
  const auto stays = [&](const Error& why) {
    for (Program* program : group)
      if (!program->dead && program->attached()) publish(program->arena().ours().armed.armed, 0u);
    if (why.code == EBUSY && now < departure_->deadline) return;  // the next turn tries again
    fail_departure(now, why.code, why.what);
  };
  if (const auto quiet = quiesce(group); quiet.is_error()) return stays(quiet.error());
  for (u32 i = 0; i < group.size(); ++i)
    if (!pass_buttons(*group[i], i))
      return stays(Error::of(ENOBUFS, "its threads' doorbells could not be passed on"));
  for (Program* program : group) {
    std::erase(attached_, program);
    unwatch(program->liveness());
    unwatch(program->doorbell.ref());
  }
  ImageWriter out(departure_->image.mapping.bytes());
  departure_->ends = sockets_->pack(group, out, *departures_, departure_->move);
  VERIFY(!out.full());
  departure_->image_bytes = out.bytes();
  departure_->phase = Departure::Phase::frozen;
  departure_->frozen_at = began;
  departure_->deadline = now + move_patience;
  hurry_until_ = now + move_hurry;
  if (const auto said = say(departure_->channel.ref(), MoveStep::image, out.bytes());
      said.is_error())
    fail_departure(now, ECONNRESET, "the kernel that it should move to has ended");
}

// As if they came from another kernel: their sockets are made anew out of the image.
void Kernel::thaw(Time now) {
  std::vector<Program*>
      group;  // whoever has ended meanwhile has not been seen to: it is not watched
  for (const u32 id : departure_->programs) group.push_back(find(id));
  VERIFY(std::ranges::find(group, nullptr) == group.end());
  const auto bytes = departure_->image.mapping.bytes().first(departure_->image_bytes);
  auto image = MovedGroup::parse({bytes.begin(), bytes.end()}, &stack_->names());
  VERIFY(!image.is_error());
  sockets_->drop_moved(group);
  sockets_->install(group, image.value(), KernelId(config_.kernel));
  for (Program* program : group) {
    bool watched = !watch(program->liveness(), program->id()).is_error();
    if (program->attached()) {
      attached_.push_back(program);
      publish(program->arena().ours().armed.armed, 0u);
      watched = watched && !watch(program->doorbell.ref(), event_doorbell).is_error();
    }
    if (!watched) fault(*program, "it could not be watched again");
  }
  take_held(departures_->give_up(departure_->move), now);
}

void Kernel::take_held(const std::vector<Departures::HeldFrame>& frames, Time now) {
  for (const Departures::HeldFrame& frame : frames)
    stack_->on_frame(frame.bytes, frame.from, frame.flags, now);
}

// The peers are told first: what the new kernel sends them must not come before.
void Kernel::leave(Time now) {
  const KernelId target = departure_->target;
  const std::vector<Program*> group = departing();
  VERIFY(!group.empty());  // nobody ends one that is not watched
  for (const MovedEnd& end : departure_->ends)
    if (!end.route.is_uplink())
      reroute(KernelId(end.route.kernel), {end.flow.remote, end.flow.local}, target);
  departures_->gone(departure_->move, target, now);
  device_->flush();
  for (Program* program : group)
    if (program->attached()) publish(program->arena().ours().header.moved, 1u);
  (void)say(departure_->channel.ref(), MoveStep::go);  // dead by now: the programs will see it
  departure_->phase = Departure::Phase::gone;
  departure_->deadline = now + move_patience;
  sockets_->drop_moved(group);
  for (Program* program : group) {
    departure_->pids.push_back(program->pid());
    if (program->attached()) (void)program->drop_arena();
    program->dead = true;
    program->close_liveness();
  }
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

}  // namespace cob::kernel
