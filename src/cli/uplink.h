// The cob's way out as the supervisor holds it: what `--uplink` asked for, the device, the steering
// tables and who is told of them. docs/network.md.
// Model: without a device there are the tables alone, for a cable that may be plugged in
// (cabling.cc). Opened before the first kernel, closed with the supervisor; each life of a kernel
// gets the same queues. The supervisor's thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/steering_keeper.h"
#include "message/control.h"
#include "net/snap_bean/receive_cores.h"
#include "net/snap_bean/tap_port.h"
#include "net/snap_bean/tap_steering.h"
#include "net/snap_bean/xdp_port.h"

namespace cob::cli {

struct UplinkPlan {
  message::UplinkKind kind = message::UplinkKind::none;
  std::string text;     // as it was asked for
  std::string name;     // of the TAP device, or of the interface
  u32 host = 0;         // Linux's address at its end, host byte order; 0: the user sees to it
  u32 gateway = 0;      // 0: none
  bool offload = true;  // TAP: checksums and segmentation are left to Linux
  std::vector<int> receive_cores;  // TAP: they run Linux's receive path; none: the sender's does
  net::XdpOptions::Copies copies = net::XdpOptions::Copies::if_needed;
  bool generic_xdp = false;
};

// "tap:NAME[,host=ADDR][,offload=off][,rps=CORES]" or "xdp:NAME[,zerocopy|,copy][,generic]", and
// "ADDR" ("": none). A bad value throws Failure{exit_usage}.
UplinkPlan parse_uplink(std::string_view text, std::string_view gateway, CobAddress cob);

class Uplink {
 public:
  // `problem`: why it failed, for the user.
  static Result<Uplink> open(const UplinkPlan& plan, u16 kernels, CobAddress cob,
                             const CobIpv6& ipv6, std::string& problem);

  // What goes beside a kernel's Config, and into it.
  std::vector<FdRef> descriptors(u16 kernel) const;
  // The same, of one life alone. EBUSY: soon.
  Result<std::vector<Fd>> descriptors_of_a_life(u16 kernel);
  void describe(message::Config& config) const;
  message::UplinkKind kind() const {
    return tap_   ? message::UplinkKind::tap
           : xdp_ ? message::UplinkKind::xdp
                  : message::UplinkKind::cable;
  }
  // By a device: no cable beside it.
  bool is_device() const { return kind() != message::UplinkKind::cable; }
  FdRef tables() const { return keeper_.tables().fd(); }
  // A device's. TAP: "eBPF", or why Linux chooses queues by itself; XDP: its queues and mode.
  const std::string& steering() const { return steered_by_; }
  // TAP: where Linux's receive path runs. Else "".
  const std::string& linux_receives() const { return linux_receives_; }

  void kernel_up(u16 kernel);
  void kernel_down(u16 kernel);
  // REQUIRES: `kernel` is up. False: nothing new.
  bool listening(u16 kernel, Port port, bool listens);
  // As SteeringKeeper's.
  bool drain(u16 kernel, bool on);
  bool hang(u16 kernel, bool on);
  std::size_t move_groups(u16 from, Port port, std::span<const SteeringKeeper::Move> moves);

 private:
  explicit Uplink(SteeringKeeper keeper) : keeper_(std::move(keeper)) {}
  Result<void> open_tap(const UplinkPlan& plan, u16 kernels, CobAddress cob, std::string& problem);
  Result<void> open_xdp(const UplinkPlan& plan, u16 kernels, CobAddress cob, const CobIpv6& ipv6,
                        std::string& problem);
  Result<void> steer_receiving(const UplinkPlan& plan, std::string& problem);
  void mirror();

  bool offload_ = false;
  SteeringKeeper keeper_;
  std::optional<net::TapPort> tap_;
  std::optional<net::ReceiveCores> receive_;  // goes before the device
  std::optional<net::TapSteering> program_;
  std::optional<net::XdpPort> xdp_;
  std::string steered_by_, linux_receives_;
};

}  // namespace cob::cli
