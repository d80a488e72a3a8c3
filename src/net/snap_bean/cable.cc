// Plugging, steering and carrying frames between two cobs. See cable.h; decision 3's doorbell, as
// message/links.cc has it. The kernel's loop.
#include "net/snap_bean/cable.h"

#include <sys/epoll.h>

#include <algorithm>

#include "message/shared_word.h"
#include "net/snap_bean/burst.h"
#include "net/wire/bytes.h"

namespace cob::net {

Result<std::unique_ptr<CableDevice>> CableDevice::create(KernelId self, u32 own_epoch) {
  Fd bells(::epoll_create1(EPOLL_CLOEXEC));
  if (!bells.valid()) return Error::from_errno("epoll_create1");
  return std::unique_ptr<CableDevice>(new CableDevice(self, own_epoch, std::move(bells)));
}

// ---- who is at the other end

Result<void> CableDevice::plug(FdRef steering) {
  SteeringReader reader = TRY(SteeringReader::open(steering));
  unplug();
  steering_ = std::move(reader);
  return {};
}

void CableDevice::unplug() {
  for (std::size_t i = 0; i < links_.size(); ++i) remove(KernelId(static_cast<u16>(i)));
  steering_.reset();
}

Result<FdRef> CableDevice::open_wire(KernelId peer, u32 peer_epoch, Fd bell) {
  if (!plugged()) return Error::of(ENOTCONN, "no cable is plugged in");
  if (peer.value >= steering_->kernels()) return Error::of(EINVAL, "no such kernel at the cable");
  auto link = TRY(CableLink::create(
      {.own = self_, .peer = peer, .own_epoch = own_epoch_, .peer_epoch = peer_epoch},
      std::move(bell)));
  remove(peer);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u32 = peer.value;
  if (::epoll_ctl(bells_.get(), EPOLL_CTL_ADD, link->bell().get(), &event) != 0)
    return Error::from_errno("epoll_ctl of a cable's bell");
  const FdRef memory = link->memory();
  links_[peer.value] = std::move(link);
  return memory;
}

Result<void> CableDevice::wire_up(KernelId peer, u32 peer_epoch, Fd memory) {
  CableLink* link = find(peer);
  if (link == nullptr || link->ends().peer_epoch != peer_epoch)
    return Error::of(ENOENT, "no such wire of the cable");
  const auto accepted = link->accept(std::move(memory));
  if (accepted.is_error()) {
    if (accepted.error().code != EEXIST) fault(*link);
    return accepted;
  }
  link->set_armed(armed_);
  active_.push_back(link);
  return {};
}

void CableDevice::wire_down(KernelId peer, u32 peer_epoch) {
  const CableLink* link = find(peer);
  if (link != nullptr && link->ends().peer_epoch == peer_epoch) remove(peer);
}

void CableDevice::remove(KernelId peer) {
  CableLink* link = find(peer);
  if (link == nullptr) return;
  std::erase(active_, link);
  std::erase(touched_, link);
  for (CableLink*& last : last_) {
    if (last == link) last = nullptr;
  }
  if (open_ == link) buffer_ = {};
  // The peer, or who made the bell, may hold copies, which would keep the watch.
  ::epoll_ctl(bells_.get(), EPOLL_CTL_DEL, link->bell().get(), nullptr);
  links_[peer.value].reset();
}

// The wire stays as it is, cut, until its supervisor gives it up: nobody may try again.
void CableDevice::fault(CableLink& link) {
  link.cut();
  std::erase(active_, &link);
  ++counters_.cut;
  faulted_.push_back(link.ends());
}

std::optional<CableEnds> CableDevice::take_faulted() {
  if (faulted_.empty()) return std::nullopt;
  const CableEnds ends = faulted_.back();
  faulted_.pop_back();
  return ends;
}

// ---- out

std::span<std::byte> CableDevice::reserve_on(CableLink& link, std::size_t bytes) {
  const auto buffer = link.writer().reserve(bytes);
  if (buffer.empty() && link.writer().faulted()) fault(link);
  return buffer;
}

std::span<std::byte> CableDevice::reserve(Route to, std::size_t bytes) {
  VERIFY(bytes > 0 && bytes <= message::max_frame_bytes);
  buffer_ = {};
  if (!to.is_uplink() || active_.empty()) {
    ++counters_.dropped_route;
    ++refused_;
    return {};
  }
  open_ = last_[bytes >= large_frame ? 1 : 0];
  if (open_ != nullptr && open_->up()) buffer_ = reserve_on(*open_, bytes);
  if (buffer_.empty()) {
    open_ = nullptr;
    buffer_ = std::span(aside_).first(bytes);
  }
  return buffer_;
}

bool CableDevice::send(CableLink& link, std::span<const std::byte> frame, u32 flags) {
  if (&link != open_) {
    const auto buffer = reserve_on(link, frame.size());
    if (buffer.empty()) {
      ++counters_.dropped_full;
      return false;
    }
    ++counters_.copied;
    std::ranges::copy(frame, buffer.begin());
  }
  link.writer().commit(frame.size(), flags);
  if (!link.touched) touched_.push_back(&link);
  link.touched = true;
  ++counters_.frames_out;
  counters_.bytes_out += frame.size();
  return true;
}

bool CableDevice::commit(std::size_t bytes, FrameFlags flags) {
  VERIFY(!buffer_.empty() && bytes > 0 && bytes <= buffer_.size());
  const auto frame = std::span<const std::byte>(buffer_).first(bytes);
  const u32 ring_flags = flags.checksum_not_computed ? message::frame_checksum_not_computed : 0;
  // With one kernel at the other end all go to it, whatever its tables say.
  const FrameFlow flow =
      steering_->kernels() == 1 ? FrameFlow{} : flow_of(frame, steering_->toeplitz());
  bool sent = true;
  if (flow.kind == FrameFlow::Kind::all) {
    // The open buffer is read by the copies: its own ring comes last.
    for (CableLink* link : std::vector(active_)) {
      if (link != open_) send(*link, frame, ring_flags);
    }
    if (open_ != nullptr && open_->up()) send(*open_, frame, ring_flags);
  } else {
    CableLink* link = nullptr;
    if (flow.kind == FrameFlow::Kind::first) {
      const auto first =
          std::ranges::find_if(links_, [](const auto& one) { return one != nullptr && one->up(); });
      if (first != links_.end()) link = first->get();
    } else {
      const auto kernel = steering_->kernel_for(flow.protocol, flow.port, flow.hash);
      if (!kernel) ++counters_.tables_wrong;
      link = kernel ? find(*kernel) : nullptr;
    }
    if (link != nullptr && link->up()) {
      last_[bytes >= large_frame ? 1 : 0] = link;
      sent = send(*link, frame, ring_flags);
    } else {
      ++counters_.dropped_route;
    }
  }
  buffer_ = {};
  open_ = nullptr;
  return sent;
}

void CableDevice::flush() {
  if (touched_.empty()) return;
  for (CableLink* link : touched_) link->writer().publish();
  message::full_fence();
  for (CableLink* link : touched_) {
    link->touched = false;
    if (link->up() && link->ring_if_armed()) ++counters_.bells_rung;
  }
  touched_.clear();
}

// ---- in

std::size_t CableDevice::poll(std::size_t budget, FrameSink& sink) {
  std::size_t taken = 0;
  std::size_t idle = 0;  // wires in a row with nothing
  while (idle < active_.size() && taken < budget) {
    if (first_ >= active_.size()) first_ = 0;
    const std::size_t got = take_burst(*active_[first_], budget - taken, sink);
    taken += got;
    idle = got == 0 ? idle + 1 : 0;
    ++first_;
  }
  return taken;
}

std::size_t CableDevice::take_burst(CableLink& link, std::size_t most, FrameSink& sink) {
  if (!link.up()) return 0;
  const Burst burst =
      hand_over(link.reader(), most, Route::uplink(), sink, [&] { return link.up(); });
  if (burst.fault) fault(link);
  counters_.frames_in += burst.frames;
  counters_.bytes_in += burst.bytes;
  return burst.frames;
}

void CableDevice::set_armed(bool armed) {
  if (armed && ++sleeps_ == 0) sleeps_ = 1;
  armed_ = armed ? sleeps_ : 0;
  for (CableLink* link : active_) link->set_armed(armed_);
  if (!armed && sleeps_ % sleeps_to_quieten == 0) quieten();
}

bool CableDevice::anything_pending() {
  return std::ranges::any_of(active_, [](CableLink* link) { return !link->reader().empty(); });
}

// A bell that were never read would be full one day, and ring no more.
void CableDevice::quieten() {
  std::array<epoll_event, max_steered_kernels> ringing;
  const int count = ::epoll_wait(bells_.get(), ringing.data(), ringing.size(), 0);
  for (int i = 0; i < count; ++i) {
    const CableLink* link =
        find(KernelId(static_cast<u16>(ringing[static_cast<std::size_t>(i)].data.u32)));
    if (link != nullptr) link->quieten();
  }
}

}  // namespace cob::net
