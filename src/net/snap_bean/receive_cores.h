// ReceiveCores: which cores run Linux's own receive path for what comes by a device of Linux's:
// receive packet steering (Documentation/networking/scaling.rst, "RPS").
// Model: unless that is said, a write to a TAP runs the whole of its receiver, TCP and the wake-ups
// of programs included, on the writer's core, which is a kernel's. sysfs shows the network
// namespace that it was mounted in, so one is mounted for this, which nobody else sees
// (fsmount(2)). What was set before is set again at the end. The supervisor's thread.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/types.h"

namespace cob::net {

class ReceiveCores {
 public:
  // Of a device of this process's network namespace and its first `queues` receive queues, for all
  // of which each of `cores` takes a share of the connections. Takes CAP_SYS_ADMIN (the mount) and
  // CAP_NET_ADMIN.
  static Result<ReceiveCores> set(const std::string& device, u16 queues,
                                  std::span<const int> cores);
  ReceiveCores(ReceiveCores&&) = default;
  ReceiveCores& operator=(ReceiveCores&&) = delete;
  ReceiveCores(const ReceiveCores&) = delete;
  ReceiveCores& operator=(const ReceiveCores&) = delete;
  ~ReceiveCores();

 private:
  struct Queue {
    Fd mask;
    std::string before;
  };
  ReceiveCores() = default;
  std::vector<Queue> queues_;
};

// As sysfs wants it: "3", "1,00000000".
std::string core_mask(std::span<const int> cores);

}  // namespace cob::net
