// FileCalls, reads: from what is cached, read ahead under a lease, or asked of the home as they
// are. docs/calls.md, "Files"; docs/descriptors.md, 3. Model: what the program finds in its pages
// never comes here, but for reads at the offset: these count if the token and the lease are good
// after the copy. What is fetched goes to the pages if it was read under the lease that the file
// has now. Kernel's loop only.
#include <algorithm>
#include <cstring>
#include <utility>

#include "call/file_write.h"
#include "kernel/file_calls.h"

namespace cob::kernel {

namespace {

using RemoteHolder = descriptor::Holder;
using ReadData = descriptor::Holder::ReadData;
using descriptor::Position;

constexpr u64 page_bytes = call::cache_page_bytes;
constexpr u64 chunk_room = call::receive_chunk_payload;
// What one message asks for of a long read at a position: while the home reads one, the one before
// is copied here. Whole chunks.
constexpr u32 piece_bytes = 128 * call::receive_chunk_payload;
constexpr u32 least_ahead = 32 * 1'024, most_ahead = 256 * 1'024;

constexpr u64 whole_pages(u64 bytes) { return (bytes + page_bytes - 1) / page_bytes * page_bytes; }

}  // namespace

struct FileCalls::Reading {
  Shared pending;
  u32 slot = 0, generation = 0;
  u32 bytes = 0;
  Position at;
  // In pieces: how much of each came.
  std::vector<Result<u64>> pieces = {};
  u32 pieces_left = 0;
};

void FileCalls::put(const Pending& pending, u64 at, std::span<const std::byte> bytes) {
  Program* program = caller(pending);
  if (program == nullptr) return;
  for (std::size_t i = at / chunk_room + (pending.listed ? 1 : 0); !bytes.empty(); ++i) {
    const u64 inside = at % chunk_room;
    const auto part = bytes.first(std::min<std::size_t>(bytes.size(), chunk_room - inside));
    std::memcpy(program->arena().chunk_payload(pending.chunks[i]) + inside, part.data(),
                part.size());
    at += part.size();
    bytes = bytes.subspan(part.size());
  }
}

void FileCalls::answer_read(const Shared& pending, u64 bytes) {
  auto& chunks = pending->chunks;
  const auto used = static_cast<u32>((bytes + chunk_room - 1) / chunk_room);
  const auto result = static_cast<i32>(bytes);
  if (pending->listed && bytes > call::max_file_read) {
    if (Program* program = caller(*pending))
      std::memcpy(program->arena().chunk_payload(chunks[0]), &chunks[1], used * sizeof(u32));
    const u64 values[] = {chunks[0]};
    return answer(pending, result, values, used + 1);
  }
  // The list is not needed.
  if (pending->listed && used > 0) std::rotate(chunks.begin(), chunks.begin() + 1, chunks.end());
  u64 values[6] = {};
  for (u32 i = 0; i < used; ++i) values[i / 2] |= u64{chunks[i]} << (i % 2 * 32);
  answer(pending, result, values, used);
}

void FileCalls::put_and_answer(const Shared& pending, std::span<const std::byte> bytes) {
  put(*pending, 0, bytes);
  answer_read(pending, bytes.size());
}

void FileCalls::read(Program& program, const Shared& pending, const call::CallSlot& call) {
  if (file_at(program, call.socket, call.generation) == nullptr) return answer(pending, -EBADF);
  const u64 most = (call.flags & call::file_read_listed) != 0 ? u64{call::max_listed_file_read}
                                                              : u64{call::max_file_read};
  const u64 wanted = std::min<u64>(call.a[0], most);
  if (under_way_ > max_under_way) return answer(pending, -EAGAIN);
  pending->listed = wanted > call::max_file_read;
  const u64 chunks = (wanted + chunk_room - 1) / chunk_room + (pending->listed ? 1 : 0);
  if (!reserve(program, pending, static_cast<u32>(chunks))) return;
  if (pending->chunks.size() <= 1) pending->listed = false;  // there is nothing to list
  const auto room =
      static_cast<u32>((pending->chunks.size() - (pending->listed ? 1 : 0)) * chunk_room);
  if (room == 0 && wanted > 0) return answer(pending, -EAGAIN);
  const bool there = (call.flags & 1) != 0;
  const auto reading =
      std::make_shared<Reading>(Reading{.pending = pending,
                                        .slot = call.socket,
                                        .generation = call.generation,
                                        .bytes = std::min(static_cast<u32>(wanted), room),
                                        .at = there ? Position(call.a[1]) : std::nullopt});
  if (wanted == 0) return read_uncached(reading);  // its errors are the host's
  there ? read_there(reading) : read_on(reading, true);
}

// nullptr: the program has closed it, or is over.
OpenFile* FileCalls::file_of(const Reading& reading) {
  Program* program = caller(*reading.pending);
  Description* d =
      program == nullptr ? nullptr : file_at(*program, reading.slot, reading.generation);
  return d == nullptr ? nullptr : d->file.get();
}

void FileCalls::read_uncached(const SharedReading& reading) {
  const OpenFile* file = file_of(*reading);
  if (file == nullptr) return answer(reading->pending, -EBADF);
  if (reading->at && reading->bytes > piece_bytes) return read_pieces(reading);
  files_->holder().read(
      file->ref, reading->at, reading->bytes, [this, reading](Result<ReadData> result) {
        if (result.is_error()) return answer(reading->pending, code_for_files(result.error().code));
        if (reading->at) keep(*reading, *reading->at, result.value());
        const auto got = result.value().bytes;
        put_and_answer(reading->pending,
                       got.first(std::min<std::size_t>(got.size(), reading->bytes)));
      });
}

// As several reads one after the other, which are under way at a time.
void FileCalls::read_pieces(const SharedReading& reading) {
  const OpenFile& file = *file_of(*reading);
  reading->pieces_left = (reading->bytes + piece_bytes - 1) / piece_bytes;
  reading->pieces.assign(reading->pieces_left, Result<u64>(u64{0}));
  for (u32 i = 0; i < reading->pieces.size(); ++i) {
    const u32 from = i * piece_bytes;
    files_->holder().read(
        file.ref, *reading->at + from, std::min(piece_bytes, reading->bytes - from),
        [this, reading, i](const Result<ReadData>& result) { piece_came(reading, i, result); });
  }
}

void FileCalls::piece_came(const SharedReading& reading, u32 piece,
                           const Result<ReadData>& result) {
  const u32 from = piece * piece_bytes, wanted = std::min(piece_bytes, reading->bytes - from);
  Result<u64>& came = reading->pieces[piece];
  if (result.is_error()) {
    came = result.error();
  } else {
    keep(*reading, *reading->at + from, result.value());
    const auto got = result.value().bytes;
    const auto part = got.first(std::min<std::size_t>(got.size(), wanted));
    put(*reading->pending, from, part);
    came = u64{part.size()};
  }
  if (--reading->pieces_left > 0) return;
  // What lies in one piece with the beginning.
  u64 bytes = 0;
  for (const Result<u64>& one : reading->pieces) {
    if (one.is_error() && bytes == 0)
      return answer(reading->pending, code_for_files(one.error().code));
    bytes += one.is_error() ? 0 : one.value();
    if (one.is_error() || one.value() < piece_bytes) break;
  }
  answer_read(reading->pending, bytes);
}

// What was read under the lease that the file has goes to the program's pages.
void FileCalls::keep(const Reading& reading, u64 from, const ReadData& data) {
  const OpenFile* file = data.file_lease == 0 ? nullptr : file_of(reading);
  if (file == nullptr) return;
  const auto lease = files_->holder().file_lease(file->ref);
  if (!lease || lease->number != data.file_lease) return;
  Program& program = *caller(*reading.pending);
  cache_.show(program, reading.slot, *lease, files_->holder().leased_until(lease->home));
  cache_.fill(program, *lease, from, data.bytes);
}

// Whole blocks around what is wanted, and more the longer the file is read on.
void FileCalls::fetch(const SharedReading& reading, const FileCache::Lease& lease, u64 position,
                      Fetched then) {
  OpenFile& file = *file_of(*reading);
  const u64 from = position / page_bytes * page_bytes;
  const bool goes_on = from == file.next || position == file.next;
  file.ahead = goes_on ? std::clamp(file.ahead * 2, least_ahead, most_ahead) : 0;
  const u64 wanted = whole_pages(position + reading->bytes);
  const u64 to = std::min(std::max(wanted, from + file.ahead), whole_pages(lease.size));
  file.next = to;
  files_->holder().read(
      file.ref, from, static_cast<u32>(to - from),
      [this, reading, from, then = std::move(then)](Result<ReadData> result) mutable {
        if (!result.is_error()) keep(*reading, from, result.value());
        then(std::move(result), from);
      });
}

void FileCalls::read_there(const SharedReading& reading) {
  const OpenFile* file = file_of(*reading);
  const auto lease = files_->holder().file_lease(file->ref);
  const u64 position = *reading->at;
  if (!lease || position >= lease->size) return read_uncached(reading);
  fetch(reading, *lease, position, [this, reading, position](Result<ReadData> result, u64 from) {
    if (result.is_error()) return answer(reading->pending, code_for_files(result.error().code));
    // A short one ends where it does, not before.
    const auto got = result.value().bytes;
    if (got.size() <= position - from) return read_uncached(reading);
    const auto rest = got.subspan(position - from);
    put_and_answer(reading->pending,
                   rest.first(std::min<std::size_t>(rest.size(), reading->bytes)));
  });
}

// At the offset. While token and lease are here, from the pages; `again`: what is not there yet is
// fetched first.
void FileCalls::read_on(const SharedReading& reading, bool again) {
  const OpenFile* file = file_of(*reading);
  if (file == nullptr) return answer(reading->pending, -EBADF);
  RemoteHolder& holder = files_->holder();
  const auto lease = holder.file_lease(file->ref);
  const auto at = lease ? holder.resting_offset(file->ref) : std::nullopt;
  if (!at) return read_uncached(reading);
  Program& program = *caller(*reading->pending);
  cache_.show(program, reading->slot, *lease, holder.leased_until(lease->home));
  if (scratch_.size() < reading->bytes) scratch_.resize(reading->bytes);
  const auto bytes = std::span(scratch_).first(reading->bytes);
  const auto got = cache_.copy(program, *lease, *at, bytes);
  if (got.all && holder.advance(file->ref, *at, got.bytes)) {
    cache_.count_served();
    return put_and_answer(reading->pending, bytes.first(got.bytes));
  }
  if (got.all || !again) return read_uncached(reading);
  fetch(reading, *lease, *at, [this, reading](const Result<ReadData>& result, u64) {
    if (result.is_error()) return answer(reading->pending, code_for_files(result.error().code));
    read_on(reading, false);
  });
}

}  // namespace cob::kernel
