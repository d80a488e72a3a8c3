// Frames through a TAP's queue; see tap.h. tun's read and write never wait here: a queue without
// frames gives EAGAIN, and a write takes the frame or refuses it. The kernel's loop.
#include "net/snap_bean/tap.h"

#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/ipv4.h"
#include "net/wire/ipv6.h"
#include "net/wire/tcp.h"
#include "net/wire/udp.h"

namespace cob::net {
namespace {

// virtio 1.2 sections 5.1.6, 5.1.6.2 and 5.1.6.4; <linux/virtio_net.h>.
constexpr u8 needs_checksum = 1;
constexpr u8 gso_none = 0, gso_tcp4 = 1, gso_tcp6 = 4, gso_ecn = 0x80;

constexpr std::size_t transport_start = sizeof(EthernetHeader) + sizeof(Ipv4Header);
constexpr std::size_t ip_checksum_at = sizeof(EthernetHeader) + offsetof(Ipv4Header, checksum);

void store_checksum(std::span<std::byte> frame, std::size_t at, u16 as_it_lies) {
  std::memcpy(frame.data() + at, &as_it_lies, sizeof as_it_lies);
}

// What is left to Linux of a segment or datagram at `start`; `pseudo`: its pseudo-header's sum.
VirtioNetHeader leave_to_linux(std::span<std::byte> frame, std::size_t start, bool tcp, u64 pseudo,
                               u8 gso, FrameFlags flags) {
  VirtioNetHeader header;
  header.flags = needs_checksum;
  header.checksum_start = static_cast<u16>(start);
  header.checksum_offset = tcp ? offsetof(TcpHeader, checksum) : offsetof(UdpHeader, checksum);
  // The field holds the pseudo-header's sum, not its complement.
  store_checksum(frame, start + header.checksum_offset, static_cast<u16>(~checksum_fold(pseudo)));
  if (tcp && flags.segment_bytes != 0) {
    const auto h = read_once<TcpHeader>(frame, start);
    header.gso_type = gso;
    header.header_bytes = static_cast<u16>(start + std::size_t{4} * (h.data_offset >> 4));
    header.segment_bytes = flags.segment_bytes;
  }
  return header;
}

VirtioNetHeader prepare_ipv6(std::span<std::byte> frame, FrameFlags flags) {
  constexpr std::size_t start = sizeof(EthernetHeader) + sizeof(Ipv6Header);
  if (frame.size() < start + sizeof(UdpHeader)) return {};
  const auto ip = read_once<Ipv6Header>(frame, sizeof(EthernetHeader));
  const bool tcp = ip.next_header == ip_protocol_tcp && frame.size() >= start + sizeof(TcpHeader);
  if (!tcp && ip.next_header != ip_protocol_udp) return {};
  return leave_to_linux(frame, start, tcp,
                        checksum_pseudo_header(ip.source, ip.destination, ip.next_header,
                                               static_cast<u32>(frame.size() - start)),
                        gso_tcp6, flags);
}

}  // namespace

VirtioNetHeader prepare_for_tap(std::span<std::byte> frame, FrameFlags flags) {
  VirtioNetHeader header;
  // Only the stack's own segments and datagrams come without checksums, under IP headers without
  // options.
  if (!flags.checksum_not_computed || frame.size() < transport_start + sizeof(UdpHeader))
    return header;
  if (read_once<EthernetHeader>(frame, 0).type.get() == ethernet_type_ipv6)
    return prepare_ipv6(frame, flags);
  const auto ip = read_once<Ipv4Header>(frame, sizeof(EthernetHeader));
  const bool tcp =
      ip.protocol == ip_protocol_tcp && frame.size() >= transport_start + sizeof(TcpHeader);
  if (!tcp && ip.protocol != ip_protocol_udp) return header;
  store_checksum(frame, ip_checksum_at, 0);
  store_checksum(
      frame, ip_checksum_at,
      checksum_fold(checksum_add(0, frame.subspan(sizeof(EthernetHeader), sizeof(Ipv4Header)))));
  return leave_to_linux(
      frame, transport_start, tcp,
      checksum_pseudo_header({ip.source.get()}, {ip.destination.get()}, ip.protocol,
                             static_cast<u16>(frame.size() - transport_start)),
      gso_tcp4, flags);
}

// The frame's own checksum is only left out by Linux itself; one that came from a wire was
// verified, or is to be verified by us.
bool read_tap_header(const VirtioNetHeader& header, FrameFlags& flags) {
  const u8 gso = header.gso_type & static_cast<u8>(~gso_ecn);
  if (gso != gso_none && gso != gso_tcp4 && gso != gso_tcp6) return false;
  flags.checksum_not_computed = (header.flags & needs_checksum) != 0;
  return true;
}

TapDevice::TapDevice(Fd queue, u16 mtu, bool offload)
    : queue_(std::move(queue)), mtu_(mtu), offload_(offload), in_(max_frame), out_(buffer_bytes) {}

std::span<std::byte> TapDevice::reserve(Route, std::size_t bytes) {
  open_ = 0;
  if (bytes > max_frame) return {};
  if (used_ + sizeof(VirtioNetHeader) + bytes > out_.size()) flush();
  open_ = bytes;
  return {out_.data() + used_ + sizeof(VirtioNetHeader), bytes};
}

bool TapDevice::commit(std::size_t bytes, FrameFlags flags) {
  VERIFY(bytes <= open_ && open_ != 0);
  const std::span frame{out_.data() + used_ + sizeof(VirtioNetHeader), bytes};
  const VirtioNetHeader header = prepare_for_tap(frame, flags);
  std::memcpy(out_.data() + used_, &header, sizeof header);
  waiting_.push_back({used_, sizeof header + bytes});
  used_ += sizeof header + bytes;
  open_ = 0;
  return true;
}

void TapDevice::flush() {
  for (const Waiting& frame : waiting_) {
    ssize_t wrote = 0;
    do {
      wrote = ::write(queue_.get(), out_.data() + frame.at, frame.bytes);
    } while (wrote < 0 && errno == EINTR);
    if (wrote != static_cast<ssize_t>(frame.bytes)) ++refused_out_;
  }
  waiting_.clear();
  used_ = 0;
}

std::size_t TapDevice::poll(std::size_t budget, FrameSink& sink) {
  std::size_t taken = 0;
  while (taken < budget) {
    VirtioNetHeader header;
    const iovec parts[] = {{&header, sizeof header}, {in_.data(), in_.size()}};
    const ssize_t got = ::readv(queue_.get(), parts, 2);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;  // EAGAIN; anything else shows on Linux's side
    ++taken;
    FrameFlags flags;
    if (got <= static_cast<ssize_t>(sizeof header) || !read_tap_header(header, flags)) {
      ++malformed_in_;
      continue;
    }
    const std::span frame{in_.data(), static_cast<std::size_t>(got) - sizeof header};
    sink.on_frame(frame, Route::uplink(), flags);
  }
  return taken;
}

}  // namespace cob::net
