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

// O_APPEND is what home and holder count on, so it stays.
Result<u64> set_flags(HostObject& object, u32 wanted) {
  const u32 before = TRY(object.flags());
  if (((before ^ wanted) & open_flag::append) != 0)
    return Error::of(EOPNOTSUPP, "O_APPEND of an open file of another island");
  TRY(object.set_flags(wanted));
  return u64{TRY(object.flags())};
}

}  // namespace

Controls::Controls(message::Messenger& messenger, Home& home) : home_(home) {
  messenger.on<Control, Controlled>([this](message::Incoming& in, const Control& m, Token token) {
    control(in, m, std::move(token));
  });
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
      return object->entries(std::nullopt, std::span(doing->room).first(room),
                             [doing](Result<u64> result) { doing->end(result, true); });
    }
    case ControlKind::terminal:
      return object->terminal(m.mode, in.tail, doing->room,
                              [doing](Result<u64> result) { doing->end(result, true); });
    case ControlKind::flags:
      return doing->end(set_flags(*object, m.mode), false);
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
