// XdpPort: a network interface as a cob's uplink, as the supervisor holds it: the program that
// tells the cob's frames from Linux's, and AF_XDP sockets for each life of a kernel. Linux
// Documentation/networking/af_xdp.rst, ethtool(8), netdevice(7).
// Model: hardware queue q is kernel q mod kernels's, and a kernel beyond the queues sends by
// another (SnapBean::Proxy). Everything that takes privilege is done here: a kernel gets sockets
// bound to their queues, with registered memory. These are new for each life, so that nothing of a
// dead kernel's rings is believed. All of it ends with this process. The supervisor's thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "net/snap_bean/port_failure.h"
#include "net/snap_bean/xdp_program.h"

namespace cob::net {

struct XdpOptions {
  enum class Copies : u8 { if_needed, never, always };

  std::string interface;  // at most 15 bytes
  u16 kernels = 1;
  Ipv4Address address;  // the cob's
  Ipv6Address ipv6{};   // likewise; any: none
  Copies copies = Copies::if_needed;
  bool generic = false;  // not in the driver, even if it can
};

class XdpPort {
 public:
  static constexpr u32 max_queues_a_kernel = 8;  // for which it can have memory

  // On failure `failure` says why.
  static Result<XdpPort> open(const XdpOptions& options, PortFailure& failure);

  u16 queues() const { return queues_; }
  u16 mtu() const { return mtu_; }
  MacAddress mac() const { return mac_; }
  // Linux leaves checksums out of what comes by it: it is a veth.
  bool sums_left_out() const { return driver_ == "veth"; }
  // New connections come to fewer kernels than there are: too few queues, or all frames by one (a
  // veth's in generic mode).
  bool gathers() const {
    return queues_ < options_.kernels ||
           (options_.kernels > 1 && mode_ == XdpProgram::Mode::generic && sums_left_out());
  }
  // "2 queues, native XDP, zero-copy", for the user.
  std::string describe() const;

  // For a life of `kernel`: of each queue of its own the socket and its memory; nothing, if it has
  // no queue. EBUSY: those of its last life are not gone yet.
  Result<std::vector<Fd>> take_sockets(u16 kernel);

 private:
  explicit XdpPort(XdpOptions options) : options_(std::move(options)) {}
  Result<void> attach(PortFailure& failure);
  Result<void> join_group(PortFailure& failure);
  Result<void> add_queue(u16 queue, std::vector<Fd>& sockets);
  std::string why_no_socket(const Error& error) const;

  std::optional<XdpProgram> program_;
  XdpOptions options_;
  Fd group_;  // while it is open the interface hears the group of the cob's IPv6 address
  u32 index_ = 0;
  u16 queues_ = 1;
  u16 mtu_ = 1'500;
  MacAddress mac_;
  std::string driver_;
  XdpProgram::Mode mode_ = XdpProgram::Mode::native;
  int not_native_ = 0;  // errno: why the driver refused
  bool zero_copy_ = false;
  std::vector<std::vector<Fd>> first_;  // for the first life of each kernel
};

}  // namespace cob::net
