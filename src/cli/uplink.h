// The cob's way out as the supervisor holds it: what `--uplink` asked for, the device, the steering
// tables and who is told of them. docs/network.md.
// Model: without a TAP device there are the tables alone, for a cable that may be plugged in
// (cabling.cc). Opened before the first kernel, closed with the supervisor; each life of a kernel
// gets the same queue. The supervisor's thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/steering_keeper.h"
#include "message/control.h"
#include "net/snap_bean/tap_port.h"
#include "net/snap_bean/tap_steering.h"

namespace cob::cli {

struct UplinkPlan {
  message::UplinkKind kind = message::UplinkKind::none;
  std::string text;     // as it was asked for
  std::string name;     // the TAP device
  u32 host = 0;         // Linux's address at its end, host byte order; 0: the user sees to it
  u32 gateway = 0;      // 0: none
  bool offload = true;  // checksums and segmentation are left to Linux
};

// "tap:NAME[,host=ADDR][,offload=off]" and "ADDR" ("": none). A bad value throws
// Failure{exit_usage}.
UplinkPlan parse_uplink(std::string_view text, std::string_view gateway, CobAddress cob);

class Uplink {
 public:
  // `problem`: why it failed, for the user.
  static Result<Uplink> open(const UplinkPlan& plan, u16 kernels, CobAddress cob,
                             std::string& problem);

  // What goes beside a kernel's Config, and into it.
  std::vector<FdRef> descriptors(u16 kernel) const;
  message::UplinkKind kind() const {
    return tap_ ? message::UplinkKind::tap : message::UplinkKind::cable;
  }
  u16 mtu() const { return tap_ ? tap_->mtu() : u16{0}; }  // a cable's frames have their own
  FdRef tables() const { return keeper_.tables().fd(); }
  // A TAP device's: "eBPF", or why Linux chooses queues by itself.
  const std::string& steering() const { return steered_by_; }

  void kernel_up(u16 kernel);
  void kernel_down(u16 kernel);
  // REQUIRES: `kernel` is up. False: nothing new.
  bool listening(u16 kernel, Port port, bool listens);

 private:
  explicit Uplink(SteeringKeeper keeper) : keeper_(std::move(keeper)) {}
  void mirror();

  SteeringKeeper keeper_;
  std::optional<net::TapPort> tap_;
  std::optional<net::TapSteering> program_;
  std::string steered_by_;
};

}  // namespace cob::cli
