// Holder, operations: by token or by asking the home, from the call to what it is told.
// docs/descriptors.md, 2.
// Model: as holder.h: by token one after the other; what the home refuses by token is asked again
// without it. Owned by the kernel's loop.
#include <unistd.h>

#include <algorithm>

#include "descriptor/holder.h"

namespace cob::descriptor {

using message::Incoming;

void Holder::read(Ref ref, Position at, u32 bytes, ReadDone done) {
  auto use = std::make_unique<Use>();
  use->kind = UseKind::read;
  use->ref = ref;
  use->at = at;
  use->bytes = std::min(bytes, max_data_bytes);
  use->read_done = std::move(done);
  submit(std::move(use));
}

void Holder::write(Ref ref, Position at, std::span<const std::byte> from, Done done) {
  auto use = std::make_unique<Use>();
  use->kind = UseKind::write;
  use->ref = ref;
  use->at = at;
  use->from = from.first(std::min<std::size_t>(from.size(), max_data_bytes));
  use->done = std::move(done);
  submit(std::move(use));
}

void Holder::seek(Ref ref, i64 distance, int whence, Done done) {
  auto use = std::make_unique<Use>();
  use->kind = UseKind::seek;
  use->ref = ref;
  use->distance = distance;
  use->whence = whence;
  use->done = std::move(done);
  submit(std::move(use));
}

void Holder::submit(std::unique_ptr<Use> use) {
  VERIFY(lives(use->ref));
  ++counters_.operations;
  ++remotes_[use->ref.slot].under_way;
  begin(std::move(use));
}

void Holder::begin(std::unique_ptr<Use> use) {
  Remote& remote = remotes_[use->ref.slot];
  look(remote.home);
  if (remote.lost) return end(std::move(use), Error::of(ESTALE, "the home has ended"), {});
  use->asked = clock_.now();
  use->ask_distance = use->distance;
  use->ask_whence = use->whence;
  if (use->at.has_value()) {
    use->where = Where::position;
    use->position = *use->at;
    return ask(std::move(use));
  }
  const bool append = use->kind == UseKind::write && remote.appends;
  if (remote.grant == 0) {
    use->where = append ? Where::append : Where::offset;
    use->grant = 0;
    return ask(std::move(use));
  }
  if (remote.busy || remote.starved) return remote.waiting.push_back(std::move(use));
  if (use->kind == UseKind::seek) {
    const bool by_size = use->whence == SEEK_END && remote.file_lease != 0;
    i64 there = use->distance;
    if (use->whence == SEEK_CUR || by_size) {
      const u64 from = by_size ? file_lease(use->ref)->size : remote.offset;
      if (__builtin_add_overflow(static_cast<i64>(from), use->distance, &there))
        return end(std::move(use), Error::of(EOVERFLOW, "offset"), {});
    }
    if (use->whence <= SEEK_CUR && there < 0)
      return end(std::move(use), Error::of(EINVAL, "offset"), {});
    // Without a good lease the home must say that it still believes in the token, and how long the
    // file is.
    if ((use->whence <= SEEK_CUR || by_size) && there >= 0 &&
        pairs_[remote.home.value].lease.good(clock_.now())) {
      ++counters_.moved_alone;
      remote.offset = static_cast<u64>(there);
      return end(std::move(use), remote.offset, {});
    }
    if (use->whence == SEEK_CUR) {
      use->ask_distance = there;
      use->ask_whence = SEEK_SET;
    }
  }
  ++counters_.by_token;
  remote.busy = true;
  use->where = append ? Where::append : Where::token;
  use->position = remote.offset;
  use->grant = remote.grant;
  ask(std::move(use));
}

Result<message::RequestId> Holder::send(Use& use) {
  const Remote& remote = remotes_[use.ref.slot];
  const HandleField handle = field_of(remote.handle);
  Use* kept = &use;
  switch (use.kind) {
    case UseKind::read:
      return messenger_.request<Read, ReadReply>(
          remote.home,
          Read{.handle = handle,
               .position = use.position,
               .grant = use.grant,
               .bytes = use.bytes,
               .where = use.where,
               .reserved_a = 0,
               .reserved_b = 0},
          Time::never(), [this, kept](Result<ReadReply> reply, Incoming& in) {
            answered(landed(*kept), reply, in);
          });
    case UseKind::write: {
      message::Buffer room;
      message::With with{.tail = use.from};
      if (use.from.size() > max_tail_bytes) {
        room = TRY(messenger_.allocate(remote.home, use.from.size()));
        std::ranges::copy(use.from, room.bytes().begin());
        with = {.lend = &room};
      }
      return messenger_.request<Write, Written>(remote.home,
                                                Write{.handle = handle,
                                                      .position = use.position,
                                                      .grant = use.grant,
                                                      .bytes = static_cast<u32>(use.from.size()),
                                                      .where = use.where,
                                                      .reserved_a = 0,
                                                      .reserved_b = 0},
                                                with, Time::never(),
                                                [this, kept](Result<Written> reply, Incoming& in) {
                                                  answered(landed(*kept), reply, in);
                                                });
    }
    case UseKind::seek:
      return messenger_.request<Seek, Sought>(
          remote.home,
          Seek{.handle = handle,
               .distance = use.ask_distance,
               .grant = use.grant,
               .whence = static_cast<u32>(use.ask_whence),
               .where = use.where,
               .reserved_a = 0,
               .reserved_b = 0},
          Time::never(),
          [this, kept](Result<Sought> reply, Incoming& in) { answered(landed(*kept), reply, in); });
  }
  __builtin_unreachable();
}

void Holder::ask(std::unique_ptr<Use> use) {
  look(remotes_[use->ref.slot].home);  // another session would not know what we ask about
  if (remotes_[use->ref.slot].lost)
    return answered(std::move(use), Result<Sought>(Error::of(ECONNRESET, "")), nobody_);
  const auto sent = send(*use);
  if (sent) {
    use->place = flying_.size();
    flying_.push_back(std::move(use));
  } else if (sent.error().code == EAGAIN && use->by_token()) {
    // Not begun: a recall does not wait for room at a link whose room may be taken by those who
    // wait for that recall.
    const Ref ref = use->ref;
    Remote& remote = remotes_[ref.slot];
    remote.busy = false;
    remote.starved = true;
    remote.waiting.push_front(std::move(use));
    starved_.push_back(ref);
  } else if (sent.error().code == EAGAIN) {
    unsent_.push_back(std::move(use));
  } else {
    answered(std::move(use), Result<Sought>(sent.error()), nobody_);
  }
}

std::unique_ptr<Holder::Use> Holder::landed(Use& use) {
  const std::size_t place = use.place;
  std::swap(flying_[place], flying_.back());
  flying_[place]->place = place;
  auto mine = std::move(flying_.back());
  flying_.pop_back();
  return mine;
}

// What the reply says of the operation itself: bytes moved, or the offset.
static u64 moved_by(const ReadReply& reply) { return reply.bytes; }
static u64 moved_by(const Written& reply) { return reply.bytes; }
static u64 moved_by(const Sought& reply) { return reply.offset; }

template <typename Reply>
void Holder::answered(std::unique_ptr<Use> use, const Result<Reply>& reply, Incoming& in) {
  const u32 slot = use->ref.slot;
  Remote& remote = remotes_[slot];
  const bool by_token = use->by_token();
  if (by_token) remote.busy = false;
  if (reply.is_error()) {
    const int code = reply.error().code;
    if (code == EKEYEXPIRED && by_token) {
      ++counters_.stale;
      if (remote.grant == use->grant) lose_token(remote);
      begin(std::move(use));
    } else if (code == ECONNRESET || code == ENETDOWN || code == EHOSTDOWN || code == EPROTO) {
      end(std::move(use), Error::of(ESTALE, "the home has ended"), {});
    } else {
      end(std::move(use), reply.error(), {});
    }
    return go_on(slot);
  }
  const Reply& r = reply.value();
  ReadData data;
  u64 moved = moved_by(r);
  if constexpr (std::is_same_v<Reply, ReadReply>) {
    const auto all = in.loan.valid() ? in.loan.bytes() : in.tail;
    moved = std::min<u64>({moved, all.size(), use->bytes});
    data = {.bytes = all.first(moved), .loan = std::move(in.loan)};
    if (r.file_lease != 0 && !remote.lost) {
      take_file_lease(remote, r.file_lease, r.file_size, use->asked);
      if (r.covered) data.file_lease = r.file_lease;
    }
  } else if constexpr (std::is_same_v<Reply, Written>) {
    moved = std::min<u64>(moved, use->from.size());
  }
  if (by_token) {
    if (remote.grant == use->grant)
      remote.offset = use->where == Where::append || use->kind == UseKind::seek
                          ? u64{r.offset}
                          : use->position + moved;
  } else if (use->where != Where::position && r.grant != 0 && !remote.lost) {
    take_token(remote, r.grant, r.offset, use->asked);
  }
  end(std::move(use), moved, std::move(data));
  go_on(slot);
}

void Holder::end(std::unique_ptr<Use> use, Result<u64> moved, ReadData data) {
  const u32 slot = use->ref.slot;
  --remotes_[slot].under_way;
  if (use->kind == UseKind::read) {
    if (moved.is_error()) {
      use->read_done(moved.error());
    } else {
      use->read_done(std::move(data));
    }
  } else {
    use->done(moved);
  }
  if (lives(use->ref)) maybe_drop(slot);
}

// Nothing by token is under way: gives the token back if it is wanted, then begins what waited.
void Holder::go_on(u32 slot) {
  Remote& remote = remotes_[slot];
  const u32 generation = remote.generation;
  if (!remote.busy && remote.recall.valid()) {
    const bool here = remote.grant != 0;
    const u64 offset = remote.offset;
    lose_token(remote);
    if (here) {
      remote.recall.answer({.offset = offset});
    } else {
      remote.recall.fail(ENOENT);
    }
  }
  while (remote.generation == generation && !remote.busy && !remote.waiting.empty() &&
         !(remote.starved && remote.grant != 0)) {
    auto use = std::move(remote.waiting.front());
    remote.waiting.pop_front();
    begin(std::move(use));
  }
}

}  // namespace cob::descriptor
