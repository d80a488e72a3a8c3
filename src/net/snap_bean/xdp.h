// XdpDevice: hardware queues of a network card as a kernel's uplink, by AF_XDP sockets; with or
// without copies, as the driver can. Linux Documentation/networking/af_xdp.rst.
// Model: of each queue's frame memory (UMEM) one half is Linux's to receive into and ours in turn,
// the other is what frames are built in; receiving takes no system call, sending one for a burst,
// and only where Linux wants to be called. No offloads: frames go as on a wire. Owned and polled by
// one kernel's loop.
#pragma once

#include <vector>

#include "base/memory.h"
#include "net/snap_bean/device.h"
#include "net/snap_bean/xdp_ring.h"

namespace cob::net {

// How a queue's memory is laid out: known to both the supervisor, who registers it, and the kernel.
struct XdpLayout {
  static constexpr u32 receive_frames = 2'048, send_frames = 2'048;  // and entries of each ring
  static constexpr u32 headroom = 256;                               // that drivers may take
  static constexpr u32 largest_chunk = 4'096;                        // of Linux, for copies or not
  static constexpr u16 max_mtu = largest_chunk - headroom - 18;      // a VLAN's tag included

  // Of a frame of `mtu` bytes behind its Ethernet header.
  static constexpr u32 chunk_bytes(u16 mtu) {
    return u32{mtu} + headroom + 18 <= 2'048 ? 2'048 : largest_chunk;
  }
  static constexpr std::size_t memory_bytes(u16 mtu) {
    return std::size_t{receive_frames + send_frames} * chunk_bytes(mtu);
  }
};

// One AF_XDP socket, bound to its queue: a kernel's end.
class XdpQueue {
 public:
  struct Memory {
    Mapping receive, transmit, fill, completion;  // the rings
    xdp_mmap_offsets offsets;
    Mapping frames;
  };

  // `memory`: what `socket` has registered as its UMEM, of XdpLayout::memory_bytes(mtu). EPROTO: it
  // has not.
  static Result<XdpQueue> open(Fd socket, FdRef memory, u16 mtu);
  // Gives Linux its half to receive into.
  XdpQueue(Fd socket, Memory memory, u16 mtu);

  FdRef socket() const { return socket_.ref(); }
  // A frame to be built in; empty: none is free.
  std::span<std::byte> reserve(std::size_t bytes);
  void commit(std::size_t bytes);
  void flush();
  // At most a burst. `sums_left_out`: see XdpDevice.
  std::size_t poll(std::size_t most, FrameSink& sink, bool sums_left_out);
  bool anything_pending() const { return receive_.waiting() > 0; }
  // Linux would have taken more if it had had room.
  bool send_again() const { return again_; }
  u64 malformed() const { return malformed_; }

 private:
  std::byte* at(u64 address) const { return memory_.frames.data() + address; }
  void take_back();

  Fd socket_;
  Memory memory_;
  u32 chunk_bytes_;
  XdpConsumer<xdp_desc> receive_;
  XdpProducer<u64> fill_;
  XdpProducer<xdp_desc> transmit_;
  XdpConsumer<u64> completion_;
  std::vector<u64> free_;  // addresses of frames to build in
  u64 malformed_ = 0;
  bool committed_ = false;  // since the last flush
  bool again_ = false;
};

class XdpDevice final : public Device {
 public:
  // `queues`: one or more; what is sent goes by the first. `mtu`: bytes behind the Ethernet header.
  // `sums_left_out`: the interface is a veth, whose other end leaves checksums to a card that is
  // not there: a TCP or UDP checksum that is only its pseudo-header's sum is no error.
  XdpDevice(std::vector<XdpQueue> queues, u16 mtu, bool sums_left_out);

  std::size_t max_frame_bytes(Route) const override { return std::size_t{14} + mtu_; }
  bool skips_checksums(Route) const override { return false; }
  std::span<std::byte> reserve(Route to, std::size_t bytes) override;
  bool commit(std::size_t bytes, FrameFlags flags) override;
  void flush() override { queues_.front().flush(); }
  std::size_t poll(std::size_t budget, FrameSink& sink) override;
  FdRef wait_fd() const override { return all_.valid() ? all_.ref() : queues_.front().socket(); }
  bool anything_pending() override;
  Time next_deadline() const override {
    return queues_.front().send_again() ? Time() : Time::never();
  }
  // Malformed, and those for which Linux found no room here.
  u64 dropped_in() const override;

 private:
  std::vector<XdpQueue> queues_;
  u16 mtu_;
  bool sums_left_out_;
  Fd all_;  // an epoll set of several queues' sockets
  std::size_t first_ = 0;
};

// Whether the frame's TCP or UDP checksum is the sum of its pseudo-header, as Linux leaves it for a
// card to go on with (CHECKSUM_PARTIAL).
bool has_partial_checksum(std::span<const std::byte> frame);

}  // namespace cob::net
