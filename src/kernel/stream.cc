// Sockets, streams without an arena: a connection's bytes as its relays take and give them
// (relay.h). Model: the kernel has the seat, so received bytes lie in Description::kept; bytes to
// be sent queue as pieces of the kernel's own chunks. Kernel's loop only.
#include <algorithm>
#include <cstring>

#include "kernel/sockets.h"

namespace cob::kernel {

std::size_t Sockets::send_room(const Description& d, std::size_t limit) const {
  if (d.tcb == net::no_tcb || d.state != call::SocketState::connected ||
      (d.flags & call::flag_send_closed) != 0)
    return 0;
  const u64 most = std::min<u64>(limit, d.send_limit);
  return static_cast<std::size_t>(most - std::min<u64>(most, d.send_buffered));
}

void Sockets::append_send(Description& d, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  auto& pieces = send_queue(d).pieces;
  std::size_t done = 0;
  while (done < bytes.size()) {
    const bool fits = !pieces.empty() && pieces.back().arena == nullptr &&
                      (pieces.back().chunk & SmallCopies::tag) == 0 &&
                      pieces.back().end < own_chunk_bytes;
    if (!fits) pieces.push_back({.chunk = own_chunks_.take()});
    SendPiece& tail = pieces.back();
    const std::size_t part = std::min(bytes.size() - done, own_chunk_bytes - tail.end);
    std::memcpy(own_chunks_.at(tail.chunk) + tail.end, bytes.data() + done, part);
    tail.end = static_cast<u16>(tail.end + part);
    done += part;
  }
  d.send_buffered += done;
  counters_.bytes_out += done;
  stack_->send_available(d.tcb, done);
}

void Sockets::finish_send(Description& d) {
  if (d.tcb == net::no_tcb || (d.flags & call::flag_send_closed) != 0) return;
  d.flags |= call::flag_send_closed;
  stack_->shutdown_send(d.tcb);
  write_flags(d);
}

void Sockets::take_kept(Description& d, std::size_t bytes) {
  d.kept.drop(bytes);
  if (d.urgent) leave_bytes_before_mark(d, bytes);
  if (d.tcb != net::no_tcb) stack_->receive_consumed(d.tcb, bytes);
}

void Sockets::put_back_kept(Description& d, std::span<const std::byte> bytes) {
  d.kept.put_front(bytes);
  if (d.urgent) d.shared.make().mark.ahead += bytes.size();
}

void Sockets::stir(Description& d) {
  if (d.shared->relays.empty() || d.shared->stirred) return;
  d.shared.make().stirred = true;
  stirred_.push_back(d.handle);
}

std::vector<u32> Sockets::take_stirred() { return std::exchange(stirred_, {}); }

}  // namespace cob::kernel
