// The supervisor's cable: its socket in the loop, the place where it is met, and what kernels say
// about it. The talk itself: cable_end.cc. The supervisor's thread.
#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cstring>

#include "cli/supervisor.h"

namespace cob::cli {

using message::ControlKind;

Result<void> Supervisor::prepare_cable() {
  cable_.emplace(options_.name, options_.address, kernels_, uplink_->tables(),
                 [this](const std::string& text) { log(text); });
  if (options_.cable_place.empty()) return {};
  cable_place_.emplace(TRY(CablePlace::create(options_.cable_place)));
  if (cable_place_->is_maker())
    return watch(cable_place_->listener(), Source::cable_place, 0, EPOLLIN);
  next_cable_call_ = now_;
  return {};
}

Result<void> Supervisor::plug(Fd socket, CableEnd::Role role) {
  TRY(cable_->plug(std::move(socket), role, now_));
  cable_watched_ = !watch(cable_->socket(), Source::cable, 0, EPOLLIN).is_error();
  if (!cable_watched_) cable_->unplug("out of descriptors");
  return {};
}

void Supervisor::watch_cable() {
  if (!cable_->in_use() || !cable_watched_) return;
  epoll_event event{};
  event.events = EPOLLIN | (cable_->has_queued() ? static_cast<u32>(EPOLLOUT) : 0u);
  event.data.u64 = static_cast<u64>(std::to_underlying(Source::cable)) << 32;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, cable_->socket().get(), &event);
}

void Supervisor::on_cable(u32 events) {
  if (!cable_->in_use()) return;
  if ((events & EPOLLOUT) != 0) cable_->flush();
  if ((events & ~static_cast<u32>(EPOLLOUT)) != 0) cable_->on_socket(now_);
}

// One at a time; who comes beside it is sent away.
void Supervisor::on_cable_place() {
  auto came = cable_place_->accept();
  if (came.is_error()) return;
  if (ending_ || cable_->in_use()) return;
  if (plug(came.release_value(), CableEnd::Role::maker).is_error())
    log("somebody came to the cable's place who is no cob");
}

Time Supervisor::cable_deadline() const {
  const bool calls = cable_place_ && !cable_place_->is_maker() && !cable_->in_use() && !ending_;
  return std::min(cable_->deadline(), calls ? next_cable_call_ : Time::never());
}

void Supervisor::on_cable_deadlines() {
  if (cable_deadline() > now_) return;
  cable_->on_deadline(now_);
  if (!cable_place_ || cable_->in_use() || next_cable_call_ > now_) return;
  next_cable_call_ = now_ + CablePlace::retry;
  auto called = cable_place_->call();
  if (called.is_error()) return;  // its maker is not there now
  if (plug(called.release_value(), CableEnd::Role::other).is_error())
    log("the cable's place is no cob's");
}

bool Supervisor::on_cable_word(KernelSlot& kernel, u32 kind, std::span<const std::byte> bytes,
                               Datagram& datagram) {
  if (kind == std::to_underlying(ControlKind::wire_memory) &&
      bytes.size() == sizeof(message::LinkNotice)) {
    message::LinkNotice notice;
    std::memcpy(&notice, bytes.data(), sizeof notice);
    return cable_->on_wire_memory(kernel, notice, datagram);
  }
  if (kind == std::to_underlying(ControlKind::wire_cut) &&
      bytes.size() == sizeof(message::Simple)) {
    message::Simple report;
    std::memcpy(&report, bytes.data(), sizeof report);
    return cable_->on_wire_cut(kernel, report);
  }
  return false;
}

}  // namespace cob::cli
