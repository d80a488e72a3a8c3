// SimulatedWire: ports that hear each other in memory, each a Device: inside routes by port number,
// and one shared uplink.
// Model: commit() queues, flush() delivers to the receivers' queues, poll() hands out in order;
// nothing is lost or delayed (that is FaultDevice's). A queue holds queue_frames; full: reserve()
// gives nothing.
// Owned by the simulation or test; one thread.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "net/snap_bean/device.h"

namespace cob::sim {

struct WireOptions {
  std::size_t inside_frame_bytes = 65'535 + 14;
  std::size_t uplink_frame_bytes = 1'514;
  bool inside_skips_checksums = true;
  std::size_t queue_frames = 4'096;
};

class SimulatedWire {
 public:
  SimulatedWire(std::size_t ports, const WireOptions& options);
  ~SimulatedWire();

  // The device of kernel `port`.
  net::Device& port(std::size_t port);

 private:
  class Port;
  struct Frame {
    std::vector<std::byte> bytes;
    net::Route route;  // as sender: to; as receiver: from
    net::FrameFlags flags;
  };

  WireOptions options_;
  std::vector<std::unique_ptr<Port>> ports_;
};

}  // namespace cob::sim
