// See stand_in.h. poll(2).
#include "island/stand_in.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/log.h"
#include "base/passing.h"
#include "kernel/board.h"

namespace cob::island {

using message::ControlKind;

Result<StandIn> StandIn::create(Fd supervisor, const MachinePlan& plan) {
  message::Config config{};
  const auto got =
      TRY(receive_datagram(supervisor.ref(), std::as_writable_bytes(std::span(&config, 1))));
  if (got.bytes != sizeof config || config.kind != static_cast<u32>(ControlKind::config) ||
      config.kernel >= config.kernels || config.kernels > message::most_kernels)
    return Error::of(EPROTO, "no configuration on descriptor 3");
  std::vector<std::vector<std::byte>> shares;
  for (unsigned i = 0; i < config.shares; ++i) {
    std::array<std::byte, sizeof(message::ShareNotice) + message::most_path_bytes> bytes;
    const auto share = TRY(receive_datagram(supervisor.ref(), bytes));
    shares.emplace_back(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(share.bytes));
  }
  StandIn one(std::move(supervisor), TRY(start_machine(plan)));
  one.board_ =
      TRY(create_memory("cob-board", kernel::board_bytes(config.kernels), Writers::creator));
  config.link = message::IslandLink::socket;
  config.link_port = {};
  config.link_port[config.kernel] = one.port_;
  config.core = 0;
  config.uplink = message::UplinkKind::none;
  one.config_ = config;
  one.shares_ = std::move(shares);
  return one;
}

StandIn::~StandIn() {
  if (process_ <= 0 || !pidfd_.valid()) return;
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
}

Result<void> StandIn::run() {
  while (!stopping_) TRY(turn());
  return {};
}

Result<void> StandIn::turn() {
  TRY(channel_.flush());
  std::vector<pollfd> waits;
  waits.push_back({channel_.fd().get(), POLLIN, 0});
  if (channel_.has_unsent()) waits[0].events |= POLLOUT;
  waits.push_back({pidfd_.get(), POLLIN, 0});
  std::vector<u32> whose;
  if (!channel_.busy()) {
    waits.push_back({supervisor_.get(), POLLIN, 0});
    for (const auto& [number, socket] : streams_) {
      waits.push_back({socket.get(), POLLIN, 0});
      whose.push_back(number);
    }
  } else {
    waits.push_back({supervisor_.get(), 0, 0});  // its end alone
  }
  if (::poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR)
    return Error::from_errno("poll");
  if (waits[0].revents != 0) {
    const auto done = channel_.receive(
        [this](const FrameHead& head, std::span<const std::byte> b) { return on_frame(head, b); });
    if (done.is_error() && stopping_) return {};
    TRY(done);
  }
  if (waits[2].revents != 0) TRY(on_supervisor());
  for (std::size_t i = 0; i < whose.size(); ++i)
    if (waits[3 + i].revents != 0) on_stream(whose[i]);
  if (waits[1].revents != 0) return Error::of(ECONNRESET, "the machine has ended");
  return {};
}

Result<void> StandIn::on_frame(const FrameHead& head, std::span<const std::byte> body) {
  if (!heard_ && head.kind != FrameKind::hello) return Error::of(EPROTO, "no hello");
  switch (head.kind) {
    case FrameKind::hello:
      return on_hello(body);
    case FrameKind::control:
      return on_control(body);
    case FrameKind::board:
      return on_board(body);
    case FrameKind::data: {
      const auto found = streams_.find(head.stream);
      if (found == streams_.end()) return {};
      // Who does not read loses the stream, and holds nobody up.
      if (send_datagram(found->second.ref(), body, {}, Blocking::never).is_error()) {
        streams_.erase(found);
        channel_.send(FrameKind::close, head.stream, {});
      }
      return {};
    }
    case FrameKind::close:
      streams_.erase(head.stream);
      return {};
    case FrameKind::ended:
      COB_LOG(warn, "kernel {} on its machine {}", config_.kernel,
              std::string_view(reinterpret_cast<const char*>(body.data()), body.size()));
      return Error::of(ECONNRESET, "the kernel on the machine has ended");
    default:
      return Error::of(EPROTO, "a frame that only a stand-in sends");
  }
}

Result<void> StandIn::on_hello(std::span<const std::byte> body) {
  const auto hello = TRY(struct_of<Hello>(body));
  if (heard_) return Error::of(EPROTO, "a second hello");
  if (hello.magic != hello_magic)
    return Error::of(EPROTONOSUPPORT, "the machine's byte order is another, or it runs no agent");
  if (hello.version != channel_version || hello.config_bytes != sizeof config_ ||
      hello.board_bytes != sizeof(kernel::Board))
    return Error::of(EPROTONOSUPPORT,
                     "the image was made by another version of cob (see: cob island build)");
  heard_ = true;
  channel_.send_struct(FrameKind::config, 0, config_);
  for (const auto& share : shares_) channel_.send(FrameKind::share, 0, share);
  return {};
}

Result<void> StandIn::on_control(std::span<const std::byte> body) {
  message::Simple simple = TRY(struct_of<message::Simple>(body));
  if (simple.kind != static_cast<u32>(ControlKind::hello))
    return send_datagram(supervisor_.ref(), body, {}, Blocking::never);
  simple.value = port_;
  const FdRef board[] = {board_.fd.ref()};
  return send_struct(supervisor_.ref(), simple, board, Blocking::never);
}

Result<void> StandIn::on_board(std::span<const std::byte> body) {
  const u32 offset = TRY(struct_of<u32>(body));
  const auto bytes = body.subspan(sizeof offset);
  if (offset > board_.mapping.size() || bytes.size() > board_.mapping.size() - offset)
    return Error::of(EPROTO, "a board beyond its size");
  std::memcpy(board_.mapping.data() + offset, bytes.data(), bytes.size());
  return {};
}

Result<void> StandIn::on_supervisor() {
  alignas(8) std::byte bytes[sizeof(message::Config)];
  for (int budget = 64; budget > 0 && !stopping_; --budget) {
    auto got = receive_datagram(supervisor_.ref(), bytes, Blocking::never);
    if (got.is_error() && got.error().code == EAGAIN) return {};
    if (got.is_error() || got.value().bytes == 0) {
      stopping_ = true;
      return {};
    }
    const auto said = std::span<const std::byte>(bytes).first(got.value().bytes);
    u32 kind = 0;
    if (said.size() < sizeof kind) continue;
    std::memcpy(&kind, said.data(), sizeof kind);
    if (!heard_ && kind != static_cast<u32>(ControlKind::shutdown)) continue;  // nobody is there
    std::vector<Fd>& descriptors = got.value().descriptors;
    switch (static_cast<ControlKind>(kind)) {
      case ControlKind::program:
        TRY(begin_stream(StreamKind::run, std::move(descriptors)));
        break;
      case ControlKind::viewer:
        TRY(begin_stream(StreamKind::view, std::move(descriptors)));
        break;
      case ControlKind::shutdown:
        stopping_ = true;  // the machine has nothing that is to be kept
        break;
      default:
        if (descriptors.empty()) channel_.send(FrameKind::control, 0, said);
        break;  // memory and doorbells are for kernels of this machine
    }
  }
  return {};
}

Result<void> StandIn::begin_stream(StreamKind kind, std::vector<Fd> descriptors) {
  if (descriptors.size() != 1) return {};
  const u32 number = next_stream_++;
  channel_.send_struct(FrameKind::open, number, static_cast<u32>(kind));
  streams_.emplace(number, std::move(descriptors[0]));
  return {};
}

void StandIn::on_stream(u32 number) {
  const auto found = streams_.find(number);
  if (found == streams_.end()) return;
  std::vector<std::byte> bytes(Channel::max_frame_bytes);
  for (int budget = 16; budget > 0; --budget) {
    auto got = receive_datagram(found->second.ref(), bytes, Blocking::never);
    if (got.is_error() && got.error().code == EAGAIN) return;
    // Descriptors stay on their machine.
    if (got.is_error() || got.value().bytes == 0 || got.value().truncated ||
        !got.value().descriptors.empty()) {
      streams_.erase(found);
      channel_.send(FrameKind::close, number, {});
      return;
    }
    channel_.send(FrameKind::data, number, std::span(bytes).first(got.value().bytes));
  }
}

}  // namespace cob::island
