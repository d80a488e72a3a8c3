// Passes: both sides; see passes.h.
#include "descriptor/passes.h"

#include <cstring>

namespace cob::descriptor {

Passes::Passes(message::Messenger& messenger, Holder& holder)
    : messenger_(messenger), holder_(holder) {
  messenger.on<Pass, Passed>(
      [this](message::Incoming& in, const Pass& m, message::ReplyToken<Passed> reply) {
        on_pass(in, m, std::move(reply));
      });
}

// ---- What comes.

void Passes::on_pass(message::Incoming& in, const Pass& m, message::ReplyToken<Passed> reply) {
  const u32 count = m.count;
  if (count == 0 || count > max_pass || in.tail.size() != count * sizeof(PassField)) {
    ++counters_.refused;
    return reply.fail(EPROTO);
  }
  if (arriving_ == max_arriving) return reply.fail(ENOBUFS);
  const auto arriving = std::make_shared<Arriving>();
  arriving->from = in.from;
  arriving->program = m.program;
  for (u32 i = 0; i < count; ++i) {
    PassField field;
    std::memcpy(&field, in.tail.data() + i * sizeof field, sizeof field);
    const Item item{.home = KernelId(field.home),
                    .handle = handle_of(field.handle),
                    .name = field.name,
                    .status_flags = field.status_flags,
                    .traits = field.traits};
    if (!item.handle || item.home.value >= messenger_.links().kernels() ||
        (item.traits & ~pass_traits) != 0) {
      ++counters_.refused;
      return reply.fail(EPROTO);
    }
    arriving->all.push_back({.ref = {}, .item = item});
  }
  ++arriving_;
  arriving->had.assign(count, false);
  arriving->left = count;
  arriving->reply = std::move(reply);
  for (u32 i = 0; i < count; ++i) {
    const Item& item = arriving->all[i].item;
    holder_.adopt(item.home, item.handle, (item.traits & pass_appends) != 0,
                  (item.traits & pass_has_offset) != 0,
                  [this, arriving, i](Result<Holder::Ref> ref) {
                    if (ref.is_error()) {
                      arriving->error = ref.error().code;
                    } else {
                      arriving->all[i].ref = ref.value();
                      arriving->had[i] = true;
                    }
                    if (--arriving->left == 0) settle(*arriving);
                  });
  }
}

void Passes::settle(Arriving& arriving) {
  --arriving_;
  int code = arriving.error;
  if (code == ECONNRESET || code == ENETDOWN || code == EHOSTDOWN) code = ESTALE;
  if (code == 0) {
    const auto taken = taker_ ? taker_(arriving.from, arriving.program, arriving.all)
                              : Result<void>(Error::of(ESRCH, "nobody takes them"));
    if (taken.is_error()) code = taken.error().code;
  }
  if (code == 0) {
    counters_.arrived += arriving.all.size();
    return arriving.reply.answer({.count = static_cast<u32>(arriving.all.size())});
  }
  ++counters_.failed;
  for (std::size_t i = 0; i < arriving.all.size(); ++i)
    if (arriving.had[i]) holder_.drop(arriving.all[i].ref, [](const Result<u64>&) {});
  arriving.reply.fail(code);
}

// ---- What goes.

void Passes::pass(KernelId to, u32 program, std::span<const Item> items, Done done) {
  VERIFY(!items.empty() && items.size() <= max_pass);
  Leaving leaving{.to = to, .program = program, .fields = {}, .done = std::move(done)};
  for (const Item& item : items)
    leaving.fields.push_back({.handle = field_of(item.handle),
                              .name = item.name,
                              .status_flags = item.status_flags,
                              .home = item.home.value,
                              .traits = item.traits,
                              .reserved = 0});
  if (!unsent_.empty() || !send(leaving)) unsent_.push_back(std::move(leaving));
}

// False: no room; `leaving` is as it was.
bool Passes::send(Leaving& leaving) {
  const auto done = std::make_shared<Done>(std::move(leaving.done));
  const auto end = [this](Done& then, std::size_t count, Result<void> result) {
    if (result.is_error()) {
      ++counters_.failed;
    } else {
      counters_.passed += count;
    }
    then(result);
  };
  const std::size_t count = leaving.fields.size();
  const auto sent = messenger_.request<Pass, Passed>(
      leaving.to, Pass{.count = static_cast<u32>(count), .program = leaving.program},
      {.tail = std::as_bytes(std::span(leaving.fields))}, Time::never(),
      [end, done, count](Result<Passed> passed) {
        end(*done, count, passed.is_error() ? Result<void>(passed.error()) : Result<void>());
      });
  if (sent) return true;
  if (sent.error().code == EAGAIN) {
    leaving.done = std::move(*done);
    return false;
  }
  end(*done, count, sent.error());
  return true;
}

void Passes::poll() {
  for (std::size_t n = unsent_.size(); n > 0; --n) {
    Leaving leaving = std::move(unsent_.front());
    unsent_.pop_front();
    if (!send(leaving)) unsent_.push_back(std::move(leaving));
  }
}

}  // namespace cob::descriptor
