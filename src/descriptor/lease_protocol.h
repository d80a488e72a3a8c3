// The messages of file leases (types 64 and 65). docs/descriptors.md, 3 and 8.
// Model: a lease is told in ReadReply and fs::Opened by its number, which the home never uses again
// while the session lasts. Values; flat structs, checked by message/flat.h.
#pragma once

#include "message/flat.h"

namespace cob::descriptor {

// Home to lessee: what is cached under `lease` is used no more once this is answered. A lessee that
// has it no more answers likewise.
struct Invalidate {
  static constexpr message::MessageType type{64};
  message::le<u64> lease;
};
struct Invalidated {
  static constexpr message::MessageType type{65};
  message::le<u32> reserved;
};

static_assert(message::FlatMessage<Invalidate> && message::FlatMessage<Invalidated>);

}  // namespace cob::descriptor
