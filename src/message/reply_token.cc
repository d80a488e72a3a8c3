// Spending reply tokens.
// See reply_token.h. The kernel's loop.
#include "message/reply_token.h"

#include "message/messenger.h"

namespace cob::message {

AnyReplyToken::AnyReplyToken(Messenger& messenger, const Link& link, const Slot& head,
                             Priority priority)
    : messenger_(&messenger),
      generation_(link.generation),
      tag_(head.tag),
      peer_(link.peer),
      reply_lines_(head.detail),
      priority_(priority) {}

bool AnyReplyToken::cancelled() const {
  VERIFY(valid());
  const Link& link = *messenger_->links().find(KernelId(peer_));
  return !link.connected || link.generation != generation_ || Messenger::is_cancelled(link, tag_);
}

void AnyReplyToken::fail(int code) {
  VERIFY(valid() && code > 0);
  (void)messenger_->write_reply(
      *this, {.kind = MessageKind::error, .detail = static_cast<u16>(code)}, {}, {});
  messenger_ = nullptr;
}

Result<void> AnyReplyToken::answer_bytes(MessageType type, std::span<const std::byte> bytes,
                                         const With& with) {
  VERIFY(valid());
  TRY(messenger_->write_reply(*this, {.kind = MessageKind::reply, .type = type}, bytes, with));
  messenger_ = nullptr;
  return {};
}

}  // namespace cob::message
