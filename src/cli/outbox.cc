// Sending what fits and keeping the rest; see outbox.h. unix(7). One thread.
#include "cli/outbox.h"

#include <algorithm>
#include <iterator>

#include "base/passing.h"

namespace cob::cli {

Result<void> Outbox::send(FdRef socket, std::vector<std::byte> bytes, std::vector<Fd> descriptors) {
  if (queue_.size() >= max_queued_) return Error::of(ENOBUFS, "the other end does not read");
  queue_.push_back({std::move(bytes), std::move(descriptors)});
  flush(socket);
  return {};
}

void Outbox::flush(FdRef socket) {
  while (!queue_.empty()) {
    std::vector<FdRef> descriptors;
    std::ranges::transform(queue_.front().descriptors, std::back_inserter(descriptors), &Fd::ref);
    const auto sent = send_datagram(socket, queue_.front().bytes, descriptors, Blocking::never);
    if (sent.is_error() && (sent.error().code == EAGAIN || sent.error().code == ETOOMANYREFS))
      return;
    // Any other error means that the other end is going, and the message with it.
    queue_.pop_front();
  }
}

}  // namespace cob::cli
