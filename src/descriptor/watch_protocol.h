// Watch, Watched and Ready (types 62, 68, 63): when a description can be read or written.
// docs/descriptors.md, 1 and 8.
// Model: no request waits for an event of the world: the answer is what is ready now, and if that
// is nothing, Ready follows once when something is. Bits are poll(2)'s. Values; flat structs.
#pragma once

#include "descriptor/protocol.h"

namespace cob::descriptor {

// POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLRDHUP.
inline constexpr u32 watch_bits = 0x001 | 0x002 | 0x004 | 0x008 | 0x010 | 0x2000;

// ENOENT: the asker does not hold it. ENOBUFS: too much is watched; EPROTO.
struct Watch {
  static constexpr message::MessageType type{62};
  HandleField handle;
  message::le<u32> events;
};
struct Watched {
  static constexpr message::MessageType type{68};
  message::le<u32> events;  // of those asked for, and errors and hang-ups; 0: Ready follows
};
// Home to holder, one-way.
struct Ready {
  static constexpr message::MessageType type{63};
  HandleField handle;
  message::le<u32> events;  // 0: it cannot be told; ask again
};

static_assert(message::FlatMessage<Watch> && message::FlatMessage<Watched> &&
              message::FlatMessage<Ready>);

}  // namespace cob::descriptor
