// The form of hellos and records, and the names of what is refused.
// See stream_format.h. Pure.
#include "message/socket/stream_format.h"

#include <cstring>

namespace cob::message {

StreamRefusal check_head(const RecordHead& head, bool greeting) {
  const u32 bytes = head.bytes;
  const auto exactly = [&](std::size_t n) {
    if (bytes != n) return StreamRefusal::bad_length;
    return head.ring == 0 && head.count == 0 ? StreamRefusal::none : StreamRefusal::bad_record;
  };
  const auto kind = static_cast<RecordKind>(head.kind);
  if (kind == RecordKind::bye) return exactly(sizeof(Bye));
  if (greeting) {
    if (kind == RecordKind::hello) return exactly(sizeof(Hello));
    if (kind != RecordKind::open) return StreamRefusal::unknown_record;
    return exactly(bytes == sizeof(Open) ? bytes : sizeof(Open) + sizeof(LinkHeader));
  }
  switch (kind) {
    case RecordKind::lines:
      if (bytes < run_head_bytes || bytes > max_body_bytes) return StreamRefusal::bad_length;
      return head.ring <= static_cast<u8>(RingName::urgent) && head.count > 0
                 ? StreamRefusal::none
                 : StreamRefusal::bad_record;
    case RecordKind::credits:
      if (head.count > max_loans || head.ring != 0) return StreamRefusal::bad_record;
      return bytes == sizeof(Credits) + head.count * sizeof(u32) ? StreamRefusal::none
                                                                 : StreamRefusal::bad_length;
    case RecordKind::bulk:
      if (bytes <= sizeof(Piece) || bytes > sizeof(Piece) + max_piece_bytes)
        return StreamRefusal::bad_length;
      return exactly(bytes);
    case RecordKind::heartbeat:
      return exactly(0);
    default:
      return StreamRefusal::unknown_record;
  }
}

StreamRefusal check_hello(const Hello& hello, const CobId& cob, KernelId self) {
  if (hello.magic != stream_magic) return StreamRefusal::wrong_magic;
  if (hello.version != stream_version) return StreamRefusal::wrong_version;
  if (hello.cob != cob) return StreamRefusal::wrong_cob;
  if (hello.to != self.value || hello.from == self.value || hello.from_epoch == 0)
    return StreamRefusal::wrong_kernel;
  return StreamRefusal::none;
}

bool take_run(std::span<const std::byte>& body, u32 index, Run& run) {
  if (body.size() < run_head_bytes) return false;
  std::memcpy(static_cast<void*>(&run.head), body.data(), run_head_bytes);
  const std::size_t length = run.head.length;
  if (run.head.sequence != index + 1 || length > max_payload_bytes ||
      run.head.kind > last_message_kind || length > body.size() - run_head_bytes)
    return false;
  run.payload = body.subspan(run_head_bytes, length);
  run.lines = lines_for(length);
  body = body.subspan(run_head_bytes + length);
  return true;
}

}  // namespace cob::message
