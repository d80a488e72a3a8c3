// The channel between two kernels of which one gives programs to the other: words and descriptors
// in datagrams; moving.h. Kernel's loop only.
#include <cstring>

#include "base/passing.h"
#include "kernel/moving.h"

namespace cob::kernel {

Result<void> say(FdRef channel, MoveStep step, u64 bytes) {
  MoveWord word;
  word.step = static_cast<u32>(step);
  word.bytes = bytes;
  return send_struct(channel, word, {}, Blocking::never);
}

void refuse(FdRef channel, const Error& why) {
  MoveWord word;
  word.step = static_cast<u32>(MoveStep::refused);
  word.error = why.code;
  std::strncpy(word.text, why.what, sizeof word.text - 1);
  (void)send_struct(channel, word, {}, Blocking::never);
}

Result<HeardWord> hear(FdRef channel) {
  HeardWord heard;
  auto received =
      receive_datagram(channel, std::as_writable_bytes(std::span(&heard.word, 1)), Blocking::never);
  if (received.is_error()) return received.error();
  auto datagram = received.release_value();
  if (datagram.bytes == 0) return Error::of(ECONNRESET, "the other kernel has ended");
  if (datagram.bytes != sizeof heard.word || datagram.truncated)
    return Error::of(EPROTO, "the other kernel broke the protocol");
  heard.word.text[sizeof heard.word.text - 1] = '\0';
  heard.descriptors = std::move(datagram.descriptors);
  return heard;
}

}  // namespace cob::kernel
