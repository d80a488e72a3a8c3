// Both sides of Control and Controlled; see controls.h.
#include "fs/controls.h"

#include <array>

#include "fs/entries.h"
#include "fs/open_flags.h"

namespace cob::fs {
namespace {

using descriptor::Home;

// One that is under way: the object stays, and what it writes to.
struct Doing {
  Doing(Home& its_home, descriptor::Handle its_handle, message::ReplyToken<Controlled> its_token)
      : home(its_home), handle(its_handle), token(std::move(its_token)) {}

  Home& home;
  descriptor::Handle handle;
  message::ReplyToken<Controlled> token;
  std::array<std::byte, descriptor::max_tail_bytes> room;

  void end(const Result<u64>& result, bool told) {
    if (result.is_error()) {
      token.fail(result.error().code);
    } else {
      const auto bytes = std::span(room).first(told ? static_cast<std::size_t>(result.value()) : 0);
      (void)token.answer({.value = result.value()}, {.tail = bytes});
    }
    home.end_use(handle);
  }
};

Result<u64> flags_of(const HostObject& object) { return u64{TRY(object.flags())}; }

Result<u64> set_and_tell(HostObject& object, u32 wanted) {
  TRY(object.set_flags(wanted));
  return flags_of(object);
}

void answer(message::ReplyToken<Controlled>& token, const Result<u64>& result) {
  if (result.is_error()) return token.fail(result.error().code);
  token.answer({.value = result.value()});
}

}  // namespace

Controls::Controls(message::Messenger& messenger, Home& home) : home_(home) {
  messenger.on<Control, Controlled>([this](message::Incoming& in, const Control& m, Token token) {
    control(in, m, std::move(token));
  });
}

// O_APPEND says where a write at the offset goes, so it changes in their turn.
void Controls::set_flags(HostObject& object, KernelId from, const Control& m, Token token) {
  const u32 wanted = m.mode;
  const auto before = object.flags();
  if (before.is_error()) return token.fail(before.error().code);
  if (((before.value() ^ wanted) & open_flag::append) == 0)
    return answer(token, set_and_tell(object, wanted));
  home_.change(
      descriptor::handle_of(m.handle), from,
      [&object, wanted] { return set_and_tell(object, wanted); },
      [token = std::move(token)](const Result<u64>& result) mutable { answer(token, result); });
}

void Controls::control(message::Incoming& in, const Control& m, Token token) {
  const KernelId from = in.from;
  const descriptor::Handle handle = descriptor::handle_of(m.handle);
  const ControlKind kind = m.kind;
  if (!known(kind)) return token.fail(EPROTO);
  auto* object = dynamic_cast<HostObject*>(home_.begin_use(handle, from));
  if (object == nullptr) {
    const bool held = home_.find(handle, from) != nullptr;
    if (held) home_.end_use(handle);
    return token.fail(held ? EOPNOTSUPP : ENOENT);
  }
  if (kind == ControlKind::flags) {
    home_.end_use(handle);
    return set_flags(*object, from, m, std::move(token));
  }
  auto doing = std::make_shared<Doing>(home_, handle, std::move(token));
  const auto done = [doing](Result<u64> result) { doing->end(result, false); };
  switch (kind) {
    case ControlKind::sync:
    case ControlKind::data_sync:
      return object->sync(kind == ControlKind::data_sync, done);
    case ControlKind::allocate:
      return object->allocate(m.mode, m.offset, m.bytes, done);
    case ControlKind::entries: {
      const u64 room = std::min<u64>(m.bytes, doing->room.size());
      return object->entries(
          std::nullopt, std::span(doing->room).first(room), [doing](Result<u64> result) {
            // Of a removed directory the host says ENOENT, which the C library
            // takes for its end, and holders for a handle that is not held.
            const bool removed = result.is_error() && result.error().code == ENOENT;
            doing->end(removed ? Result<u64>(u64{0}) : result, true);
          });
    }
    case ControlKind::terminal:
      return object->terminal(m.mode, in.tail, doing->room,
                              [doing](Result<u64> result) { doing->end(result, true); });
    case ControlKind::look_at_flags:
      return doing->end(flags_of(*object), false);
    case ControlKind::flags:
      return;  // set_flags()
  }
}

void know_controls(message::Messenger& messenger) {
  messenger.know<Control>();
  messenger.know<Controlled>();
}

Result<void> ask_control(message::Messenger& messenger, KernelId home, const Control& control,
                         ControlThen then, std::span<const std::byte> tail) {
  (void)TRY((messenger.request<Control, Controlled>(
      home, control, {.tail = tail}, Time::never(),
      [then = std::move(then)](Result<Controlled> reply, message::Incoming& incoming) mutable {
        if (reply.is_error()) return then(reply.error(), {});
        then(u64{reply.value().value}, incoming.tail);
      })));
  return {};
}

}  // namespace cob::fs
