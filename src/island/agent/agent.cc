// See agent.h. poll(2), signalfd(2), wait(2).
#include "island/agent/agent.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/passing.h"
#include "call/layout.h"
#include "kernel/board.h"
#include "message/socket/stream_socket.h"

namespace cob::island {

using message::ControlKind;

namespace {

constexpr char kernel_path[] = "/usr/lib/cob/cob-kernel";
constexpr std::size_t board_piece = 512;

message::Simple simple(ControlKind kind, u32 value, u32 epoch) {
  return {.kind = static_cast<u32>(kind), .value = value, .epoch = epoch, .reserved = 0};
}

[[noreturn]] void become_kernel(int control) {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  const int copy = ::fcntl(control, F_DUPFD, 10);
  ::dup2(copy, 3);
  ::close_range(4, ~0U, 0);
  ::execl(kernel_path, "cob-kernel", static_cast<char*>(nullptr));
  ::_exit(127);
}

}  // namespace

Result<Agent> Agent::create(Fd port) {
  Agent agent(std::move(port));
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  agent.children_ = Fd(::signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!agent.children_.valid()) return Error::from_errno("signalfd");
  auto [inlet, outlet] = TRY(seqpacket_pair());
  make_blocking(inlet.ref());
  const int on = 1;
  if (::shutdown(inlet.get(), SHUT_RD) != 0 ||
      ::setsockopt(outlet.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0)
    return Error::from_errno("the attach right");
  agent.attach_inlet_ = std::move(inlet);
  agent.attach_right_ = std::move(outlet);
  Hello hello{.config_bytes = sizeof(message::Config), .board_bytes = sizeof(kernel::Board)};
  utsname names{};
  ::uname(&names);
  const std::string_view machine(names.machine);
  std::ranges::copy(machine.substr(0, sizeof hello.machine - 1), hello.machine);
  agent.channel_.send_struct(FrameKind::hello, 0, hello);
  return agent;
}

Result<void> Agent::run() {
  for (;;) TRY(turn());
}

Result<void> Agent::turn() {
  TRY(channel_.flush());
  std::vector<pollfd> waits;
  waits.push_back({channel_.fd().get(), POLLIN, 0});
  if (channel_.has_unsent()) waits[0].events |= POLLOUT;
  waits.push_back({children_.get(), POLLIN, 0});
  waits.push_back({attach_right_.get(), POLLIN, 0});
  waits.push_back({kernel_.get(), POLLIN, 0});
  std::vector<u32> whose;
  if (!channel_.busy()) {
    for (const auto& [number, stream] : streams_) {
      const FdRef fd = stream.program ? stream.program->gate() : stream.viewer.ref();
      if (!fd.valid()) continue;
      waits.push_back({fd.get(), POLLIN, 0});
      whose.push_back(number);
    }
  }
  const Time now = HostClock::read();
  const i64 wait =
      next_board_ == Time::never() ? -1 : std::max<i64>((next_board_ - now).to_ms(), 0);
  if (::poll(waits.data(), waits.size(), static_cast<int>(wait)) < 0 && errno != EINTR)
    return Error::from_errno("poll");
  if (next_board_ != Time::never() && HostClock::read() >= next_board_) show_board(false);
  if (waits[0].revents != 0)
    TRY(channel_.receive([this](const FrameHead& head, std::span<const std::byte> body) {
      return on_frame(head, body);
    }));
  if (waits[2].revents != 0) on_attach_again();
  if (waits[3].revents != 0) TRY(on_kernel());
  for (std::size_t i = 0; i < whose.size(); ++i) {
    const auto found = waits[4 + i].revents != 0 ? streams_.find(whose[i]) : streams_.end();
    if (found == streams_.end()) continue;
    if (found->second.program) {
      if (found->second.program->gate().valid()) found->second.program->on_gate();
    } else {
      on_viewer(whose[i]);
    }
  }
  if (waits[1].revents != 0) TRY(on_children());
  return {};
}

Result<void> Agent::on_frame(const FrameHead& head, std::span<const std::byte> body) {
  switch (head.kind) {
    case FrameKind::config:
      return on_config(body);
    case FrameKind::share:
      return on_share(body);
    case FrameKind::control:
      if (!kernel_.valid()) return Error::of(EPROTO, "words for no kernel");
      if (send_datagram(kernel_.ref(), body).is_error())
        COB_LOG(warn, "the kernel does not take its supervisor's words");
      return {};
    case FrameKind::open:
      return open_stream(head.stream, static_cast<StreamKind>(TRY(struct_of<u32>(body))));
    case FrameKind::data:
      on_data(head.stream, body);
      return {};
    case FrameKind::close:
      close_stream(head.stream, false);
      return {};
    default:
      return Error::of(EPROTO, "a frame that only an agent sends");
  }
}

Result<void> Agent::on_config(std::span<const std::byte> body) {
  if (configured_ || body.size() != sizeof config_)
    return Error::of(EPROTO, "a configuration of another version");
  std::memcpy(&config_, body.data(), sizeof config_);
  if (config_.kernel >= config_.kernels || config_.kernels > message::most_kernels)
    return Error::of(EPROTO, "a configuration that cannot be");
  configured_ = true;
  const auto address =
      TRY(message::SocketAddress::ip(fmt::format("0.0.0.0:{}", config_.link_port[config_.kernel])));
  listener_ = TRY(message::listen_socket(address));
  setting_ = {.kernel = config_.kernel,
              .address = config_.address,
              .reach_bits = config_.prefix_bits,
              .ipv6 = config_.ipv6_on != 0,
              .attach_right = attach_inlet_.ref(),
              .shares = {}};
  return config_.shares == 0 ? start_kernel() : Result<void>();
}

Result<void> Agent::on_share(std::span<const std::byte> body) {
  const auto notice = TRY(struct_of<message::ShareNotice>(body));
  if (!configured_ || shares_.size() >= config_.shares)
    return Error::of(EPROTO, "a share too many");
  const auto path = body.subspan(sizeof notice);
  setting_.shares.emplace_back(reinterpret_cast<const char*>(path.data()), path.size());
  shares_.emplace_back(body.begin(), body.end());
  return shares_.size() == config_.shares ? start_kernel() : Result<void>();
}

Result<void> Agent::start_kernel() {
  auto [ours, theirs] = TRY(seqpacket_pair());
  const FdRef listener[] = {listener_.ref()};
  TRY(send_struct(ours.ref(), config_, listener));
  for (const auto& share : shares_) TRY(send_datagram(ours.ref(), share));
  listener_.reset();
  const pid_t child = ::fork();
  if (child < 0) return Error::from_errno("fork");
  if (child == 0) become_kernel(theirs.get());
  kernel_process_ = child;
  kernel_ = std::move(ours);
  return {};
}

// What the kernel says of itself goes to the supervisor; its board is shown first.
Result<void> Agent::on_kernel() {
  alignas(8) std::byte bytes[256];
  for (int budget = 64; budget > 0; --budget) {
    auto got = receive_datagram(kernel_.ref(), bytes);
    if (got.is_error() && got.error().code == EAGAIN) return {};
    if (got.is_error() || got.value().bytes == 0) {
      kernel_.reset();  // its end is told by on_children()
      return {};
    }
    const auto said = std::span<const std::byte>(bytes).first(got.value().bytes);
    u32 kind = 0;
    if (said.size() < sizeof kind) return Error::of(EPROTO, "the kernel's words");
    std::memcpy(&kind, said.data(), sizeof kind);
    if (kind == static_cast<u32>(ControlKind::hello)) {
      if (got.value().descriptors.size() != 1) return Error::of(EPROTO, "a kernel without a board");
      board_ =
          TRY(map_foreign(got.value().descriptors[0].ref(), kernel::board_bytes(config_.kernels),
                          Writers::creator, Access::read));
      shown_.resize(board_.size());
      show_board(true);
    }
    channel_.send(FrameKind::control, 0, said);
  }
  return {};
}

// Pieces that have changed; the other side has the rest.
void Agent::show_board(bool all) {
  next_board_ = HostClock::read() + board_interval;
  if (channel_.busy()) return;
  std::vector<std::byte> frame;
  const auto send = [&] {
    if (!frame.empty()) channel_.send(FrameKind::board, 0, frame);
    frame.clear();
  };
  std::size_t end = 0;
  for (std::size_t at = 0; at < board_.size(); at += board_piece) {
    const std::size_t bytes = std::min(board_piece, board_.size() - at);
    if (std::memcmp(board_.data() + at, shown_.data() + at, bytes) == 0 && !(all && at == 0))
      continue;
    std::memcpy(shown_.data() + at, board_.data() + at, bytes);
    if (at != end || frame.size() > Channel::max_frame_bytes / 2) send();
    if (frame.empty()) {
      const u32 offset = static_cast<u32>(at);
      frame.resize(sizeof offset);
      std::memcpy(frame.data(), &offset, sizeof offset);
    }
    frame.insert(frame.end(), shown_.begin() + static_cast<std::ptrdiff_t>(at),
                 shown_.begin() + static_cast<std::ptrdiff_t>(at + bytes));
    end = at + bytes;
  }
  send();
}

Result<void> Agent::open_stream(u32 number, StreamKind kind) {
  if (streams_.contains(number) || !kernel_.valid())
    return Error::of(EPROTO, "a stream that cannot begin");
  Stream stream;
  if (streams_.size() >= most_streams) {
    channel_.send(FrameKind::close, number, {});
    return {};
  }
  if (kind == StreamKind::run) {
    stream.program.emplace([this, number](std::span<const std::byte> word) {
      channel_.send(FrameKind::data, number, word);
    });
  } else {
    auto [ours, kernels] = TRY(seqpacket_pair());
    const FdRef fds[] = {kernels.ref()};
    const auto told =
        send_struct(kernel_.ref(), simple(ControlKind::viewer, 0, config_.epoch), fds);
    if (told.is_error()) {
      channel_.send(FrameKind::close, number, {});
      return {};
    }
    stream.viewer = std::move(ours);
  }
  streams_.emplace(number, std::move(stream));
  return {};
}

void Agent::on_data(u32 number, std::span<const std::byte> body) {
  const auto found = streams_.find(number);
  if (found == streams_.end()) return;  // closed meanwhile
  Result<void> done;
  if (found->second.program) {
    done = found->second.program->on_command(body, setting_, [this](pid_t process, Fd end) {
      return introduce(process, std::move(end));
    });
  } else {
    done = send_datagram(found->second.viewer.ref(), body);
  }
  if (done.is_error()) close_stream(number, true);
}

void Agent::close_stream(u32 number, bool tell) {
  const auto found = streams_.find(number);
  if (found == streams_.end()) return;
  if (found->second.program) found->second.program->hang_up();
  streams_.erase(found);
  if (tell) channel_.send(FrameKind::close, number, {});
}

void Agent::on_viewer(u32 number) {
  std::vector<std::byte> bytes(Channel::max_frame_bytes);
  auto got = receive_datagram(streams_.at(number).viewer.ref(), bytes);
  if (got.is_error() && got.error().code == EAGAIN) return;
  // What comes with descriptors is of use on this machine only.
  if (got.is_error() || got.value().bytes == 0 || got.value().truncated ||
      !got.value().descriptors.empty())
    return close_stream(number, true);
  channel_.send(FrameKind::data, number, std::span(bytes).first(got.value().bytes));
}

Result<void> Agent::introduce(pid_t process, Fd kernels_end) {
  const FdRef fds[] = {kernels_end.ref()};
  return send_struct(kernel_.ref(),
                     simple(ControlKind::program, static_cast<u32>(process), config_.epoch), fds);
}

// As the supervisor does: a program wants the kernel after a fork or an exec.
void Agent::on_attach_again() {
  for (int budget = 256; budget > 0; --budget) {
    alignas(8) std::byte buffer[64];
    auto got = receive_datagram(attach_right_.ref(), buffer);
    if (got.is_error()) return;
    call::AgainRequest request{};
    Datagram& datagram = got.value();
    if (datagram.truncated || datagram.bytes != sizeof request ||
        datagram.descriptors.size() != 1 || !kernel_.valid())
      continue;
    std::memcpy(&request, buffer, sizeof request);
    if ((request.kind != static_cast<u32>(call::Hello::again) &&
         request.kind != static_cast<u32>(call::Hello::place)) ||
        request.kernel != config_.kernel)
      continue;
    const pid_t process = datagram.sender > 0 ? datagram.sender : static_cast<pid_t>(request.pid);
    if (introduce(process, std::move(datagram.descriptors[0])).is_error())
      COB_LOG(warn, "the kernel does not take new programs; one was turned away");
  }
}

Result<void> Agent::on_children() {
  signalfd_siginfo info{};
  while (::read(children_.get(), &info, sizeof info) == sizeof info) {
  }
  int status = 0;
  for (pid_t child; (child = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (child == kernel_process_) {
      const std::string how = WIFEXITED(status)
                                  ? fmt::format("exited with status {}", WEXITSTATUS(status))
                                  : fmt::format("was killed by signal {}", WTERMSIG(status));
      channel_.send(FrameKind::ended, 0, std::as_bytes(std::span(how)));
      TRY(channel_.flush());
      return Error::of(ECONNRESET, "the kernel has ended");
    }
    const auto found = std::ranges::find_if(streams_, [&](const auto& entry) {
      return entry.second.program && entry.second.program->process() == child;
    });
    if (found == streams_.end()) continue;
    found->second.program->on_end(status);
    channel_.send(FrameKind::close, found->first, {});
    streams_.erase(found);
  }
  return {};
}

}  // namespace cob::island
