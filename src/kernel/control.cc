// Kernel, the supervisor's side: hello, links to other kernels, programs handed over; see
// message/control.h. unix(7).
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "base/log.h"
#include "base/passing.h"
#include "kernel/kernel.h"

namespace cob::kernel {

using message::ControlKind;
using message::LinkNotice;
using message::Simple;

Result<void> Kernel::say_hello() {
  const Simple hello{.kind = static_cast<u32>(ControlKind::hello),
                     .value = config_.kernel,
                     .epoch = config_.epoch};
  const FdRef fds[] = {board_memory_.fd.ref()};
  return send_struct(supervisor_.ref(), hello, fds, Blocking::never);
}

Result<void> Kernel::open_link(KernelId peer, u32 peer_epoch, Doorbell doorbell) {
  Fd outbound;
  if (islands_.together(peer, KernelId(config_.kernel))) {
    TRY(watch(doorbell.bell.ref(), event_peer_doorbell | peer.value));
    outbound = TRY(messenger_->open_link(peer, peer_epoch, std::move(doorbell)));
    if (!messenger_->connected(peer)) parts_->peer_appeared(peer, now_);
  } else {
    outbound = TRY(island_links_->open(peer, peer_epoch, std::move(doorbell)));
    lose_peer(peer);  // its former life, if the lease has not run out yet
  }
  const LinkNotice link{.kind = static_cast<u32>(ControlKind::link),
                        .peer = peer.value,
                        .peer_epoch = peer_epoch,
                        .own_epoch = config_.epoch};
  const FdRef fds[] = {outbound.ref()};
  return send_struct(supervisor_.ref(), link, fds, Blocking::never);
}

// Of an added island, in each of its lives; 0: it has gone.
Result<void> Kernel::call_added(KernelId peer, u16 port) {
  TRY(island_links_->call(peer, port));
  lose_peer(peer);  // its former life
  return {};
}

// Of another island: on_session() tells when it is there.
Result<void> Kernel::peer_up(KernelId peer, u32 peer_epoch, Fd memory) {
  if (!islands_.together(peer, KernelId(config_.kernel)))
    return island_links_->peer_up(peer, peer_epoch, memory.ref());
  const auto done = messenger_->peer_up(peer, peer_epoch, std::move(memory));
  if (messenger_->connected(peer)) greet_peer(peer);
  return done;
}

void Kernel::greet_peer(KernelId peer) {
  directory_.peer_up(peer);
  parts_->peer_up(peer);
  flows_->peer_up(peer);
}

// What the peer had here goes: its ports and listeners, and the connections to it.
void Kernel::lose_peer(KernelId peer) {
  if (peer.value >= config_.kernels || peer.value == config_.kernel) return;
  directory_.peer_down(peer);
  parts_->peer_down(peer);
  flows_->peer_down(peer);
  departures_->peer_down(peer);
  taking_->peer_down(peer);
  far_seats_->peer_down(peer);
  angel_->peer_down(peer);
  if (files_ != nullptr) files_->peer_down(peer);
  stack_->route_lost(net::Route::inside(peer));
}

Result<void> Kernel::see_board(KernelId peer, FdRef board) {
  angel_->add_peer(
      peer, TRY(map_foreign(board, board_bytes(config_.kernels), Writers::creator, Access::read)));
  return {};
}

// A peer that broke the protocol is cut off for as long as it lives: the supervisor shall see to
// it.
void Kernel::report_peer(KernelId peer) {
  const Simple report{.kind = static_cast<u32>(ControlKind::peer_faulted),
                      .value = peer.value,
                      .epoch = messenger_->peer_epoch(peer)};
  const auto sent = send_struct(supervisor_.ref(), report, {}, Blocking::never);
  if (sent.is_error())
    COB_LOG(error, "kernel {}: the supervisor does not hear of it: {}", config_.kernel,
            std::strerror(sent.error().code));
}

// The supervisor steers the uplink's new connections to who listens.
void Kernel::tell_listening() {
  while (!listening_owed_.empty()) {
    const auto [port, listens] = *listening_owed_.begin();
    const Simple news{
        .kind = static_cast<u32>(listens ? ControlKind::listening : ControlKind::not_listening),
        .value = port,
        .epoch = config_.epoch};
    if (send_struct(supervisor_.ref(), news, {}, Blocking::never).is_error()) return;
    listening_owed_.erase(listening_owed_.begin());
  }
}

void Kernel::on_supervisor() {
  for (;;) {
    std::byte bytes[sizeof(message::Config)];
    auto received = receive_datagram(supervisor_.ref(), bytes, Blocking::never);
    if (received.is_error()) {
      if (received.error().code == EAGAIN) return;
      stopping_ = true;
      return;
    }
    const std::size_t got = received.value().bytes;
    std::vector<Fd>& fds = received.value().descriptors;
    if (got == 0) {  // the supervisor is gone: nothing of this cob stays
      stopping_ = true;
      return;
    }
    Simple simple;
    if (got < sizeof simple) continue;
    std::memcpy(&simple, bytes, sizeof simple);
    Result<void> done;
    switch (static_cast<ControlKind>(simple.kind)) {
      case ControlKind::peer_appeared:
        if (fds.size() != 2) break;
        done = open_link(KernelId(static_cast<u16>(simple.value)), simple.epoch,
                         {std::move(fds[0]), std::move(fds[1])});
        break;
      case ControlKind::peer_up: {
        LinkNotice link;
        if (got < sizeof link || fds.size() != 1) break;
        std::memcpy(&link, bytes, sizeof link);
        done = peer_up(KernelId(link.peer), link.peer_epoch, std::move(fds[0]));
        break;
      }
      case ControlKind::peer_down:
        messenger_->peer_down(KernelId(static_cast<u16>(simple.value)), simple.epoch);
        lose_peer(KernelId(static_cast<u16>(simple.value)));
        break;
      case ControlKind::program:
        ++introduced_;
        if (fds.size() == 1) {
          add_program(simple.value, std::move(fds[0]));
        } else {
          COB_LOG(warn, "kernel {}: out of descriptors: program {} turned away", config_.kernel,
                  simple.value);
        }
        break;
      case ControlKind::viewer:
        if (fds.size() == 1) add_viewer(std::move(fds[0]));
        break;
      case ControlKind::move_out:
        move_out(simple, fds);
        break;
      case ControlKind::move_thread:
        order_thread(simple.value, KernelId(static_cast<u16>(simple.reserved)));
        break;
      case ControlKind::move_in:
        move_in(simple, fds);
        break;
      case ControlKind::board:
        if (fds.size() != 1) break;
        done = see_board(KernelId(static_cast<u16>(simple.value)), fds[0].ref());
        break;
      case ControlKind::angel: {
        message::AngelNotice notice;
        if (got < sizeof notice) break;
        std::memcpy(&notice, bytes, sizeof notice);
        angel_->set(notice.policies, notice.draining);
        break;
      }
      case ControlKind::link_at:
        done =
            call_added(KernelId(static_cast<u16>(simple.value)), static_cast<u16>(simple.reserved));
        break;
      case ControlKind::steered:  // the flows look at the tables once a turn
        break;
      case ControlKind::cable_plugged:
      case ControlKind::cable_unplugged:
      case ControlKind::wire_open:
      case ControlKind::wire_memory:
      case ControlKind::wire_down:
        done = on_cable(static_cast<ControlKind>(simple.kind), std::span(bytes).first(got), fds);
        break;
      case ControlKind::shutdown:
        stopping_ = true;
        break;
      default:
        break;
    }
    if (done.is_error())
      COB_LOG(error, "kernel {}: {}: {}", config_.kernel, done.error().what,
              std::strerror(done.error().code));
  }
}

}  // namespace cob::kernel
