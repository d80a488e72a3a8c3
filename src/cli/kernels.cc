// What kernels tell the supervisor, and what it tells them of each other: hellos, links,
// complaints, deaths. Model: message/control.h; nothing a kernel says is trusted beyond its own
// harm. The supervisor's thread.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/doorbell.h"
#include "cli/supervisor.h"
#include "kernel/board.h"

namespace cob::cli {
namespace {

using message::ControlKind;

// A board may be mapped by tools without fear only if it cannot shrink under them.
bool is_sound_board(FdRef board) {
  struct stat status{};
  const int seals = ::fcntl(board.get(), F_GET_SEALS);
  return ::fstat(board.get(), &status) == 0 &&
         status.st_size >= static_cast<off_t>(sizeof(kernel::Board)) && seals >= 0 &&
         (seals & F_SEAL_SHRINK) != 0;
}

message::Simple simple(ControlKind kind, u32 value, u32 epoch) {
  message::Simple message{};
  message.kind = std::to_underlying(kind);
  message.value = value;
  message.epoch = epoch;
  return message;
}

}  // namespace

void Supervisor::on_channel(KernelSlot& kernel) {
  if (!kernel.alive()) return;
  alignas(8) std::array<std::byte, 256> buffer{};
  for (int budget = 64; budget > 0; --budget) {
    auto received = receive_datagram(kernel.control(), buffer);
    if (received.is_error()) return;  // EAGAIN; anything else ends in the pidfd
    Datagram datagram = received.release_value();
    if (datagram.bytes == 0) {  // closed: it is dying, or it must
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, kernel.control().get(), nullptr);
      if (kernel.state() != KernelState::stopping) kernel.kill();
      return;
    }
    u32 kind = 0;
    if (datagram.truncated || datagram.bytes < sizeof(kind))
      return broken_protocol(kernel, "a malformed message");
    std::memcpy(&kind, buffer.data(), sizeof(kind));
    if (kind == std::to_underlying(ControlKind::hello) &&
        datagram.bytes == sizeof(message::Simple)) {
      on_hello(kernel, buffer.data(), datagram);
    } else if (kind == std::to_underlying(ControlKind::link) &&
               datagram.bytes == sizeof(message::LinkNotice)) {
      message::LinkNotice link;
      std::memcpy(&link, buffer.data(), sizeof(link));
      on_link(kernel, link, datagram);
    } else if (kind == std::to_underlying(ControlKind::peer_faulted) &&
               datagram.bytes == sizeof(message::Simple)) {
      message::Simple report;
      std::memcpy(&report, buffer.data(), sizeof(report));
      on_peer_faulted(kernel, report);
    } else if ((kind == std::to_underlying(ControlKind::listening) ||
                kind == std::to_underlying(ControlKind::not_listening)) &&
               datagram.bytes == sizeof(message::Simple)) {
      message::Simple news;
      std::memcpy(&news, buffer.data(), sizeof(news));
      on_listening(kernel, news);
    } else if (kind == std::to_underlying(ControlKind::suspects) &&
               datagram.bytes == sizeof(message::Simple)) {
      message::Simple news;
      std::memcpy(&news, buffer.data(), sizeof(news));
      on_suspicion(kernel, news);
    } else if (kind == std::to_underlying(ControlKind::move_groups) &&
               datagram.bytes == sizeof(message::GroupOrder)) {
      message::GroupOrder order;
      std::memcpy(&order, buffer.data(), sizeof(order));
      on_group_order(kernel, order);
    } else if (!on_cable_word(kernel, kind, std::span(buffer).first(datagram.bytes), datagram)) {
      return broken_protocol(kernel, "an unknown message");
    }
    if (!kernel.alive()) return;
  }
}

void Supervisor::on_hello(KernelSlot& kernel, const std::byte* bytes, Datagram& datagram) {
  if (kernel.state() == KernelState::stopping) return;
  if (kernel.state() != KernelState::starting) return broken_protocol(kernel, "a second hello");
  if (datagram.descriptors.size() != 1 || !is_sound_board(datagram.descriptors[0].ref())) {
    return broken_protocol(kernel, "a hello without a sealed board");
  }
  message::Simple hello;
  VERIFY(datagram.bytes == sizeof hello);
  std::memcpy(&hello, bytes, sizeof hello);
  const auto port = static_cast<u16>(kernel.elsewhere() ? hello.value : 0);
  kernel.said_hello(std::move(datagram.descriptors[0]), port, now_);
  log(fmt::format("kernel {} runs: pid {}, core {}, epoch {}", kernel.id(), kernel.pid(),
                  kernel.core(), kernel.epoch()));
  for (KernelSlot& other : kernels_) {
    if (other.id() != kernel.id() && other.running() && is_introduced(kernel, other))
      introduce(kernel, other);
  }
  tell_angel(kernel);
  join_added(kernel);
  if (!kernel.elsewhere()) {
    uplink_->kernel_up(kernel.id());
    tell_steered();
    cable_->on_kernel_up(kernel);
  }
  if (!reported_ && std::ranges::all_of(kernels_, &KernelSlot::running)) report("");
}

// The uplink's new connections go to who listens. What a kernel says of itself is believed: who
// lies gets connections that it cannot serve.
void Supervisor::on_listening(KernelSlot& kernel, const message::Simple& news) {
  if (!kernel.running()) return;
  if (news.value == 0 || news.value > 65'535)
    return broken_protocol(kernel, "a listener without a port");
  const bool listens = news.kind == std::to_underlying(ControlKind::listening);
  if (uplink_->listening(kernel.id(), Port(static_cast<u16>(news.value)), listens)) tell_steered();
}

// So that kernels which sleep tell each other what the new tables make them tell.
void Supervisor::tell_steered() {
  for (KernelSlot& kernel : kernels_) {
    if (kernel.running() && kernel.send(simple(ControlKind::steered, 0, kernel.epoch())).is_error())
      broken_protocol(kernel, "nothing for the news of its peers: its queue is full");
  }
}

// Each hears of the other, and gets the two ends that it holds of the doorbells between them. They
// are new for each life of a kernel.
void Supervisor::introduce(KernelSlot& one, KernelSlot& other) {
  auto at_one = make_doorbell(), at_other = make_doorbell();
  if (at_one.is_error() || at_other.is_error()) {
    return log(fmt::format("out of descriptors: kernels {} and {} stay unconnected", one.id(),
                           other.id()));
  }
  std::swap(at_one.value().button, at_other.value().button);
  const auto tell = [this](KernelSlot& told, const KernelSlot& peer, Doorbell doorbell) {
    std::vector<Fd> descriptors;
    descriptors.push_back(std::move(doorbell.button));
    descriptors.push_back(std::move(doorbell.bell));
    const auto appeared = simple(ControlKind::peer_appeared, peer.id(), peer.epoch());
    if (told.send(appeared, std::move(descriptors)).is_error())
      broken_protocol(told, "nothing for its peers' messages: its queue is full");
  };
  tell(other, one, at_other.release_value());
  tell(one, other, at_one.release_value());
  if (!together(one, other)) return;
  const auto show = [this](KernelSlot& told, const KernelSlot& peer) {
    std::vector<Fd> board;
    board.emplace_back(::fcntl(peer.board().get(), F_DUPFD_CLOEXEC, 0));
    if (!board.back().valid())
      return log("out of descriptors: a kernel does not see another's board");
    if (told.send(simple(ControlKind::board, peer.id(), peer.epoch()), std::move(board)).is_error())
      broken_protocol(told, "nothing for its peers' boards: its queue is full");
  };
  show(other, one);
  show(one, other);
}

// The sender's memory goes to the peer it is for, unless one of the two has died since.
void Supervisor::on_link(KernelSlot& kernel, const message::LinkNotice& link, Datagram& datagram) {
  if (!kernel.running()) return;
  if (datagram.descriptors.size() != 1 || link.peer >= kernels_.size() ||
      link.peer == kernel.id()) {
    return broken_protocol(kernel, "a malformed link");
  }
  KernelSlot& peer = kernels_[link.peer];
  if (!is_introduced(kernel, peer)) return broken_protocol(kernel, "memory for another island");
  if (!peer.running() || peer.epoch() != link.peer_epoch || kernel.epoch() != link.own_epoch)
    return;
  message::LinkNotice up{};
  up.kind = std::to_underlying(ControlKind::peer_up);
  up.peer = kernel.id();
  up.peer_epoch = kernel.epoch();
  up.own_epoch = peer.epoch();
  std::vector<Fd> descriptors;
  descriptors.push_back(std::move(datagram.descriptors[0]));
  if (peer.send(up, std::move(descriptors)).is_error())
    broken_protocol(peer, "nothing: its queue is full");
}

// One kernel cut another off: their link stays cut until one of them has another epoch. Either may
// be the liar, and the supervisor saw nothing of it. So the accused is ended, at most once a
// second, and an accuser who goes on accusing goes the same way: a lie costs its teller what it
// costs others, and between a kernel and a peer that fails again and again both start anew.
void Supervisor::on_peer_faulted(KernelSlot& accuser, const message::Simple& report) {
  if (!accuser.running()) return;
  if (report.value >= kernels_.size() || report.value == accuser.id())
    return broken_protocol(accuser, "a complaint about no peer");
  KernelSlot& accused = kernels_[report.value];
  if (!together(accuser, accused))
    return broken_protocol(accuser, "a complaint about another island");
  if (!accused.running() || accused.epoch() != report.epoch) return;  // it is over already
  log(fmt::format("kernel {} cut kernel {} (epoch {}) off: it broke the message protocol",
                  accuser.id(), accused.id(), report.epoch));
  standing_[accused.id()].accused_epoch = report.epoch;
  Standing& standing = standing_[accuser.id()];
  if (now_ - standing.window_began > accusations_window) {
    standing.window_began = now_;
    standing.accusations = 0;
  }
  if (++standing.accusations > accusations_tolerated) {
    standing.accusations = 0;
    broken_protocol(accuser, "one complaint about its peers too many");
  }
}

void Supervisor::end_accused(KernelSlot& kernel) {
  u32& epoch = standing_[kernel.id()].accused_epoch;
  if (epoch == 0 || now_ < kernel.running_since() + accused_lives) return;
  if (kernel.running() && kernel.epoch() == epoch) {
    log(fmt::format("kernel {} is ended: a peer cut it off", kernel.id()));
    kernel.kill();
  }
  epoch = 0;
}

// A kernel that breaks the protocol harms itself only: it is ended, and starts anew.
void Supervisor::broken_protocol(KernelSlot& kernel, const char* what) {
  log(fmt::format("kernel {} sent {}; killing it", kernel.id(), what));
  kernel.kill();
}

void Supervisor::on_process_end(KernelSlot& kernel) {
  if (!kernel.alive()) return;
  const u32 epoch = kernel.epoch();
  const bool was_running = kernel.running();
  const bool was_stopping = kernel.state() == KernelState::stopping;
  const bool elsewhere = kernel.elsewhere();
  // Closing them would not be enough: a kernel just forked and not yet exec'd holds copies, and a
  // stale event would be taken for the next life's end, which reap() then waits for.
  for (const FdRef fd : {kernel.process(), kernel.control()})
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd.get(), nullptr);
  const std::string how = kernel.reap(now_);
  log(fmt::format("kernel {} (epoch {}) {}", kernel.id(), epoch, how));
  if (was_stopping) return;
  if (elsewhere) {
    on_added_end(kernel, was_running);
    if (ending_) kernel.stop(now_);
    return;
  }
  if (was_running) {
    no_suspect(kernel);
    uplink_->kernel_down(kernel.id());
    tell_steered();
  }
  if (was_running) {
    for (KernelSlot& other : kernels_) {
      // Other islands find out by themselves: nobody tells them between machines.
      if (!other.running() || !together(kernel, other)) continue;
      if (other.send(simple(ControlKind::peer_down, kernel.id(), epoch)).is_error()) {
        broken_protocol(other, "nothing for its peers' messages: its queue is full");
      }
    }
    cable_->on_kernel_down(kernel, epoch);
  }
  if (!reported_)
    return begin_shutdown(fmt::format("kernel {} {} before the cob was up", kernel.id(), how));
  if (ending_) return kernel.stop(now_);
}

}  // namespace cob::cli
