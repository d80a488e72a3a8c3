// TapPort: the whole of a multi-queue TAP, as the supervisor holds it: opens or creates it, one
// queue a kernel, and configures Linux's end if asked. tuntap.rst, netdevice(7).
// Model: queue k is kernel k's for the cob's life, also over the kernel's deaths, so queues keep
// their numbers. A device that this created goes with the last queue's descriptor. The supervisor's
// thread.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "net/snap_bean/port_failure.h"
#include "net/wire/address.h"

namespace cob::net {

struct TapOptions {
  std::string name;  // at most 15 bytes
  u16 queues = 1;
  Ipv4Address host{};  // Linux's address at its end, which is brought up; any: the user does that
  u32 prefix_bits = 24;
  bool offload = true;  // Linux may send frames without checksums, and longer than the MTU
};

class TapPort {
 public:
  // On failure `failure` says why.
  static Result<TapPort> open(const TapOptions& options, PortFailure& failure);

  FdRef queue(u16 number) const { return queues_[number].ref(); }
  u16 queues() const { return static_cast<u16>(queues_.size()); }
  u16 mtu() const { return mtu_; }

 private:
  std::vector<Fd> queues_;
  u16 mtu_ = 1'500;
};

}  // namespace cob::net
