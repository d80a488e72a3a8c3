// Kernel: creation and the loop; see kernel.h. Decisions 2 to 4 of the design; epoll(7),
// eventfd(2), sched_yield(2).
#include "kernel/kernel.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/passing.h"
#include "kernel/messages.h"
#include "kernel/wire_address.h"

namespace cob::kernel {

namespace {

constexpr std::size_t message_budget = 64, frame_budget = 128, call_budget = 64;
constexpr Duration host_poll_interval = Duration::microseconds(500);

// Each takes two descriptors at most.
u32 most_relays() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  return static_cast<u32>(std::clamp<rlim_t>(files.rlim_cur / 4, 16, 4096));
}

}  // namespace

Result<std::unique_ptr<Kernel>> Kernel::create(const message::Config& config, Fd supervisor,
                                               Uplink uplink, IslandSetup islands) {
  if (message::declared_kernels(config) == 0 || config.kernel >= config.kernels)
    return Error::of(EINVAL, "kernel number of the configuration");
  std::unique_ptr<Kernel> kernel(new Kernel(config, std::move(supervisor)));
  kernel->shares_ = std::move(islands.shares);
  TRY(kernel->start(std::move(uplink), std::move(islands.listener)));
  return kernel;
}

Result<void> Kernel::start(Uplink uplink, Fd link_listener) {
  if (config_.core >= 0) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(static_cast<std::size_t>(config_.core), &cores);
    if (::sched_setaffinity(0, sizeof cores, &cores) != 0)
      return Error::from_errno("pinning to the kernel's core");
  }
  ::prctl(PR_SET_TIMERSLACK, 1);
  events_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!events_.valid()) return Error::from_errno("epoll_create1");
  TRY(watch(supervisor_.ref(), event_supervisor));

  TRY(create_board());
  messenger_ =
      TRY(message::Messenger::create(KernelId(config_.kernel), config_.epoch, config_.kernels,
                                     board_memory_.mapping.bytes().subspan(stats_offset)));
  TRY(messenger_->watch(events_.ref()));
  messenger_->on_session([this](KernelId peer, bool begun) {
    if (begun) {
      greet_peer(peer);
    } else {
      lose_peer(peer);
    }
  });
  directory_.set_out_of_reach(islands_.apart_from(KernelId(config_.kernel), config_.kernels));
  directory_.attach(*messenger_);
  device_ =
      std::make_unique<net::SnapBean>(messenger_->links(), std::move(uplink.device), uplink.proxy);
  tapped_ = std::make_unique<net::PcapDevice<net::SnapBean>>(*device_, tap_);
  if (device_->wait_fd().valid()) TRY(watch(device_->wait_fd(), event_uplink));
  flows_ = std::make_unique<Flows>(KernelId(config_.kernel), config_.kernels, directory_, *device_);
  flows_->attach(*messenger_);
  files_ = TRY(Files::create(config_, shares_, *messenger_));
  if (files_ != nullptr && files_->event().valid()) TRY(watch(files_->event(), event_files));
  if (uplink.tables && uplink.changes)
    flows_->set_tables(std::move(*uplink.tables), std::move(*uplink.changes));
  if (!uplink.spreads) flows_->spread_openings();
  SocketsOptions options;
  options.self = KernelId(config_.kernel);
  options.epoch = config_.epoch;
  options.address = net::Ipv4Address{config_.address};
  options.prefix_bits = config_.prefix_bits;
  options.secret[0] = config_.secret[0];
  options.secret[1] = config_.secret[1];
  options.uplink = device_->has_uplink();
  options.gateway = net::Ipv4Address{config_.gateway};
  sockets_ = std::make_unique<Sockets>(options, directory_, static_cast<Sockets::Programs&>(*this));
  parts_ = std::make_unique<ListenerParts>(*sockets_, directory_, KernelId(config_.kernel),
                                           config_.kernels);
  parts_->attach(*messenger_);
  file_calls_ = std::make_unique<FileCalls>(files_.get(), *sockets_,
                                            static_cast<Sockets::Programs&>(*this), attached_);
  if (files_ != nullptr) {
    files_->passes().on_arrival(
        [this](KernelId, u32 program, std::span<const descriptor::Passes::Arrived> passed) {
          return take_passed(program, passed);
        });
    files_->watcher().on_ready([this](descriptor::Holder::Ref file) { file_calls_->woken(file); });
    finding_ =
        std::make_unique<Finding>(*messenger_, *files_, KernelId(config_.kernel), config_.kernels);
    finding_->serve(*sockets_, [this](const std::vector<Finding::Asker>& askers, u64 name,
                                      int error) { sought(askers, name, error); });
  }
  net::StackOptions stack;
  stack.address = options.address;
  stack.prefix_bits = static_cast<u8>(config_.prefix_bits);
  stack.gateway = options.gateway;
  std::memcpy(stack.mac.bytes.data(), config_.mac, sizeof config_.mac);
  stack.max_connections = options.max_descriptions;
  stack.receive_window_bytes = options.receive_limit;
  if (config_.congestion > 1 || config_.ecn > 2) return Error::of(EPROTO, "TCP's configuration");
  stack.congestion = static_cast<net::CongestionControl>(config_.congestion);
  stack.ecn = static_cast<net::Ecn>(config_.ecn);
  stack.secret[0] = config_.secret[0];
  stack.secret[1] = config_.secret[1];
  stack.ipv6 = {.on = config_.ipv6_on != 0,
                .prefix_bits = config_.ipv6_prefix_bits,
                .autoconfigure = config_.ipv6_auto != 0,
                .link_local = config_.ipv6_link_local != 0};
  std::memcpy(stack.ipv6.address.bytes.data(), config_.ipv6, sizeof config_.ipv6);
  std::ranges::copy(config_.ipv6_identifier_key, stack.ipv6.identifier_key);
  std::memcpy(stack.ipv6.gateway.bytes.data(), config_.ipv6_gateway, sizeof config_.ipv6_gateway);
  stack_ = TRY(net::Stack::create(stack, *tapped_, *sockets_));
  sockets_->set_stack(*stack_);
  flows_->set_stack(*stack_);
  departures_ = std::make_unique<Departures>(KernelId(config_.kernel), *tapped_);
  stack_->set_moved(*departures_);
  messenger_->on<ReroutedMessage>([this](KernelId from, const ReroutedMessage& m) {
    if (m.kernel >= config_.kernels) return;
    net::AddressNames& names = stack_->names();
    const MovedFlow flow{
        {from_wire(&names, m.local_address, m.local_ipv6_first, m.local_ipv6_second),
         Port(m.local_port)},
        {from_wire(&names, m.remote_address, m.remote_ipv6_first, m.remote_ipv6_second),
         Port(m.remote_port)}};
    if (stack_->reroute(flow.local, flow.remote, net::Route::inside(from),
                        net::Route::inside(KernelId(m.kernel))))
      departures_->peer_left(flow, from, now_);
  });
  taking_ = std::make_unique<Taking>(KernelId(config_.kernel), config_.kernels, *sockets_,
                                     *departures_, static_cast<Taking::Host&>(*this));
  taking_->attach(*messenger_, *stack_);
  far_seats_ = std::make_unique<FarSeats>(*sockets_, *departures_, directory_,
                                          static_cast<Taking::Host&>(*this),
                                          KernelId(config_.kernel), config_.kernels);
  far_seats_->attach(*messenger_, *stack_);
  angel_ = std::make_unique<Angel>(
      config_, *sockets_, directory_, *flows_, *taking_, *board_,
      [this](const message::GroupOrder& order) {
        return !send_struct(supervisor_.ref(), order, {}, Blocking::never).is_error();
      });
  angel_->attach(*messenger_, *stack_);
  angel_->on_suspicion([this](KernelId peer) {  // lost: it goes on to look so, or does not hang
    const message::Simple news{.kind = static_cast<u32>(message::ControlKind::suspects),
                               .value = peer.value};
    (void)!send_struct(supervisor_.ref(), news, {}, Blocking::never).is_error();
  });
  flows_->set_placement(angel_.get());
  sockets_->set_placement(angel_.get());
  if (config_.ipv6_on != 0) {
    directory_.set_names(stack_->names());
    flows_->set_names(stack_->names());
  }
  if (flows_->tables() != nullptr) {  // there is an uplink, or a cable may be plugged in
    stack_->set_others(*flows_);
    sockets_->set_tables(*flows_->tables());
    directory_.on_listening(
        [this](Port port, bool listens) { listening_owed_[port.value] = listens; });
  }
  relays_ = std::make_unique<Relays>(*sockets_, events_.ref(), most_relays());
  spare_arena_ = TRY(Arena::create());
  spare_arena_->populate();
  island_links_ = TRY(IslandLinks::create(config_, std::move(link_listener), *messenger_));
  return say_hello();
}

bool Kernel::turn(Time now) {
  now_ = now;
  ++loops_;
  bool found_work = poll(now);
  flush();
  if (any_dead_) {
    collect_dead();
    found_work = true;  // what the dead let go is others' news
  }
  if (now >= next_board_) update_board(now);
  if (stack_->own_addresses_version() != own_addresses_shown_) [[unlikely]]
    show_own_addresses();
  return found_work;
}

Result<void> Kernel::run() {
  Time yielded_at = Time::never();
  while (!stopping_) {
    const Time now = HostClock::read();
    if (yielded_at != Time::never()) {
      rest_.yielded(yielded_at, now);
      yielded_at = Time::never();
    }
    if (turn(now)) {
      board_behind_ = true;
      if (fruitless_looks_ != 0) show_resting(0);
      rest_.worked(now_);
      may_nap_ = true;
      // Who has an answer goes on; to look for more work first would take as long as it does.
      if (std::exchange(files_answered_, file_calls_->answered()) == file_calls_->answered() ||
          anything_pending())
        continue;
    }
    ++idle_loops_;
    show_resting(fruitless_looks_ + 1);
    // Neither sleeps nor gives the core away: either may cost more than the wait (moving.h).
    if (now_ < hurry_until_) [[unlikely]]
      continue;
    const bool busy = program_busy();
    if (!busy && nearby_.expected(now_) && look_near()) continue;
    const bool for_storage =
        file_calls_->under_way() > 0 || (files_ != nullptr && files_->waits_for_host());
    if (rest_.advise(now_, busy, for_storage ? Rest::patience_for_storage : Rest::patience) ==
        Rest::Advice::sleep) {
      sleep(now_);
    } else {
      ++yields_;
      yielded_at = HostClock::read();
      ::sched_yield();
    }
  }
  return {};
}

bool Kernel::poll(Time now) {
  sockets_->begin_turn(now);
  flows_->begin_turn(now);
  taking_->begin_turn(now);
  far_seats_->begin_turn(now);
  angel_->begin_turn(now);
  const u64 asked = file_calls_->asked(), served = files_ == nullptr ? 0 : files_->served();
  const std::size_t messages = messenger_->poll(now, message_budget);
  std::size_t work = messages;
  if (files_ != nullptr) [[unlikely]] {
    work += files_->poll(now);
    file_calls_->poll();
    finding_->poll();
    if (!leavings_.empty()) poll_leavings(now);
    if (!luggage_.empty()) drop_old_luggage(now);
  }
  const std::size_t frames = tapped_->poll(frame_budget, *this);
  work += frames;
  const bool left = messages >= message_budget || frames >= frame_budget;
  if (!left) {
    input_since_ = {};
    input_left_ = 0;
  } else {
    if (input_since_.ns == 0) input_since_ = now;
    input_left_ = static_cast<u32>(messages + frames);
  }
  for (std::size_t i = 0; i < attached_.size(); ++i) {
    Program& program = *attached_[i];
    const u32 threads = static_cast<u32>(program.threads().size());
    for (u32 t = 0; t < threads && !program.dead; ++t) work += take_calls(program, t, call_budget);
  }
  if (files_ != nullptr && (file_calls_->asked() != asked || files_->served() != served))
    nearby_.expect(now);
  directory_.poll(now);
  sockets_->poll(now);
  parts_->poll(now);
  work += relays_->poll() ? 1 : 0;
  stack_->poll(now);
  if (device_->has_uplink()) flows_->poll(now);
  if (!listening_owed_.empty()) tell_listening();
  if (departures_->entries() != 0) [[unlikely]]
    departures_->poll(now);
  if (moving()) [[unlikely]]
    work += poll_moves(now) ? 1 : 0;
  if (taking_->under_way()) [[unlikely]]
    taking_->poll();
  if (far_seats_->under_way()) [[unlikely]]
    far_seats_->poll();
  angel_->poll([this] { return this->work(); });
  if (now >= next_host_poll_) {
    next_host_poll_ = now + host_poll_interval;
    work += poll_host(0, now, now) ? 1 : 0;
  }
  return work > 0;
}

Angel::Work Kernel::work() const {
  u32 runnable = 0;
  for (const Program* program : attached_)
    if (program->calls_waiting() != 0) ++runnable;
  return {.input_waiting = input_left_, .input_since = input_since_, .runnable = runnable};
}

// Everything written in this turn becomes visible, then sleepers are rung: one fence for all
// programs.
void Kernel::flush() {
  if (tap_.on()) tap_.publish();
  device_->flush();  // and the messenger's
  while (const auto peer = messenger_->take_faulted()) {
    ++faults_;
    COB_LOG(warn, "kernel {}: peer {} broke the protocol and was cut off", config_.kernel,
            peer->value);
    lose_peer(*peer);
    // Of another island: the link's next session shows whether it has mended its ways.
    if (islands_.together(*peer, KernelId(config_.kernel))) report_peer(*peer);
  }
  if (cable_ != nullptr) report_cut_wires();
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  for (Program* program : attached_) program->announce();
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  for (Program* program : attached_) bells_ += program->ring(now_);
}

Time Kernel::next_deadline() const {
  const Time files =
      files_ == nullptr
          ? Time::never()
          : std::min({files_->next_deadline(), file_calls_->next_deadline(now_), leavings_due(),
                      finding_->unsent() ? now_ + Duration::microseconds(100) : Time::never()});
  return std::min({messenger_->next_deadline(), stack_->next_deadline(), sockets_->next_deadline(),
                   directory_.next_deadline(), parts_->next_deadline(), device_->next_deadline(),
                   flows_->next_deadline(), taking_->next_deadline(), angel_->next_deadline(),
                   far_seats_->next_deadline(), files,
                   moving() ? now_ + Duration::milliseconds(1) : Time::never()});
}

void Kernel::set_armed(bool armed) {
  if (armed) arms_ = std::max(arms_ + 1, 2u);
  for (Program* program : attached_)
    publish(program->arena().ours().armed.armed, armed ? arms_ : 0u);
  device_->set_armed(armed);
  if (files_ != nullptr) files_->set_armed(armed);
  messenger_->set_armed(armed);  // ends in a full fence
}

bool Kernel::anything_pending() {
  if (messenger_->anything_pending() || device_->anything_pending()) return true;
  if (files_ != nullptr && files_->anything_pending()) return true;
  for (Program* program : attached_) {
    const call::ProgramSide& theirs = program->arena().theirs();
    const auto& threads = program->threads();
    for (u32 t = 0; t < threads.size(); ++t) {
      const u32 position = threads[t].position;
      if (load(theirs.ring[t][position % call::ring_slots].sequence) == position + 1) return true;
    }
  }
  return false;
}

void Kernel::show_resting(u32 looks) {
  fruitless_looks_ = looks;
  for (Program* program : attached_) publish(program->arena().ours().armed.resting, looks);
}

bool Kernel::program_busy() const {
  return std::any_of(attached_.begin(), attached_.end(),
                     [this](const Program* program) { return program->busy(now_, config_.core); });
}

// Looks for what another island is about to say, for some microseconds. True: there is something.
bool Kernel::look_near() {
  // Threads of ours that wait for the host may need this core.
  if (rest_.contested(now_) || files_->waits_for_host()) return false;
  bool came = false;
  Time at = now_;
  while (!(came = anything_pending()) && nearby_.expected(at)) at = HostClock::read();
  nearby_.looked(came);
  rest_.looked(now_, at);
  return came;
}

// A sleep without a doorbell for peers, and for programs only when they rest or have posted much:
// several events are found at its end. For a contested core, and to hand it to a program that
// works. False: no reason to.
bool Kernel::nap(Time now) {
  may_nap_ = false;  // the next time in earnest, unless there was work
  const bool contested = rest_.contested(now);
  const Duration length = rest_.nap_time(now);
  Time until = now + length;
  if (contested) {
    until = std::min(last_wake_ + Rest::wake_gap(stack_->counters().connections), next_deadline());
  } else if (!program_busy()) {
    return false;
  }
  if (until <= now) return false;
  for (Program* program : attached_) publish(program->arena().ours().armed.armed, call::armed_nap);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (!anything_pending()) {
    ++naps_;
    poll_host(1, until, now);
    if (!contested) rest_.napped(now, HostClock::read(), length);
  }
  for (Program* program : attached_) publish(program->arena().ours().armed.armed, 0u);
  return true;
}

void Kernel::sleep(Time now) {
  if (spare_arena_ == nullptr) {  // time to prepare the next program's
    if (auto arena = Arena::create(); arena) {
      spare_arena_ = arena.release_value();
      spare_arena_->populate();
    }
  }
  if (may_nap_ && nap(now)) return;
  angel_->asleep(true, work());
  set_armed(true);
  if (!anything_pending()) {
    ++sleeps_;
    publish(board_->asleep, u64{1});
    // The board shows the turns since it was written last before a long sleep, not after it.
    const Time due = next_deadline();
    if (poll_host(1, board_behind_ ? std::min(due, next_board_) : due, now)) board_behind_ = true;
    last_wake_ = HostClock::read();
    if (last_wake_ >= due) board_behind_ = true;
    publish(board_->asleep, u64{0});
  }
  angel_->asleep(false, {});
  set_armed(false);
}

Result<void> Kernel::watch(FdRef fd, u64 event) {
  epoll_event wanted{};
  // Doorbells are edge-triggered, so that they need not be read.
  wanted.events = is_doorbell(event)      ? EPOLLIN | EPOLLET
                  : event >= event_viewer ? EPOLLIN | EPOLLRDHUP
                  : event >= event_flight ? 0  // its end is all that is looked for
                                          : EPOLLIN | EPOLLRDHUP;
  wanted.data.u64 = event;
  if (::epoll_ctl(events_.get(), EPOLL_CTL_ADD, fd.get(), &wanted) != 0)
    return Error::from_errno("epoll_ctl");
  return {};
}

void Kernel::unwatch(FdRef fd) {
  if (fd.valid()) ::epoll_ctl(events_.get(), EPOLL_CTL_DEL, fd.get(), nullptr);
}

// Host descriptors: the doorbells, the supervisor, the programs' liveness sockets, relays, viewers.
// Waits until `deadline` at most.
bool Kernel::poll_host(int wait, Time deadline, Time now) {
  epoll_event events[32];
  timespec timeout{};
  timespec* limit = &timeout;
  if (wait != 0) {
    if (deadline == Time::never()) {
      limit = nullptr;
    } else if (deadline > now) {
      const i64 ns = (deadline - now).ns;
      timeout = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
    }
  }
  const int count = ::epoll_pwait2(events_.get(), events, 32, limit, nullptr);
  bool work = false;
  for (int i = 0; i < count; ++i) {
    const u64 data = events[i].data.u64;
    if (data == event_uplink || data == event_move) {
      work = true;  // the next turn takes the frames, or looks
    } else if (is_doorbell(data)) {
      if ((data & event_peer_doorbell) == event_peer_doorbell)
        messenger_->heard(KernelId(static_cast<u16>(data)));
    } else if (data >= event_viewer) {
      on_viewer(static_cast<u32>(data));
      work = true;
    } else if (data >= Relays::event_mark) {
      relays_->on_event(static_cast<u32>(data));
      work = true;
    } else if (data >= event_flight) {
      end_flight(static_cast<u32>(data));
      work = true;
    } else if (data == event_supervisor) {
      on_supervisor();
      work = true;
    } else if (Program* program = find(static_cast<u32>(data)); program != nullptr) {
      on_program(*program);
      work = true;
    }
  }
  return work;
}

// What another kernel handed on came from the uplink, and is trusted no more than that.
void Kernel::on_frame(std::span<const std::byte> frame, net::Route from, net::FrameFlags flags) {
  if (flags.outward) return device_->send_for_another(frame);
  if (flags.hops > 0) {
    if (!device_->has_uplink()) return;
    from = net::Route::uplink();
  }
  stack_->on_frame(frame, from, flags, now_);
}

}  // namespace cob::kernel
