// Which flow a frame belongs to, as its receiving cob steers: the hash and the port, or who else
// shall have it. RFC 791, 792, 826, 768, 9293, 8200, 4443, 4861.
// Model: a look at headers without judgement; whatever is no flow goes to the cob's first kernel.
// Values; any thread.
#pragma once

#include <span>

#include "net/snap_bean/steering.h"

namespace cob::net {

struct FrameFlow {
  enum class Kind : u8 {
    flow,   // TCP, UDP, and ICMP errors about them: by the tables
    first,  // one kernel shall have it: ARP requests, echoes, fragments, anything unknown
    all,    // each kernel: answers to address resolution, for whichever asked
  };
  Kind kind = Kind::first;
  SteeredProtocol protocol = SteeredProtocol::tcp;
  Port port{};   // the cob's own, by which its tables are chosen
  u32 hash = 0;  // of the flow in the direction towards the cob
};

// `frame`: Ethernet II, on its way to the cob whose key `toeplitz` has.
FrameFlow flow_of(std::span<const std::byte> frame, const Toeplitz& toeplitz);

}  // namespace cob::net
