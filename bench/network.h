// A network namespace of the measurement's own, in which a cob's TAP device and Linux's end of it
// live: nothing of the machine's network is touched. It lives as long as this object and what was
// started in it. Making one takes CAP_SYS_ADMIN.
// Used by the measuring command's only thread. network_namespaces(7).
#pragma once

#include <string>

#include "base/fd.h"
#include "bench/samples.h"

namespace cob::bench {

class OwnNetwork {
 public:
  // With loopback up, and ports in TIME_WAIT that may be used again at once, as loopback's may.
  static Outcome<OwnNetwork> make();
  // Into it, for the calling process and what it starts. False: errno says why.
  bool enter() const;
  // Its name for ip(8), while this process lives.
  std::string path() const;

 private:
  OwnNetwork() = default;
  Fd network_;
};

}  // namespace cob::bench
