// Controls: what a holder asks of a description beside its bytes (types 69, 70).
// docs/descriptors.md, 8.
// Model: the home's side does it at the host's descriptor, which stays until it is done; the
// asking side is one function. Owned by the kernel's loop; ends before its Messenger and its Home.
#pragma once

#include <functional>
#include <span>

#include "descriptor/home.h"
#include "fs/host_object.h"
#include "fs/terminal.h"
#include "message/messenger.h"

namespace cob::fs {

// known().
enum class ControlKind : u32 {
  sync = 1,
  data_sync,
  allocate,  // `mode`, `offset`, `bytes`: fallocate(2)
  entries,   // the next of a directory, in the tail; `bytes`: at most so many
  flags,     // `mode`: those of fcntl(F_SETFL); value: those in force. O_APPEND changes in the turn
             // of the operations at the offset, which never rests elsewhere from then on
  terminal,  // `mode`: a request of tty_ioctl(2), terminal.h; what it reads and writes are tails
  look_at_flags,  // value: the flags in force
};
constexpr bool known(ControlKind kind) {
  return kind >= ControlKind::sync && kind <= ControlKind::look_at_flags;
}

struct Control {
  static constexpr message::MessageType type{69};
  static constexpr std::size_t max_tail = most_terminal_bytes;
  descriptor::HandleField handle;
  message::le<u64> offset;
  message::le<u64> bytes;
  message::le<ControlKind> kind;
  message::le<u32> mode;
};
// Errors as the host's; ENOENT: the asker does not hold it; EPROTO: no such control; EOPNOTSUPP: it
// is no descriptor of the host; ENOBUFS: too much waits for the offset.
struct Controlled {
  static constexpr message::MessageType type{70};
  static constexpr std::size_t max_tail = descriptor::max_tail_bytes;
  message::le<u64> value;
};
static_assert(message::FlatMessage<Control> && message::FlatMessage<Controlled>);

// The home's side.
class Controls {
 public:
  // Registers its handler: before the Messenger's first link.
  Controls(message::Messenger& messenger, descriptor::Home& home);
  Controls(const Controls&) = delete;
  Controls& operator=(const Controls&) = delete;

 private:
  using Token = message::ReplyToken<Controlled>;
  void control(message::Incoming& in, const Control& m, Token token);
  void set_flags(HostObject& object, KernelId from, const Control& m, Token token);

  descriptor::Home& home_;
};

// The holder's side. Types made known: before the first link.
void know_controls(message::Messenger& messenger);
// `bytes`: the entries, valid during the call.
using ControlThen =
    std::move_only_function<void(Result<u64> value, std::span<const std::byte> bytes)>;
// ENETDOWN, EAGAIN (no room, try again) come from the call itself, and `then` is dropped.
Result<void> ask_control(message::Messenger& messenger, KernelId home, const Control& control,
                         ControlThen then, std::span<const std::byte> tail = {});

}  // namespace cob::fs
