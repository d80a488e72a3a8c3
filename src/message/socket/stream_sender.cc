// Cursors, staging, and what goes first.
// A staged batch is at most one TLS record; a piece of bulk is written from where it lies. See
// stream_sender.h. The kernel's loop.
#include "message/socket/stream_sender.h"

#include <algorithm>
#include <cstring>

namespace cob::message {

namespace {
// Bytes of bulk received that are acknowledged though nothing else is to be said.
constexpr u64 acknowledge_every = u64{1} << 20;
}  // namespace

StreamSender::StreamSender(const LinkMemory* out, const std::byte* bulk)
    : out_(out), bulk_(bulk), normal_{.lines = out->slot}, urgent_{.lines = out->urgent} {}

template <u32 slots>
u32 StreamSender::Cursor<slots>::written() const {
  u32 index = next;
  while (written_at(index)) index += lines_for(lines[index % slots].length);
  return index;
}

template <u32 slots>
bool StreamSender::Cursor<slots>::resume(u32 received) {
  if (received - credited > next - credited) return false;
  next = received;
  return true;
}

template <u32 slots>
bool StreamSender::Cursor<slots>::credit(u32 consumed) {
  if (consumed - credited > next - credited) return false;
  credited = consumed;
  return true;
}

bool StreamSender::resume(const Received& received) {
  staged_ = at_ = 0;
  piece_ = {};
  if (!normal_.resume(received.normal) || !urgent_.resume(received.urgent)) return false;
  const u32 returns = out_->state.loans_returned;
  if (returns - received.returns > max_loans) return false;
  if (received.bulk < bulk_acknowledged_ || received.bulk > bulk_sent_) return false;
  bulk_sent_ = received.bulk;
  next_lend_ = 0;
  while (bulk_waits() && lends_[next_lend_].start + lends_[next_lend_].bytes <= bulk_sent_)
    ++next_lend_;
  // Said anew, as the last words may have been lost.
  returns_said_ = received.returns;
  normal_said_ = out_->state.normal_consumed - 1;
  return true;
}

bool StreamSender::credited(const Credits& credits) {
  if (!normal_.credit(credits.normal) || !urgent_.credit(credits.urgent)) return false;
  if (credits.bulk < bulk_acknowledged_ || credits.bulk > bulk_sent_) return false;
  bulk_acknowledged_ = credits.bulk;
  while (next_lend_ > 0 && lends_.front().start + lends_.front().bytes <= bulk_acknowledged_) {
    lends_.pop_front();
    --next_lend_;
  }
  return true;
}

bool StreamSender::lend(u64 offset, u64 bytes) {
  if (bytes == 0) return true;
  if (lends_.size() == max_lends) return false;
  lends_.push_back({.offset = offset,
                    .bytes = bytes,
                    .start = lent_,
                    .normal = normal_.written(),
                    .urgent = urgent_.written()});
  lent_ += bytes;
  return true;
}

bool StreamSender::pump(ByteStream& stream, u64 bulk_received, std::size_t budget) {
  std::size_t sent = 0;
  unfinished_ = false;
  while (true) {
    if (at_ < staged_) {
      const std::size_t n = stream.write(std::span(staging_).subspan(at_, staged_ - at_));
      at_ += n;
      sent += n;
      if (at_ < staged_) break;
    }
    if (!piece_.empty()) {
      const std::size_t n = stream.write(piece_);
      piece_ = piece_.subspan(n);
      sent += n;
      if (!piece_.empty()) break;
    }
    if (sent >= budget) {
      unfinished_ = true;
      break;
    }
    compose(bulk_received);
    if (staged_ == 0) break;
  }
  if (sent > 0) stream.flush();
  return sent > 0;
}

void StreamSender::heartbeat(ByteStream& stream) {
  at_ = staged_ = 0;
  end_record(RecordKind::heartbeat, RingName::normal, 0, 0);
  at_ = stream.write(std::span(staging_).first(staged_));
  stream.flush();
}

void StreamSender::compose(u64 bulk_received) {
  staged_ = at_ = 0;
  const Lend* before = bulk_waits() ? &lends_[next_lend_] : nullptr;
  compose_lines(RingName::urgent, urgent_, [&](const Slot& head) {
    return before == nullptr || (head.flags & flag_loan) == 0 ||
           static_cast<i32>(urgent_.next - before->urgent) < 0;
  });
  compose_credits(bulk_received);
  compose_lines(RingName::normal, normal_, [&](const Slot&) {
    return before == nullptr || static_cast<i32>(normal_.next - before->normal) < 0;
  });
  if (before != nullptr) compose_piece();
}

void StreamSender::end_record(RecordKind kind, RingName ring, u32 count, std::size_t body_bytes) {
  const RecordHead head{.kind = static_cast<u8>(kind),
                        .ring = static_cast<u8>(ring),
                        .count = static_cast<u16>(count),
                        .bytes = static_cast<u32>(body_bytes)};
  std::memcpy(begin_record(), &head, sizeof head);
  staged_ += sizeof head + body_bytes;
}

template <u32 slots, typename Allowed>
void StreamSender::compose_lines(RingName ring, Cursor<slots>& cursor, Allowed allowed) {
  if (!cursor.ready()) return;
  std::byte* const body = begin_record() + sizeof(RecordHead);
  std::byte* const end = staging_.data() + full;
  std::byte* to = body;
  u32 count = 0;
  while (cursor.ready() && allowed(cursor.head())) {
    const Slot& head = cursor.head();
    const std::size_t length = head.length;
    if (to + run_head_bytes + length > end) break;
    std::memcpy(to, &head, sizeof head);  // of one size, whatever the length: staging_ is longer
    to += run_head_bytes;
    if (length <= Slot::first_payload) [[likely]] {
      to += length;
      ++cursor.next;
      ++count;
      continue;
    }
    const u32 at = cursor.next % slots;
    const std::size_t n = std::min(length, payload_before_end<slots>(at));
    std::memcpy(to, head.payload, n);
    std::memcpy(to + n, cursor.lines, length - n);
    to += length;
    cursor.next += lines_for(length);
    ++count;
  }
  if (count > 0) end_record(RecordKind::lines, ring, count, static_cast<std::size_t>(to - body));
}

void StreamSender::compose_credits(u64 bulk_received) {
  const LinkState& state = out_->state;
  const u32 normal = state.normal_consumed;
  const u32 urgent = state.urgent_consumed;
  const u32 returns = state.loans_returned;
  if (normal == normal_said_ && urgent == urgent_said_ && returns == returns_said_ &&
      bulk_received - bulk_said_ < acknowledge_every)
    return;
  const u32 count = returns - returns_said_;
  const std::size_t bytes = sizeof(Credits) + count * sizeof(u32);
  if (staged_ + sizeof(RecordHead) + bytes > full) return;
  std::byte* to = begin_record() + sizeof(RecordHead);
  const Credits credits{
      .normal = normal, .urgent = urgent, .bulk = bulk_received, .returns = returns, .reserved = 0};
  std::memcpy(to, &credits, sizeof credits);
  to += sizeof credits;
  for (u32 i = returns_said_; i != returns; ++i) {
    std::memcpy(to, &out_->returned[i % max_loans], sizeof(u32));
    to += sizeof(u32);
  }
  end_record(RecordKind::credits, RingName::normal, count, bytes);
  normal_said_ = normal;
  urgent_said_ = urgent;
  returns_said_ = returns;
  bulk_said_ = bulk_received;
}

void StreamSender::compose_piece() {
  if (staged_ + sizeof(RecordHead) + sizeof(Piece) > full) return;
  const Lend& lend = lends_[next_lend_];
  const u64 done = bulk_sent_ - lend.start;
  const std::size_t bytes = std::min<u64>(lend.bytes - done, max_piece_bytes);
  const Piece piece{.offset = lend.offset + done};
  std::memcpy(begin_record() + sizeof(RecordHead), &piece, sizeof piece);
  end_record(RecordKind::bulk, RingName::normal, 0, sizeof piece + bytes);
  staged_ -= bytes;  // which follow from where they lie
  piece_ = {bulk_ + lend.offset + done, bytes};
  bulk_sent_ += bytes;
  if (done + bytes == lend.bytes) ++next_lend_;
}

}  // namespace cob::message
