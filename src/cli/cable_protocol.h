// What the supervisors of two cobs tell each other over the cable's socket (SOCK_SEQPACKET,
// unix(7)): one flat struct a datagram, descriptors beside it. Model: both say hello first, then
// which of their kernels live; the maker, one of the two, makes the bell of each pair of kernels,
// and each kernel's memory goes the way that its frames go. Neither believes the other anything.
// Values.
#pragma once

#include "message/flat.h"

namespace cob::cli {

enum class CableKind : u32 {
  hello = 1,    // first: CableHello. + {steering tables, to read}
  kernel_up,    // CableKernel: it lives
  kernel_down,  // CableKernel: that life of it is over
  bell,         // maker -> other: CableWire. + {the other's end of the bell}
  memory,       // CableWire. + {what `from` writes for `to`}
};

struct CableHello {
  static constexpr u32 magic_value = 0x68636f63;  // "coch"
  static constexpr u32 protocol_version = 1;

  message::le<CableKind> kind;
  message::le<u32> magic;
  message::le<u32> version;
  message::le<u32> address;  // of the cob, and its network
  message::le<u32> prefix_bits;
  message::le<u16> kernels;
  message::le<u16> reserved;
  std::array<char, 32> name;  // of the cob; for people
};
static_assert(sizeof(CableHello) == 56);

struct CableKernel {
  message::le<CableKind> kind;
  message::le<u32> kernel;
  message::le<u32> epoch;
};

// `from` is of the sender's cob, `to` of the receiver's.
struct CableWire {
  message::le<CableKind> kind;
  message::le<u16> from, to;
  message::le<u32> from_epoch, to_epoch;
};

}  // namespace cob::cli
