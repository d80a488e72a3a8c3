// One worker of the server: an epoll set, the connections that it accepted, and nothing shared but
// the listeners' balancing. Connections are edge-triggered and registered only when their first
// read or write would block. Owned by the main thread; run() is the worker's own thread. epoll(7).
#pragma once

#include <atomic>
#include <cstddef>
#include <vector>

#include "base/fd.h"
#include "base/types.h"
#include "bench/connections/exchange.h"
#include "bench/connections/server.h"

namespace cob::bench {

class Worker {
 public:
  struct Counts {
    u64 accepted = 0;
    u64 stolen = 0;   // of those, from another worker's listener
    u64 refused = 0;  // closed at once: no descriptors left, or they broke the protocol
  };
  Worker(std::size_t number, const ServerOptions& options, Listeners& listeners);
  void run();
  // From another thread: run() returns soon.
  void stop();
  // REQUIRES: run() has returned.
  const Counts& counts() const { return counts_; }

 private:
  // One, by its descriptor's number.
  struct Connection {
    bool open = false;
    bool registered = false;  // in the epoll set
    bool closing = false;     // closed by us behind the response
    u32 have = 0;             // bytes of the request that are there
    u32 offset = 0;
    u64 sent = 0;
    u64 size = 0;  // of the response that is being sent; 0: none
    std::byte request[sizeof(Request)] = {};
  };
  enum class Step { waits, goes_on, over };

  bool watch(int fd, u32 events);
  void accept_some();
  int take(int listener);
  void opened(int fd);
  void serve(int fd);
  Step receive(int fd, Connection& connection);
  Step send(int fd, Connection& connection);
  void close(int fd);
  int own_listener() const;

  std::size_t number_;
  const ServerOptions& options_;
  Listeners& listeners_;
  Pattern pattern_;
  Fd set_, bell_;
  Fd reserve_;  // given up when descriptors run out, to close a connection that waits
  std::vector<Connection> connections_;
  i64 held_ = 0;
  u32 own_in_a_row_ = 0;
  std::atomic<bool> stop_{false};
  Counts counts_;
};

}  // namespace cob::bench
