// What arrives with a message, what may be sent with one, and the duty to answer a request.
// Model: values; a token is answered once, a Buffer leaves its owner only if the send succeeds.
// Owned by the kernel's loop.
#pragma once

#include "message/flat.h"
#include "message/loan.h"
#include "message/message_ring.h"

namespace cob::message {

class Messenger;
struct Link;

// `static constexpr bool may_lend = true;` in a message type: a buffer may come with it.
template <typename T>
inline constexpr bool lends = requires { requires T::may_lend; };

// What came beside the message itself.
struct Incoming {
  KernelId from{0};
  std::span<const std::byte> tail;  // valid during the call
  Loan loan;                        // move it out to keep it
};

// What to send beside the message itself.
struct With {
  std::span<const std::byte> tail = {};
  Buffer* lend = nullptr;  // emptied if the send succeeds
};

// The right and the duty to answer one request, once. Unanswered at its end it answers ECANCELED.
// Must not outlive the Messenger. After the requester's death answering does nothing.
class AnyReplyToken {
 public:
  AnyReplyToken() = default;
  AnyReplyToken(AnyReplyToken&& other) noexcept { take(other); }
  AnyReplyToken& operator=(AnyReplyToken&& other) noexcept {
    if (this == &other) return *this;
    if (valid()) fail(ECANCELED);
    take(other);
    return *this;
  }
  AnyReplyToken(const AnyReplyToken&) = delete;
  AnyReplyToken& operator=(const AnyReplyToken&) = delete;
  ~AnyReplyToken() {
    if (valid()) fail(ECANCELED);
  }

  bool valid() const { return messenger_ != nullptr; }
  KernelId requester() const { return KernelId(peer_); }
  // The requester waits no longer (it cancelled, or has ended): an answer is wasted. A hint.
  // REQUIRES: valid().
  bool cancelled() const;
  // Answers with an error; `code` is a Linux errno. REQUIRES: valid().
  void fail(int code);

 protected:
  friend class Messenger;
  AnyReplyToken(Messenger& messenger, const Link& link, const Slot& head, Priority priority);
  void take(AnyReplyToken& other) {
    messenger_ = std::exchange(other.messenger_, nullptr);
    generation_ = other.generation_;
    tag_ = other.tag_;
    peer_ = other.peer_;
    reply_lines_ = other.reply_lines_;
    priority_ = other.priority_;
  }
  Result<void> answer_bytes(MessageType type, std::span<const std::byte> bytes, const With& with);

  Messenger* messenger_ = nullptr;
  u32 generation_ = 0;
  u32 tag_ = 0;
  u16 peer_ = 0;
  u16 reply_lines_ = 0;  // that the requester has reserved
  Priority priority_ = Priority::normal;
};

template <FlatMessage Reply>
class ReplyToken : public AnyReplyToken {
 public:
  ReplyToken() = default;
  explicit ReplyToken(AnyReplyToken&& token) : AnyReplyToken(std::move(token)) {}
  // REQUIRES: valid(). The token is spent.
  void answer(const Reply& reply) { (void)answer(reply, {}); }
  // EMSGSIZE: the tail is longer than the type's or than the requester's; EAGAIN: too much is lent.
  // The token is then still valid. REQUIRES: valid(); a buffer only if Reply::may_lend.
  Result<void> answer(const Reply& reply, const With& with) {
    if (with.tail.size() > max_tail_of<Reply>)
      return Error::of(EMSGSIZE, "tail is longer than its type allows");
    VERIFY(with.lend == nullptr || lends<Reply>);
    return answer_bytes(Reply::type, std::as_bytes(std::span<const Reply, 1>(&reply, 1)), with);
  }
};

// A message as it was received; a private copy, valid during the call.
struct Arrival {
  std::span<const std::byte> bytes;  // of the struct, as long as its sender knows it
  Incoming incoming;
  AnyReplyToken token;
};

// The struct, in place or in `room` if its sender knows less of it.
template <FlatMessage M>
const M& as_message(const Arrival& arrival, M& room) {
  if (arrival.bytes.size() >= sizeof(M)) [[likely]]
    return *std::launder(reinterpret_cast<const M*>(arrival.bytes.data()));
  read_message(arrival.bytes, room);
  return room;
}

}  // namespace cob::message
