// Kernel, the cable to another cob: what the supervisor says about who is at its other end, and
// what it hears; see message/control.h, net/snap_bean/cable.h. The kernel's loop.
#include <cstring>

#include "base/log.h"
#include "base/passing.h"
#include "kernel/kernel.h"

namespace cob::kernel {

using message::ControlKind;
using message::LinkNotice;
using message::Simple;

Result<void> Kernel::plug_cable(FdRef steering) {
  if (cable_ == nullptr) {
    if (device_->has_uplink()) return Error::of(EBUSY, "a cable beside another uplink");
    auto device = TRY(net::CableDevice::create(KernelId(config_.kernel), config_.epoch));
    TRY(watch(device->wait_fd(), event_uplink));
    cable_ = device.get();
    device_->add_uplink(std::move(device));
  }
  TRY(cable_->plug(steering));
  set_way_out(true);
  return {};
}

// Programs that see none ask before they connect; the others post it.
void Kernel::set_way_out(bool way_out) {
  sockets_->set_uplink(way_out);
  for (Program* program : attached_)
    publish(program->arena().ours().header.way_out, way_out ? 1u : 0u);
}

Result<void> Kernel::on_cable(ControlKind kind, std::span<const std::byte> bytes,
                              std::vector<Fd>& descriptors) {
  const auto missing = Error::of(EPROTO, "a descriptor is missing: out of them");
  if (kind == ControlKind::cable_plugged) {
    if (descriptors.size() != 1) return missing;
    return plug_cable(descriptors[0].ref());
  }
  if (cable_ == nullptr) return Error::of(ENOTCONN, "a wire without a cable");
  if (kind == ControlKind::cable_unplugged) {
    set_way_out(false);
    cable_->unplug();
    return {};
  }
  if (kind == ControlKind::wire_down) {
    Simple gone;
    VERIFY(bytes.size() >= sizeof gone);
    std::memcpy(&gone, bytes.data(), sizeof gone);
    cable_->wire_down(KernelId(static_cast<u16>(gone.value)), gone.epoch);
    return {};
  }
  LinkNotice notice;
  if (bytes.size() < sizeof notice) return Error::of(EPROTO, "a short message about a wire");
  std::memcpy(&notice, bytes.data(), sizeof notice);
  if (descriptors.size() != 1) return missing;
  const KernelId peer(notice.peer);
  if (kind == ControlKind::wire_memory)
    return cable_->wire_up(peer, notice.peer_epoch, std::move(descriptors[0]));
  const FdRef memory = TRY(cable_->open_wire(peer, notice.peer_epoch, std::move(descriptors[0])));
  notice.kind = static_cast<u32>(ControlKind::wire_memory);
  const FdRef beside[] = {memory};
  return send_struct(supervisor_.ref(), notice, beside, Blocking::never);
}

void Kernel::report_cut_wires() {
  while (const auto ends = cable_->take_faulted()) {
    ++faults_;
    COB_LOG(warn, "kernel {}: the wire to kernel {} of the other cob is cut: broken protocol",
            config_.kernel, ends->peer.value);
    const Simple report{.kind = static_cast<u32>(ControlKind::wire_cut),
                        .value = ends->peer.value,
                        .epoch = ends->peer_epoch};
    if (const auto sent = send_struct(supervisor_.ref(), report, {}, Blocking::never);
        sent.is_error())
      COB_LOG(error, "kernel {}: the supervisor does not hear of it: {}", config_.kernel,
              std::strerror(sent.error().code));
  }
}

void Kernel::show_cable(BoardCable& shown) const {
  const net::CableDevice::Counters& c = cable_->counters();
  shown = {.wires = cable_->wires(),
           .frames_in = c.frames_in,
           .frames_out = c.frames_out,
           .bytes_in = c.bytes_in,
           .bytes_out = c.bytes_out,
           .frames_copied = c.copied,
           .dropped_full = c.dropped_full,
           .dropped_route = c.dropped_route,
           .bells_rung = c.bells_rung,
           .wires_cut = c.cut};
}

}  // namespace cob::kernel
