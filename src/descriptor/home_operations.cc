// Home, operations: from a holder's message to its answer. docs/descriptors.md, 2 and 8.
// Model: as home.h; what is asked is checked here, once; buffers are the operation's own until it
// has ended. Owned by the kernel's loop.
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "descriptor/home.h"
#include "descriptor/operation.h"

namespace cob::descriptor {

using message::Incoming;
using message::ReplyToken;

void Home::register_handlers() {
  messenger_.on<Read, ReadReply>([this](Incoming& in, const Read& m, ReplyToken<ReadReply> reply) {
    on_read(in.from, m, std::move(reply));
  });
  messenger_.on<Write, Written>([this](Incoming& in, const Write& m, ReplyToken<Written> reply) {
    on_write(in, m, std::move(reply));
  });
  messenger_.on<Seek, Sought>([this](KernelId from, const Seek& m, ReplyToken<Sought> reply) {
    on_seek(from, m, std::move(reply));
  });
  messenger_.on<Hold, Held>([this](Incoming& in, const Hold& m, ReplyToken<Held> reply) {
    on_hold(in, m, std::move(reply));
  });
  messenger_.on<Drop, Dropped>(
      [this](KernelId from, const Drop& m) -> Result<Dropped> { return on_drop(from, m); });
  messenger_.on<Renew, Renewed>(
      [this](KernelId from, const Renew&) -> Result<Renewed> { return on_renew(from); });
  messenger_.know<Recall>();
  messenger_.know<Returned>();
  messenger_.know<Invalidate>();
  messenger_.know<Invalidated>();
}

// ---- Messages.

std::unique_ptr<Home::Operation> Home::operation(KernelId from, const HandleField& handle) {
  std::unique_ptr<Operation> op;
  if (spare_.empty()) {
    op = std::make_unique<Operation>();
  } else {
    op = std::move(spare_.back());
    spare_.pop_back();
  }
  op->asker = from;
  op->slot = handle.slot;
  op->generation = handle.generation;
  op->abandoned = false;
  return op;
}

void Home::recycle(std::unique_ptr<Operation> op) {
  constexpr std::size_t enough = 64;
  op->reply = std::monostate{};
  op->loan.reset();
  op->room.reset();
  op->call = nullptr;
  if (spare_.size() < enough) spare_.push_back(std::move(op));
}

void Home::on_read(KernelId from, const Read& m, ReplyToken<ReadReply> reply) {
  const Where where = m.where;
  if (!known(where) || where == Where::append) return reply.fail(EPROTO);
  if (entry_for(from, m.handle) == nullptr) return reply.fail(ENOENT);
  auto op = operation(from, m.handle);
  op->kind = OperationKind::read;
  op->where = where;
  op->position = m.position;
  op->grant = m.grant;
  op->bytes = std::min<u32>(m.bytes, max_data_bytes);
  op->reply = std::move(reply);
  submit(std::move(op));
}

void Home::on_write(Incoming& in, const Write& m, ReplyToken<Written> reply) {
  const Where where = m.where;
  const u32 bytes = m.bytes;
  const std::size_t come = in.loan.valid() ? in.loan.bytes().size() : in.tail.size();
  if (!known(where) || bytes > come || bytes > max_data_bytes) return reply.fail(EPROTO);
  if (entry_for(in.from, m.handle) == nullptr) return reply.fail(ENOENT);
  auto op = operation(in.from, m.handle);
  op->kind = OperationKind::write;
  op->where = where;
  op->position = m.position;
  op->grant = m.grant;
  op->bytes = bytes;
  op->reply = std::move(reply);
  if (in.loan.valid()) {
    op->loan = std::move(in.loan);
  } else {
    std::memcpy(op->small.data(), in.tail.data(), bytes);
  }
  submit(std::move(op));
}

void Home::on_seek(KernelId from, const Seek& m, ReplyToken<Sought> reply) {
  const Where where = m.where;
  const u32 whence = m.whence;
  // By token the holder has made a SEEK_CUR into a SEEK_SET.
  const bool good = where == Where::offset || (where == Where::token && whence != SEEK_CUR);
  if (!good || whence > SEEK_HOLE) return reply.fail(good ? EINVAL : EPROTO);
  if (entry_for(from, m.handle) == nullptr) return reply.fail(ENOENT);
  auto op = operation(from, m.handle);
  op->kind = OperationKind::seek;
  op->where = where;
  op->position = 0;
  op->grant = m.grant;
  op->distance = m.distance;
  op->whence = static_cast<int>(whence);
  op->bytes = 0;
  op->reply = std::move(reply);
  submit(std::move(op));
}

void Home::change(Handle handle, KernelId from, std::move_only_function<Result<u64>()> call,
                  Object::Done done) {
  if (entry_for(from, field_of(handle)) == nullptr) return done(Error::of(ENOENT, "not held"));
  auto op = operation(from, field_of(handle));
  op->kind = OperationKind::change;
  op->where = Where::offset;
  op->grant = 0;
  op->call = std::move(call);
  op->reply = std::move(done);
  submit(std::move(op));
}

void Home::on_hold(Incoming& in, const Hold& m, ReplyToken<Held> reply) {
  Pair& pair = look(in.from);
  const u32 count = m.count;
  if (count > max_handles || in.tail.size() != count * sizeof(HandleField))
    return reply.fail(EPROTO);
  std::array<std::byte, max_handles> held;
  for (u32 i = 0; i < count; ++i) {
    HandleField handle;
    std::memcpy(&handle, in.tail.data() + i * sizeof handle, sizeof handle);
    const u32 slot = handle.slot;
    Entry* entry = slot < entries_.size() ? &entries_[slot] : nullptr;
    const bool lives = entry != nullptr && entry->generation != 0 &&
                       entry->generation == handle.generation && !entry->holders.empty();
    if (!lives) ++counters_.refused;
    if (lives && !holds(*entry, in.from)) {
      entry->holders.push_back(in.from.value);
      pair.held.push_back(slot);
    }
    held[i] = lives ? std::byte{1} : std::byte{0};
  }
  (void)reply.answer({.count = count}, {.tail = std::span(held).first(count)});
}

Result<Dropped> Home::on_drop(KernelId from, const Drop& m) {
  Entry* entry = entry_for(from, m.handle);
  if (entry == nullptr) return Error::of(ENOENT, "not held");
  const u32 slot = m.handle.slot;
  const bool rests = entry->at == from.value &&
                     (entry->place == Place::resting || entry->place == Place::recalling);
  if (rests && entry->holders.size() > 1) {
    if (m.grant == entry->grant) {
      come_back(slot, m.offset);
    } else {
      lose(slot);
    }
  }
  release(slot, from);
  return Dropped{.result = 0};
}

Result<Renewed> Home::on_renew(KernelId from) {
  Pair& pair = look(from);
  const Time now = clock_.now();
  // Who renews and does not give back would hold the others up for ever.
  if (overdue(from, now)) return Error::of(EBUSY, "a recall is not answered");
  const bool fenced = std::exchange(pair.fenced, false);
  pair.lease.extend(now);
  return Renewed{.fenced = fenced};
}

// ---- Their turn.

void Home::submit(std::unique_ptr<Operation> op) {
  Entry& entry = entries_[op->slot];
  if (!entry.traits.has_offset || op->where == Where::position) return start(std::move(op));
  if (op->by_token()) {
    if ((entry.place == Place::resting || entry.place == Place::recalling) &&
        entry.at == op->asker.value && entry.grant == op->grant)
      return start(std::move(op));
    ++counters_.stale_tokens;
    return fail(std::move(op), EKEYEXPIRED);
  }
  if (waiting_ == max_waiting) return fail(std::move(op), ENOBUFS);
  const u32 slot = op->slot;
  entry.waiting.push_back(std::move(op));
  ++waiting_;
  if (entry.place == Place::home) {
    go_on(slot);
  } else {
    want_back(slot);
  }
}

// Begins what waits, one after the other.
void Home::go_on(u32 slot) {
  Entry& entry = entries_[slot];
  if (entry.going) return;  // the loop below is under way, and sees what has changed
  entry.going = true;
  while (entry.place == Place::home && entry.offset_under_way == 0 && !entry.waiting.empty()) {
    auto op = std::move(entry.waiting.front());
    entry.waiting.pop_front();
    --waiting_;
    if (op->abandoned) {
      recycle(std::move(op));
    } else if (entry.eio && op->kind != OperationKind::change) {
      entry.eio = false;
      fail(std::move(op), EIO);
    } else {
      start(std::move(op));
    }
  }
  entry.going = false;
  if (!entry.waiting.empty()) want_back(slot);
}

void Home::start(std::unique_ptr<Operation> op) {
  Operation& o = *op;
  Entry& entry = entries_[o.slot];
  ++counters_.operations;
  ++entry.under_way;
  if (o.where != Where::position) ++entry.offset_under_way;
  const Position at =
      o.where == Where::position || o.where == Where::token ? Position(o.position) : std::nullopt;
  // The operation lives in the callback; `o` is good while that is.
  Object::Done done = [this, op = std::move(op)](Result<u64> moved) mutable {
    finish(std::move(op), moved);
  };
  switch (o.kind) {
    case OperationKind::read: {
      o.file_lease = file_leases_.before_read(o.slot, o.asker);
      std::span<std::byte> into(o.small);
      if (o.bytes > max_tail_bytes) {
        // Without room to lend it is a short read.
        auto room = messenger_.allocate(o.asker, o.bytes);
        if (room) {
          o.room = room.release_value();
          into = o.room.bytes();
        } else {
          o.bytes = max_tail_bytes;
        }
      }
      return entry.object->read(at, into.first(o.bytes), std::move(done));
    }
    case OperationKind::write: {
      const std::span<const std::byte> from =
          o.loan.valid() ? o.loan.bytes() : std::span<const std::byte>(o.small);
      // Where it stays, the host's own O_APPEND says where; the asker may not have heard of it.
      if (o.where == Where::append && !entry.stays)
        return entry.object->append(from.first(o.bytes), std::move(done));
      return entry.object->write(at, from.first(o.bytes), std::move(done));
    }
    case OperationKind::seek:
      return entry.object->seek(o.distance, o.whence, std::move(done));
    case OperationKind::change:
      entry.stays = true;
      return done(o.call());
  }
}

void Home::finish(std::unique_ptr<Operation> op, Result<u64> moved) {
  const u32 slot = op->slot;
  Entry& entry = entries_[slot];
  VERIFY(entry.generation == op->generation);
  --entry.under_way;
  if (op->where != Where::position) --entry.offset_under_way;
  Grant grant;
  u64 offset = 0;
  if (!moved.is_error() && op->where != Where::position) {
    if (op->kind == OperationKind::seek) {
      offset = moved.value();
    } else if (op->where == Where::token) {
      offset = op->position + moved.value();
    } else {
      const auto at = entry.object->offset();
      offset = at.is_error() ? 0 : at.value();
    }
    if (op->by_token() && entry.grant == op->grant) entry.reported = offset;
  }
  if (op->by_token() && entry.place == Place::recalling) entry.recalled = clock_.now();
  if (op->at_offset() && entry.traits.has_offset) {
    entry.streak = entry.last_user == op->asker.value ? entry.streak + 1 : 1;
    entry.last_user = op->asker.value;
    if (!moved.is_error() && may_rest(entry, op->asker)) grant = give(slot, op->asker);
  }
  if (moved.is_error()) {
    fail(std::move(op), moved.error().code);
  } else {
    answer(std::move(op), moved.value(), grant, offset);
  }
  go_on(slot);
  end_if_unheld(slot);
}

void Home::fail(std::unique_ptr<Operation> op, int code) {
  std::visit(
      [code](auto& reply) {
        if constexpr (requires { reply.fail(code); }) reply.fail(code);
        if constexpr (requires { reply(Error::of(code, "")); }) reply(Error::of(code, "the home"));
      },
      op->reply);
  recycle(std::move(op));
}

void Home::answer(std::unique_ptr<Operation> op, u64 moved, Grant grant, u64 offset) {
  if (auto* done = std::get_if<Object::Done>(&op->reply)) {
    (*done)(moved);
  } else if (auto* written = std::get_if<ReplyToken<Written>>(&op->reply)) {
    written->answer(
        {.bytes = static_cast<u32>(moved), .reserved = 0, .grant = grant.value, .offset = offset});
  } else if (auto* sought = std::get_if<ReplyToken<Sought>>(&op->reply)) {
    sought->answer({.offset = offset, .grant = grant.value});
  } else if (auto* read = std::get_if<ReplyToken<ReadReply>>(&op->reply)) {
    FileLeases::Told lease;
    if (holds(entries_[op->slot], op->asker))
      lease = file_leases_.after_read(op->slot, op->asker, op->file_lease, moved, op->bytes);
    ReadReply reply{.bytes = static_cast<u32>(moved),
                    .reserved = 0,
                    .grant = grant.value,
                    .offset = offset,
                    .file_lease = lease.number,
                    .file_size = lease.size,
                    .covered = lease.covers,
                    .reserved_a = 0,
                    .reserved_b = 0,
                    .reserved_c = 0U};
    const bool lend = op->room.valid();
    const auto answered = lend ? read->answer(reply, {.lend = &op->room})
                               : read->answer(reply, {.tail = std::span(op->small).first(moved)});
    if (answered.is_error() && lend) {
      // The bytes are taken, so they wait until something that is lent comes back. The lease may
      // be recalled by then.
      reply.file_lease = u64{0};
      reply.covered = false;
      unsent_.push_back({std::move(op), reply});
      return;
    }
  }
  recycle(std::move(op));
}

void Home::send_unsent() {
  for (std::size_t n = unsent_.size(); n > 0; --n) {
    Unsent one = std::move(unsent_.front());
    unsent_.pop_front();
    auto& token = std::get<ReplyToken<ReadReply>>(one.op->reply);
    const auto answered = token.answer(one.reply, {.lend = &one.op->room});
    if (answered.is_error() && answered.error().code == EAGAIN) {
      unsent_.push_back(std::move(one));
    } else {
      recycle(std::move(one.op));
    }
  }
}

}  // namespace cob::descriptor
