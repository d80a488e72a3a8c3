// Reading and writing greetings. See stream_greeting.h.
// Model: exact reads. The kernel's loop.
#include "message/socket/stream_greeting.h"

#include <cstring>

namespace cob::message {

StreamGreeting::Got StreamGreeting::read(ByteStream& stream) {
  if (refusal_ != StreamRefusal::none) return Got::refused;
  if (whole_) {
    whole_ = false;
    done_ = 0;
  }
  std::size_t wanted = sizeof(RecordHead);
  while (true) {
    done_ += stream.read(std::span(bytes_).subspan(done_, wanted - done_));
    if (done_ < wanted) return Got::nothing;
    if (wanted > sizeof(RecordHead) || head().bytes == 0) break;
    refusal_ = check_head(head(), true);
    if (refusal_ != StreamRefusal::none) return Got::refused;
    wanted += head().bytes;
  }
  whole_ = true;
  return Got::record;
}

bool say(ByteStream& stream, RecordKind kind, std::span<const std::byte> body,
         std::span<const std::byte> more) {
  std::array<std::byte, sizeof(RecordHead) + sizeof(Open) + sizeof(LinkHeader)> bytes;
  const RecordHead head{.kind = static_cast<u8>(kind),
                        .ring = 0,
                        .count = 0,
                        .bytes = static_cast<u32>(body.size() + more.size())};
  std::memcpy(bytes.data(), &head, sizeof head);
  std::memcpy(bytes.data() + sizeof head, body.data(), body.size());
  if (!more.empty())
    std::memcpy(bytes.data() + sizeof head + body.size(), more.data(), more.size());
  const std::size_t all = sizeof head + body.size() + more.size();
  const bool taken = stream.write(std::span(bytes).first(all)) == all;
  stream.flush();
  return taken;
}

void say_bye(ByteStream& stream, int error, StreamRefusal refusal) {
  const Bye bye{.error = static_cast<u32>(error), .refusal = static_cast<u32>(refusal)};
  (void)say(stream, RecordKind::bye, bytes_of(bye));
}

}  // namespace cob::message
