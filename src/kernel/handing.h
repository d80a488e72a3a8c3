// What `cob run` asks a kernel of its own island for, on a socket as viewers have (view.h): that
// its descriptors become descriptions which the kernel of the program holds.
// docs/descriptors.md, 5. Model: one request, its descriptors beside it, and one answer, when the
// other kernel holds them all or it is known that it does not. Flat structs in the host's byte
// order. Values.
#pragma once

#include "kernel/view.h"

namespace cob::kernel {

inline constexpr u32 most_handed = 64;  // a request; more are several

struct HandRequest {
  u32 version = view_version;
  u32 kind = static_cast<u32>(ViewKind::hand);
  u32 to = 0;       // the kernel of the program
  u32 program = 0;  // its process
  u32 count = 0;
  u32 reserved = 0;
  struct One {
    u64 name = 0;  // the program's placeholder will have it: call::token_mark and what is random
    u64 held = 0;  // 0: the next descriptor beside the request; else by that token it is known here
  };
  One one[most_handed] = {};
};

struct HandReply {
  u32 version = view_version;
  u32 kind = static_cast<u32>(ViewKind::hand);
  i32 error = 0;  // an errno: the other kernel has none of them
  u32 which = 0;  // it was for that one; most_handed: for none of them alone
};

}  // namespace cob::kernel
