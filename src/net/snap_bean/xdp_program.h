// XdpProgram: what a network interface does with a frame that comes in: a cob's goes to the AF_XDP
// socket of its queue, all others to Linux's stack as if there was no program. bpf(2), Linux
// Documentation/networking/af_xdp.rst, the eBPF instruction set (RFC 9669).
// Model: a program written by hand, a map of sockets by queue (XSKMAP), and a link that binds the
// program to the interface for exactly as long as this lives. The supervisor's thread.
#pragma once

#include <span>

#include "base/fd.h"
#include "base/result.h"
#include "net/wire/address.h"
#include "net/wire/ipv6.h"

namespace cob::net {

class XdpProgram {
 public:
  enum class Mode { native, generic };  // in the driver; in Linux's stack, for any interface

  // For the cob at `address`. EPERM: needs CAP_BPF and CAP_NET_ADMIN, or root; others of bpf(2).
  static Result<XdpProgram> create(Ipv4Address address, u32 queues, const Ipv6Address& ipv6 = {});

  // From now on. EBUSY, EEXIST: the interface has a program. EOPNOTSUPP and others: its driver
  // cannot.
  Result<void> attach(u32 interface, Mode mode);
  // What comes to `queue` is this socket's, until that is closed; without one the cob's frames are
  // dropped.
  Result<void> give(u32 queue, FdRef socket) const;

  // The program's choice for a frame, by BPF_PROG_TEST_RUN: XDP_PASS, XDP_REDIRECT, or XDP_DROP.
  // For tests.
  Result<u32> run(std::span<const std::byte> frame) const;

 private:
  XdpProgram(Fd sockets, Fd program) : sockets_(std::move(sockets)), program_(std::move(program)) {}

  Fd sockets_, program_, link_;
};

}  // namespace cob::net
