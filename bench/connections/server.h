// The server of `cob bench connections`: worker threads with an epoll set each, accept4, plain
// sockets; the same on Linux and on a cob. How connections reach the workers is its mode.
// The main thread owns listeners and workers and waits for SIGTERM. epoll(7), accept4(2).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/types.h"
#include "bench/connections/affinity.h"
#include "bench/connections/hermes.h"
#include "bench/samples.h"

namespace cob::bench {

enum class Mode {
  shared,     // one listener in every worker's epoll set, EPOLLEXCLUSIVE
  reuseport,  // a listener a worker, SO_REUSEPORT, the kernel's hash
  affinity,   // the same, by the receiving core, with stealing (affinity.h)
  hermes,     // the same, by an eBPF program fed by the workers (hermes.h)
};
std::optional<Mode> mode_named(const std::string& name);

struct ServerOptions {
  std::string address = {};
  u16 port = 0;
  Mode mode = Mode::shared;
  int workers = 1;
  std::vector<int> cores =
      {};  // worker i is pinned to cores[i % size]; empty: wherever it was started
  int backlog = 4'096;
  // Affinity: by the flow group of the client's address and port, as a network card chooses the
  // core, instead of by the receiving core; and how long its queue may be (0: the backlog).
  bool by_flow_group = false;
  u32 affinity_queue = 0;
};

// The sockets that a server's workers accept from, and what steers to them.
struct Listeners {
  std::vector<Fd> sockets;  // one, or one a worker
  std::optional<Affinity> affinity;
  std::optional<Hermes> hermes;
};
Outcome<Listeners> open_listeners(const ServerOptions& options);

// Serves until SIGTERM or SIGINT; by SIGUSR1 the first worker stops where it is, by the next it
// goes on. Prints "ready" when it can be reached and at the end a line
// "worker N accepted A stolen S refused R" a worker. 0; 1: cannot listen, or the mode is
// not to be had here: the reason goes to stderr.
int serve(const ServerOptions& options);

}  // namespace cob::bench
