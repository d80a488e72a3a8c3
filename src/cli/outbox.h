// Outbox: datagrams with descriptors that a SOCK_SEQPACKET socket does not take yet; so that a slow
// reader holds nobody.
// Model: sent in order, as soon as the socket takes them; bounded. Owned by one thread.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace cob::cli {

class Outbox {
 public:
  explicit Outbox(std::size_t max_queued) : max_queued_(max_queued) {}

  // ENOBUFS when the queue is full: the datagram is gone.
  Result<void> send(FdRef socket, std::vector<std::byte> bytes, std::vector<Fd> descriptors);
  template <typename Struct>
  Result<void> send_struct(FdRef socket, const Struct& value, std::vector<Fd> descriptors = {}) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    return send(socket, {bytes.begin(), bytes.end()}, std::move(descriptors));
  }
  // Call when the socket can be written again.
  void flush(FdRef socket);
  bool empty() const { return queue_.empty(); }
  void clear() { queue_.clear(); }

 private:
  struct Queued {
    std::vector<std::byte> bytes;
    std::vector<Fd> descriptors;
  };
  std::size_t max_queued_;
  std::deque<Queued> queue_;
};

}  // namespace cob::cli
