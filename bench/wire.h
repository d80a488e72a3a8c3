// Two network namespaces joined as two machines by a wire: a veth without offloads, MTU 1500, so
// that every frame is whole and has its checksums. As on loopback Linux runs an end's receive path
// on the sender's core.
// Used by the measuring command's only thread. veth(4), ethtool(8).
#pragma once

#include <memory>

#include "bench/child.h"
#include "bench/network.h"

namespace cob::bench {

class Wire {
 public:
  static constexpr const char* client_address = "10.99.3.1";
  static constexpr const char* server_address = "10.99.3.2";
  static constexpr const char* server_device = "server0";

  // The server's end has its address, or leaves it to a cob. Takes root and iproute2.
  static Outcome<Wire> make(bool address_the_server, Interrupts& interrupts);
  const OwnNetwork* client() const { return client_.get(); }
  const OwnNetwork* server() const { return server_.get(); }

 private:
  Wire(OwnNetwork client, OwnNetwork server)
      : client_(std::make_unique<OwnNetwork>(std::move(client))),
        server_(std::make_unique<OwnNetwork>(std::move(server))) {}
  std::unique_ptr<OwnNetwork> client_, server_;
};

}  // namespace cob::bench
