// Frames through AF_XDP sockets; see xdp.h. The kernel's loop.
#include "net/snap_bean/xdp.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "net/snap_bean/burst.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/ipv4.h"
#include "net/wire/ipv6.h"
#include "net/wire/tcp.h"
#include "net/wire/udp.h"

namespace cob::net {
namespace {

template <typename Entry>
Result<Mapping> map_ring(FdRef socket, const xdp_ring_offset& at, u32 entries, u64 page_offset) {
  return Mapping::map(socket, XdpRingPlace<Entry>::bytes(at, entries), Access::read_write,
                      page_offset);
}

}  // namespace

Result<XdpQueue> XdpQueue::open(Fd socket, FdRef memory, u16 mtu) {
  constexpr u32 in = XdpLayout::receive_frames, out = XdpLayout::send_frames;
  Memory m;
  socklen_t bytes = sizeof m.offsets;
  if (::getsockopt(socket.get(), SOL_XDP, XDP_MMAP_OFFSETS, &m.offsets, &bytes) != 0)
    return Error::from_errno("XDP_MMAP_OFFSETS");
  if (bytes != sizeof m.offsets) return Error::of(EPROTO, "the rings of an AF_XDP socket");
  m.receive = TRY(map_ring<xdp_desc>(socket.ref(), m.offsets.rx, in, XDP_PGOFF_RX_RING));
  m.transmit = TRY(map_ring<xdp_desc>(socket.ref(), m.offsets.tx, out, XDP_PGOFF_TX_RING));
  m.fill = TRY(map_ring<u64>(socket.ref(), m.offsets.fr, in, XDP_UMEM_PGOFF_FILL_RING));
  m.completion =
      TRY(map_ring<u64>(socket.ref(), m.offsets.cr, out, XDP_UMEM_PGOFF_COMPLETION_RING));
  m.frames =
      TRY(map_foreign(memory, XdpLayout::memory_bytes(mtu), Writers::anyone, Access::read_write));
  return XdpQueue(std::move(socket), std::move(m), mtu);
}

XdpQueue::XdpQueue(Fd socket, Memory memory, u16 mtu)
    : socket_(std::move(socket)),
      memory_(std::move(memory)),
      chunk_bytes_(XdpLayout::chunk_bytes(mtu)),
      receive_({memory_.receive.data(), memory_.offsets.rx, XdpLayout::receive_frames}),
      fill_({memory_.fill.data(), memory_.offsets.fr, XdpLayout::receive_frames}),
      transmit_({memory_.transmit.data(), memory_.offsets.tx, XdpLayout::send_frames}),
      completion_({memory_.completion.data(), memory_.offsets.cr, XdpLayout::send_frames}) {
  for (u64 i = 0; i < XdpLayout::receive_frames; ++i) fill_.put(i * chunk_bytes_);
  fill_.publish();
  // The last one is used first, and again while it is in the caches.
  for (u64 i = XdpLayout::send_frames; i-- > 0;)
    free_.push_back((XdpLayout::receive_frames + i) * chunk_bytes_);
}

std::span<std::byte> XdpQueue::reserve(std::size_t bytes) {
  if (free_.empty()) take_back();
  if (free_.empty() || bytes > chunk_bytes_) return {};
  return {at(free_.back()), bytes};
}

void XdpQueue::commit(std::size_t bytes) {
  VERIFY(!free_.empty() && bytes <= chunk_bytes_);
  // As many entries as frames: there is room.
  transmit_.put({.addr = free_.back(), .len = static_cast<u32>(bytes), .options = 0});
  free_.pop_back();
  committed_ = true;
}

void XdpQueue::take_back() {
  const u32 sent = completion_.waiting();
  if (sent == 0) return;
  for (u32 i = 0; i < sent; ++i) free_.push_back(completion_.take());
  completion_.release();
}

// A call takes some tens of frames; none: the device's queue is full, or the device is down.
void XdpQueue::flush() {
  if (!committed_ && !again_) return;
  if (committed_) transmit_.publish();
  committed_ = again_ = false;
  u32 left = transmit_.unread();
  while (left > 0 && transmit_.needs_wakeup()) {
    const bool done = ::sendto(socket_.get(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) >= 0;
    const int problem = done ? 0 : errno;
    const u32 before = left;
    left = transmit_.unread();
    if (left < before) continue;
    again_ = problem == EAGAIN || problem == EBUSY || problem == EINTR || problem == ENOBUFS;
    break;
  }
  take_back();
}

std::size_t XdpQueue::poll(std::size_t most, FrameSink& sink, bool sums_left_out) {
  const std::size_t frames = std::min({most, max_burst, std::size_t{receive_.waiting()}});
  if (frames == 0) return 0;
  std::array<std::span<const std::byte>, max_burst> frame;
  std::array<u64, max_burst> chunk;
  constexpr u64 no_chunk = ~u64{0};
  for (std::size_t i = 0; i < frames; ++i) {
    const xdp_desc entry = receive_.take();
    const std::size_t size = memory_.frames.size();
    chunk[i] = entry.addr < size ? entry.addr - entry.addr % chunk_bytes_ : no_chunk;
    if (entry.addr < size && entry.len <= size - entry.addr) frame[i] = {at(entry.addr), entry.len};
    fetch_headers(frame[i]);
  }
  in_turn(
      frames, sink, [&](std::size_t i) { return frame[i]; },
      [&](std::size_t i) {
        if (frame[i].empty()) {
          ++malformed_;
          return true;
        }
        sink.on_frame(frame[i], Route::uplink(),
                      {.checksum_not_computed = sums_left_out && has_partial_checksum(frame[i])});
        return true;
      });
  receive_.release();
  for (std::size_t i = 0; i < frames; ++i)
    if (chunk[i] != no_chunk) fill_.put(chunk[i]);
  fill_.publish();
  if (fill_.needs_wakeup())
    (void)::recvfrom(socket_.get(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
  return frames;
}

XdpDevice::XdpDevice(std::vector<XdpQueue> queues, u16 mtu, bool sums_left_out)
    : queues_(std::move(queues)), mtu_(mtu), sums_left_out_(sums_left_out) {
  VERIFY(!queues_.empty());
  if (queues_.size() == 1) return;
  all_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  VERIFY(all_.valid());
  for (const XdpQueue& queue : queues_) {
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    VERIFY(::epoll_ctl(all_.get(), EPOLL_CTL_ADD, queue.socket().get(), &wanted) == 0);
  }
}

std::span<std::byte> XdpDevice::reserve(Route to, std::size_t bytes) {
  return bytes <= max_frame_bytes(to) ? queues_.front().reserve(bytes) : std::span<std::byte>();
}

bool XdpDevice::commit(std::size_t bytes, FrameFlags flags) {
  VERIFY(!flags.checksum_not_computed && flags.segment_bytes == 0);
  queues_.front().commit(bytes);
  return true;
}

// Bursts in turn, so that no queue starves another.
std::size_t XdpDevice::poll(std::size_t budget, FrameSink& sink) {
  std::size_t taken = 0, idle = 0;
  while (idle < queues_.size() && taken < budget) {
    const std::size_t got = queues_[first_].poll(budget - taken, sink, sums_left_out_);
    taken += got;
    idle = got == 0 ? idle + 1 : 0;
    first_ = first_ + 1 < queues_.size() ? first_ + 1 : 0;
  }
  return taken;
}

bool XdpDevice::anything_pending() {
  return std::ranges::any_of(queues_, &XdpQueue::anything_pending);
}

u64 XdpDevice::dropped_in() const {
  u64 dropped = 0;
  for (const XdpQueue& queue : queues_) {
    dropped += queue.malformed();
    xdp_statistics counted{};
    socklen_t bytes = sizeof counted;
    if (::getsockopt(queue.socket().get(), SOL_XDP, XDP_STATISTICS, &counted, &bytes) == 0)
      dropped += counted.rx_dropped + counted.rx_ring_full + counted.rx_fill_ring_empty_descs;
  }
  return dropped;
}

namespace {

bool has_partial_checksum_ipv6(std::span<const std::byte> frame) {
  constexpr std::size_t start = sizeof(EthernetHeader) + sizeof(Ipv6Header);
  if (frame.size() < start + sizeof(UdpHeader)) return false;
  const auto ip = read_once<Ipv6Header>(frame, sizeof(EthernetHeader));
  const bool tcp = ip.next_header == ip_protocol_tcp;
  if (!tcp && ip.next_header != ip_protocol_udp) return false;
  const std::size_t at =
      start + (tcp ? offsetof(TcpHeader, checksum) : offsetof(UdpHeader, checksum));
  if (frame.size() < at + sizeof(u16)) return false;
  u16 lies = 0;
  copy_once(&lies, frame.data() + at, sizeof lies);
  return lies == static_cast<u16>(~checksum_fold(checksum_pseudo_header(
                     ip.source, ip.destination, ip.next_header, ip.payload_length.get())));
}

}  // namespace

bool has_partial_checksum(std::span<const std::byte> frame) {
  constexpr std::size_t start = sizeof(EthernetHeader) + sizeof(Ipv4Header);
  if (frame.size() < start + sizeof(UdpHeader)) return false;
  const u16 type = read_once<EthernetHeader>(frame, 0).type.get();
  if (type == ethernet_type_ipv6) return has_partial_checksum_ipv6(frame);
  if (type != ethernet_type_ipv4) return false;
  const auto ip = read_once<Ipv4Header>(frame, sizeof(EthernetHeader));
  const bool tcp = ip.protocol == ip_protocol_tcp;
  if (ip.version_and_length != 0x45 || (!tcp && ip.protocol != ip_protocol_udp)) return false;
  const std::size_t at =
      start + (tcp ? offsetof(TcpHeader, checksum) : offsetof(UdpHeader, checksum));
  const u16 length = ip.total_length.get();
  if (length < sizeof(Ipv4Header) || frame.size() < at + sizeof(u16)) return false;
  u16 lies = 0;
  copy_once(&lies, frame.data() + at, sizeof lies);
  return lies == static_cast<u16>(~checksum_fold(
                     checksum_pseudo_header({ip.source.get()}, {ip.destination.get()}, ip.protocol,
                                            static_cast<u16>(length - sizeof(Ipv4Header)))));
}

}  // namespace cob::net
