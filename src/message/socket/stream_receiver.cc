// Records into memory.
// A piece of bulk is read to where it belongs, all else through one buffer. See stream_receiver.h.
// The kernel's loop.
#include "message/socket/stream_receiver.h"

#include <algorithm>
#include <cstring>

namespace cob::message {

StreamReceiver::StreamReceiver(LinkMemory* in, u64 bulk_bytes, const LinkMemory* out)
    : in_(in),
      bulk_bytes_(bulk_bytes),
      normal_(in->slot, &out->state.normal_consumed),
      urgent_(in->urgent, &out->state.urgent_consumed),
      buffer_(new std::byte[buffer_bytes]) {}

std::size_t StreamReceiver::pump(ByteStream& stream, StreamSender& sender, std::size_t budget) {
  std::size_t got = 0;
  unfinished_ = false;
  while (true) {
    if (got >= budget) {
      unfinished_ = true;
      return got;
    }
    if (!piece_.empty()) {  // then the buffer is empty
      const std::size_t asked = piece_.size();
      const std::size_t n = stream.read(piece_);
      fill_piece(n);
      got += n;
      if (n < asked) return got;
      continue;
    }
    const std::span<std::byte> room(buffer_.get() + end_, buffer_bytes - end_);
    const std::size_t n = stream.read(room);
    end_ += n;
    got += n;
    if (n > 0 && !apply(sender)) return got;
    if (n < room.size()) return got;
  }
}

bool StreamReceiver::apply(StreamSender& sender) {
  while (end_ - begin_ >= sizeof(RecordHead)) {
    const std::span<const std::byte> all(buffer_.get() + begin_, end_ - begin_);
    const auto head = read_as<RecordHead>(all);
    refusal_ = check_head(head, false);
    if (refusal_ != StreamRefusal::none) return false;
    const auto rest = all.subspan(sizeof head);
    const bool bulk = head.kind == static_cast<u8>(RecordKind::bulk);
    const std::size_t body_bytes = bulk ? sizeof(Piece) : std::size_t{head.bytes};
    if (rest.size() < body_bytes) break;
    begin_ += sizeof head + body_bytes;
    const auto body = rest.first(body_bytes);
    refusal_ =
        bulk ? begin_piece(body, head.bytes - sizeof(Piece)) : apply_record(head, body, sender);
    if (refusal_ != StreamRefusal::none || bye_) return false;
    if (piece_.empty()) continue;
    const std::size_t n = std::min(piece_.size(), end_ - begin_);
    std::memcpy(piece_.data(), buffer_.get() + begin_, n);
    fill_piece(n);
    begin_ += n;
  }
  // A record's beginning moves to the front, so that it always finds room.
  std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  return true;
}

StreamRefusal StreamReceiver::apply_record(const RecordHead& head, std::span<const std::byte> body,
                                           StreamSender& sender) {
  switch (static_cast<RecordKind>(head.kind)) {
    case RecordKind::lines:
      return head.ring == static_cast<u8>(RingName::urgent)
                 ? apply_lines(urgent_, received_.urgent, head.count, body)
                 : apply_lines(normal_, received_.normal, head.count, body);
    case RecordKind::credits:
      return apply_credits(body, sender);
    case RecordKind::bye:
      bye_ = true;
      return StreamRefusal::none;
    default:
      return StreamRefusal::none;  // a heartbeat: check_head() lets no other through
  }
}

template <u32 slots>
StreamRefusal StreamReceiver::apply_lines(RingWriter<slots>& ring, le<u32>& next, u16 count,
                                          std::span<const std::byte> body) {
  Run run;
  for (u32 i = 0; i < count; ++i) {
    if (!take_run(body, next, run)) return StreamRefusal::bad_record;
    if (ring.room(run.lines, slots) != Room::yes) return StreamRefusal::bad_record;
    ring.write({.kind = static_cast<MessageKind>(run.head.kind),
                .flags = run.head.flags,
                .type = MessageType(run.head.type),
                .tag = run.head.tag,
                .detail = run.head.detail},
               run.payload);
    next = next + run.lines;
  }
  ring.publish();
  return body.empty() ? StreamRefusal::none : StreamRefusal::bad_length;
}

StreamRefusal StreamReceiver::apply_credits(std::span<const std::byte> body, StreamSender& sender) {
  const auto credits = read_as<Credits>(body);
  const auto ids = body.subspan(sizeof credits);
  const auto count = static_cast<u32>(ids.size() / sizeof(u32));
  if (credits.returns - received_.returns != count || !sender.credited(credits))
    return StreamRefusal::bad_record;
  for (u32 i = 0; i < count; ++i) {
    const auto id = read_as<le<u32>>(ids.subspan(i * sizeof(u32)));
    if (id >= max_loans) return StreamRefusal::bad_record;
    store_relaxed(in_->returned[(received_.returns + i) % max_loans], id);
  }
  received_.returns = credits.returns;
  LinkState& state = in_->state;
  store_release(state.normal_consumed, credits.normal);
  store_release(state.urgent_consumed, credits.urgent);
  store_release(state.loans_returned, credits.returns);
  return StreamRefusal::none;
}

StreamRefusal StreamReceiver::begin_piece(std::span<const std::byte> body, std::size_t bytes) {
  const u64 offset = read_as<Piece>(body).offset;
  if (offset > bulk_bytes_ || bytes > bulk_bytes_ - offset) return StreamRefusal::bad_record;
  piece_ = {in_->bulk() + offset, bytes};
  return StreamRefusal::none;
}

}  // namespace cob::message
