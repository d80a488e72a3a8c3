// Find and Found (types 28, 29): who has the description that a placeholder names? Asked of all
// kernels by one whose program shows a placeholder that it does not know (SCM_RIGHTS, a program
// that goes to another kernel). docs/descriptors.md, 5. Model: the answer is how to hold it at its
// home; whoever asks holds it there before its program has it, and until then the program itself
// sees to it that somebody does. Values; flat structs.
#pragma once

#include "descriptor/pass_protocol.h"

namespace cob::kernel {

struct FindMessage {
  static constexpr message::MessageType type{28};
  message::le<u64> name;  // the placeholder's token
};
// Errors: ENOENT, it is not known here; EOPNOTSUPP, it is a socket of the cob; ESTALE, its home has
// ended.
struct FoundMessage {
  static constexpr message::MessageType type{29};
  descriptor::PassField field;
  message::le<u32> share;  // it was opened in
  message::le<u32> reserved;
};

static_assert(message::FlatMessage<FindMessage> && message::FlatMessage<FoundMessage>);

}  // namespace cob::kernel
