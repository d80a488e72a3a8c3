// See channel.h. write(2), read(2); a virtio port reads 0 while nobody is at its other end.
#include "island/channel.h"

#include <unistd.h>

#include <cerrno>

namespace cob::island {

void Channel::send(FrameKind kind, u32 stream, std::span<const std::byte> body) {
  const FrameHead head{
      .bytes = static_cast<u32>(body.size()), .kind = kind, .reserved = 0, .stream = stream};
  const auto bytes = std::as_bytes(std::span(&head, 1));
  out_.insert(out_.end(), bytes.begin(), bytes.end());
  out_.insert(out_.end(), body.begin(), body.end());
}

Result<void> Channel::flush() {
  while (has_unsent()) {
    const ssize_t wrote = ::write(stream_.get(), out_.data() + sent_, out_.size() - sent_);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0 && errno == EAGAIN) break;
    if (wrote <= 0) return Error::from_errno("the channel");
    sent_ += static_cast<std::size_t>(wrote);
  }
  if (!has_unsent()) {
    out_.clear();
    sent_ = 0;
  } else if (sent_ > busy_bytes) {
    out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(sent_));
    sent_ = 0;
  }
  if (out_.size() - sent_ > 2 * busy_bytes)
    return Error::of(ENOBUFS, "the channel's other end does not read");
  return {};
}

Result<void> Channel::receive(const OnFrame& on_frame) {
  std::byte buffer[64 * 1'024];
  for (int budget = 16; budget > 0; --budget) {
    const ssize_t got = ::read(stream_.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) break;
    if (got <= 0) return Error::of(ECONNRESET, "the channel's other end is gone");
    in_.insert(in_.end(), buffer, buffer + got);
  }
  std::size_t at = 0;
  while (in_.size() - at >= sizeof(FrameHead)) {
    FrameHead head;
    std::memcpy(&head, in_.data() + at, sizeof head);
    if (head.bytes > max_frame_bytes) return Error::of(EPROTO, "a frame too long");
    if (in_.size() - at - sizeof head < head.bytes) break;
    const auto body = std::span<const std::byte>(in_).subspan(at + sizeof head, head.bytes);
    TRY(on_frame(head, body));
    at += sizeof head + head.bytes;
  }
  in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(at));
  return {};
}

}  // namespace cob::island
