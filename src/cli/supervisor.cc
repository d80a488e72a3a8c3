#include "cli/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <net/if.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "kernel/board.h"

namespace cob::cli {
namespace {

using message::ControlKind;

constexpr Duration log_trim_interval = Duration::seconds(10);

u64 tag(u32 source, u32 index) { return static_cast<u64>(source) << 32 | index; }

Result<Fd> listen_at(const std::string& path) {
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return Error::from_errno("socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  VERIFY(path.size() < sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.data(), path.size());
  const mode_t old_mask = ::umask(0177);
  const int bound =
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  const Error error = Error::from_errno("bind the control socket");
  ::umask(old_mask);
  if (bound != 0) return error;
  if (::listen(socket.get(), 16) != 0) return Error::from_errno("listen on the control socket");
  return socket;
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options, RunDirectory directory, OnReady on_ready)
    : options_(std::move(options)),
      directory_(std::move(directory)),
      on_ready_(std::move(on_ready)),
      now_(HostClock::read()),
      started_(now_),
      next_log_trim_(now_ + log_trim_interval) {}

Result<std::unique_ptr<Supervisor>> Supervisor::create(SupervisorOptions options,
                                                       RunDirectory directory, OnReady on_ready,
                                                       std::string& problem) {
  std::unique_ptr<Supervisor> supervisor(
      new Supervisor(std::move(options), std::move(directory), std::move(on_ready)));
  const auto prepared = supervisor->prepare();
  if (prepared.is_error()) {
    supervisor->directory_.remove();
    problem = supervisor->problem_;
    return prepared.error();
  }
  return supervisor;
}

void Supervisor::describe_ipv6(message::Config& config) const {
  const CobIpv6& ipv6 = options_.ipv6;
  config.ipv6_on = ipv6.on ? 1 : 0;
  config.ipv6_auto = ipv6.automatic ? 1 : 0;
  config.ipv6_prefix_bits = static_cast<u8>(ipv6.prefix_bits);
  std::ranges::copy(ipv6.address, config.ipv6);
  std::ranges::copy(ipv6.gateway, config.ipv6_gateway);
  std::ranges::copy(ipv6.identifier_key, config.ipv6_identifier_key);
  config.uplink_index = ::if_nametoindex(options_.uplink.name.c_str());
  // An interface of Linux's, whose MAC is the cob's too, has that link-local address itself.
  config.ipv6_link_local = uplink_->kind() == message::UplinkKind::xdp ? 0 : 1;
}

Result<void> Supervisor::prepare() {
  directory_.write_pid(::getpid());
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return Error::from_errno("epoll_create1");

  sigset_t handled;
  sigemptyset(&handled);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) sigaddset(&handled, signal);
  ::sigprocmask(SIG_BLOCK, &handled, nullptr);
  signals_ = Fd(::signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.valid()) return Error::from_errno("signalfd");
  TRY(watch(signals_.ref(), Source::signals, 0, EPOLLIN));

  listener_ = TRY(listen_at(directory_.control_path()));
  TRY(watch(listener_.ref(), Source::listener, 0, EPOLLIN));

  // Programs and all their children share the inlet; they may write to it and nothing else.
  auto [inlet, outlet] = TRY(seqpacket_pair());
  make_blocking(inlet.ref());
  const int on = 1;
  if (::shutdown(inlet.get(), SHUT_RD) != 0 ||
      ::setsockopt(outlet.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0) {
    return Error::from_errno("the attach right");
  }
  attach_right_inlet_ = std::move(inlet);
  attach_right_ = std::move(outlet);
  TRY(watch(attach_right_.ref(), Source::attach_right, 0, EPOLLIN));

  message::Config config{};
  config.kind = std::to_underlying(ControlKind::config);
  const std::vector<int> cores = all_cores();
  config.kernels = static_cast<u16>(cores.size() + options_.room);
  config.address = options_.address.address;
  config.prefix_bits = options_.address.prefix_bits;
  config.congestion = std::to_underlying(options_.congestion);
  config.ecn = std::to_underlying(options_.ecn);
  if (::getrandom(config.secret, sizeof(config.secret), 0) != sizeof(config.secret))
    return Error::from_errno("getrandom");
  // Locally administered; ends like the address, which makes captures readable.
  const u32 a = options_.address.address;
  const std::array<u8, 6> mac{
      0x02, 0xc0, 0xb0, static_cast<u8>(a >> 16), static_cast<u8>(a >> 8), static_cast<u8>(a)};
  std::ranges::copy(mac, config.mac);
  uplink_.emplace(TRY(Uplink::open(options_.uplink, static_cast<u16>(cores.size()),
                                   options_.address, options_.ipv6, problem_)));
  config.gateway = options_.uplink.gateway;
  describe_ipv6(config);
  if (uplink_->is_device())
    log(fmt::format("uplink {}, steered by {}", options_.uplink.text, uplink_->steering()));
  if (!uplink_->linux_receives().empty())
    log(fmt::format("Linux receives from the uplink {}", uplink_->linux_receives()));
  std::memcpy(config.cob_name, options_.name.data(),
              std::min(options_.name.size(), sizeof(config.cob_name) - 1));
  TRY(prepare_islands(config));
  whole_ = config;
  kernels_.reserve(config.kernels);
  last_attach_.resize(config.kernels);
  standing_.resize(config.kernels);
  angel_ = options_.angel;
  for (std::size_t i = 0; i < cores.size(); ++i) {
    config.kernel = static_cast<u16>(i);
    config.core = cores[i];
    uplink_->describe(config);
    std::vector<FdRef> descriptors = uplink_->descriptors(config.kernel);
    if (link_listeners_[i].valid())
      descriptors.insert(descriptors.begin(), link_listeners_[i].ref());
    kernels_.emplace_back(KernelPlan{.config = config,
                                     .executable = options_.kernel_executable,
                                     .log = directory_.log(),
                                     .descriptors = std::move(descriptors),
                                     .shares = shares_for(config.island[i]),
                                     .arguments = {}});
  }
  return prepare_cable();
}

Result<void> Supervisor::watch(FdRef fd, Source source, u32 index, u32 events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag(std::to_underlying(source), index);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) == 0) return {};
  return Error::from_errno("epoll_ctl");
}

void Supervisor::watch_channel(const KernelSlot& kernel, bool register_now) {
  if (!kernel.alive()) return;
  epoll_event event{};
  event.events = EPOLLIN | (kernel.has_queued() ? static_cast<u32>(EPOLLOUT) : 0u);
  event.data.u64 = tag(std::to_underlying(Source::channel), kernel.id());
  ::epoll_ctl(epoll_.get(), register_now ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, kernel.control().get(),
              &event);
}

void Supervisor::spawn(KernelSlot& kernel) {
  auto own = kernel.elsewhere() ? Result<std::vector<Fd>>(std::vector<Fd>())
                                : uplink_->descriptors_of_a_life(kernel.id());
  if (own.is_error() && own.error().code == EBUSY && reported_)
    return kernel.put_off(now_ + Duration::milliseconds(10));
  Result<void> spawned;
  if (own.is_error()) {
    kernel.put_off(now_ + Duration::seconds(1));
    spawned = own.error();
  } else {
    std::vector<FdRef> descriptors;
    for (const Fd& fd : own.value()) descriptors.push_back(fd.ref());
    spawned = kernel.spawn(now_, descriptors);
  }
  if (!spawned.is_error()) spawned = watch(kernel.process(), Source::process, kernel.id(), EPOLLIN);
  if (spawned.is_error()) {
    const std::string text = fmt::format("kernel {} cannot be started: {}: {}", kernel.id(),
                                         spawned.error().what, std::strerror(spawned.error().code));
    log(text);
    kernel.kill();
    if (!reported_) begin_shutdown(text);
    return;
  }
  watch_channel(kernel, true);
}

bool Supervisor::run() {
  for (KernelSlot& kernel : kernels_) {
    if (!ending_) spawn(kernel);
  }
  loop();
  cable_place_.reset();
  directory_.remove();
  clients_.clear();  // the last sign of life that `cob down` waits for
  return came_up_;
}

void Supervisor::loop() {
  std::array<epoll_event, 64> events;
  while (!(ending_ && all_ended())) {
    const Time deadline = next_deadline();
    const i64 wait_ms = std::clamp<i64>((deadline - HostClock::read()).to_ms() + 1, 0, 60'000);
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), events.size(), static_cast<int>(wait_ms));
    VERIFY(count >= 0 || errno == EINTR);
    now_ = HostClock::read();
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      dispatch(static_cast<Source>(event.data.u64 >> 32), static_cast<u32>(event.data.u64),
               event.events);
    }
    on_deadlines();
    for (const KernelSlot& kernel : kernels_) watch_channel(kernel, false);
    watch_cable();
  }
}

void Supervisor::dispatch(Source source, u32 index, u32 events) {
  switch (source) {
    case Source::signals:
      return on_signal();
    case Source::listener:
      return on_connection();
    case Source::client:
      return on_client(index);
    case Source::attach_right:
      return on_attach_again();
    case Source::channel:
      if ((events & EPOLLOUT) != 0) kernels_[index].flush();
      if ((events & ~static_cast<u32>(EPOLLOUT)) != 0) on_channel(kernels_[index]);
      return;
    case Source::process:
      return on_process_end(kernels_[index]);
    case Source::cable:
      return on_cable(events);
    case Source::cable_place:
      return on_cable_place();
  }
}

Time Supervisor::next_deadline() const {
  Time next = std::min(next_log_trim_, cable_deadline());
  for (const KernelSlot& kernel : kernels_) {
    next = std::min(next, kernel.deadline());
    if (standing_[kernel.id()].accused_epoch != 0)
      next = std::min(next, kernel.running_since() + accused_lives);
    next = std::min(next, standing_[kernel.id()].judged);
  }
  return next;
}

void Supervisor::on_deadlines() {
  for (KernelSlot& kernel : kernels_) {
    end_accused(kernel);
    if (standing_[kernel.id()].judged <= now_) judge_suspect(kernel);
    if (kernel.deadline() > now_) continue;
    switch (kernel.state()) {
      case KernelState::waiting:
        spawn(kernel);
        break;
      case KernelState::starting:
        log(fmt::format("kernel {} said nothing for {} s; killing it", kernel.id(),
                        kernel.hello_timeout().ns / 1'000'000'000));
        if (!reported_) {
          begin_shutdown(
              fmt::format("kernel {} did not start: it said nothing for 10 s", kernel.id()));
        }
        kernel.kill();
        break;
      case KernelState::stopping:
        log(fmt::format("kernel {} did not end within 2 s; killing it", kernel.id()));
        kernel.kill();
        break;
      case KernelState::running:
      case KernelState::ended:
        break;
    }
    kernel.defer(now_ + Duration::seconds(1));
  }
  on_cable_deadlines();
  if (next_log_trim_ <= now_) {
    directory_.trim_log();
    next_log_trim_ = now_ + log_trim_interval;
  }
}

void Supervisor::on_signal() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
    if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) {
      begin_shutdown(fmt::format("stopped by signal {}", info.ssi_signo));
    }
  }
}

// ---- the cob's life
// ----------------------------------------------------------------------------------------------------

void Supervisor::report(const std::string& problem) {
  reported_ = true;
  came_up_ = problem.empty();
  nlohmann::json report = describe();
  report["ok"] = came_up_;
  if (!came_up_) {
    report["error"] = problem;
    report["log_tail"] = directory_.log_tail(2'000);
  }
  if (!on_ready_(report)) begin_shutdown("nobody waits for the cob to come up any more");
}

void Supervisor::begin_shutdown(const std::string& problem) {
  if (ending_) return;
  ending_ = true;
  log(fmt::format("ending{}{}", problem.empty() ? "" : ": ", problem));
  for (KernelSlot& kernel : kernels_) kernel.stop(now_);
  if (!reported_) report(problem);
}

bool Supervisor::all_ended() const {
  return std::ranges::all_of(
      kernels_, [](const KernelSlot& kernel) { return kernel.state() == KernelState::ended; });
}

void Supervisor::log(const std::string& text) const {
  timespec wall{};
  ::clock_gettime(CLOCK_REALTIME, &wall);
  tm parts{};
  ::localtime_r(&wall.tv_sec, &parts);
  char stamp[32];
  std::strftime(stamp, sizeof(stamp), "%F %T", &parts);
  const std::string line =
      fmt::format("{}.{:03} supervisor: {}\n", stamp, wall.tv_nsec / 1'000'000, text);
  (void)!::write(directory_.log().get(), line.data(), line.size());
}

}  // namespace cob::cli
