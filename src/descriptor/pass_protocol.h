// Pass and Passed (types 71, 72): a kernel gives another what a program will have there.
// docs/descriptors.md, 5.
// Model: descriptions go by home and handle; the receiver holds all of them at their homes before
// it answers, or none. Values; flat structs.
#pragma once

#include "descriptor/protocol.h"

namespace cob::descriptor {

inline constexpr u32 max_pass = 128;  // descriptions a message

enum PassTrait : u8 {
  pass_has_offset = 1,
  pass_appends = 2,
  pass_stream = 4,  // reads and writes may wait for events: readiness is to be asked for
};
inline constexpr u8 pass_traits = pass_has_offset | pass_appends | pass_stream;

// One in the tail. The flags of a number (close-on-exec) stay with the number, on the host.
struct PassField {
  HandleField handle;
  message::le<u64> name;          // by which the program will ask for it
  message::le<u32> status_flags;  // as fcntl(F_GETFL) tells them, fs/open_flags.h
  message::le<u16> home;
  message::le<u8> traits;
  message::le<u8> reserved;
};
static_assert(sizeof(PassField) == 24);

// Errors: ENOENT, one has ended; ESTALE, its home has; ESRCH, nobody takes them; ENOBUFS, too many
// passes at a time; EPROTO. The receiver then holds nothing of it.
struct Pass {
  static constexpr message::MessageType type{71};
  static constexpr std::size_t max_tail = max_pass * sizeof(PassField);
  message::le<u32> count;
  message::le<u32> program;  // its process on the host
};
struct Passed {
  static constexpr message::MessageType type{72};
  message::le<u32> count;
};

static_assert(message::FlatMessage<Pass> && message::FlatMessage<Passed>);

}  // namespace cob::descriptor
