// FileCalls, reads: from what is cached, read ahead under a lease, or asked of the home as they
// are. docs/calls.md, "Files"; docs/descriptors.md, 3. Model: what the program finds in its pages
// never comes here, but for reads at the offset: these count if the token and the lease are good
// after the copy. What is fetched goes to the pages if it was read under the lease that the file
// has now. Kernel's loop only.
#include <utility>

#include "kernel/file_calls.h"

namespace cob::kernel {

namespace {

using RemoteHolder = descriptor::Holder;
using ReadData = descriptor::Holder::ReadData;
using descriptor::Position;

constexpr u64 page_bytes = call::cache_page_bytes;
constexpr u32 least_ahead = 32 * 1'024, most_ahead = 256 * 1'024;

constexpr u64 whole_pages(u64 bytes) { return (bytes + page_bytes - 1) / page_bytes * page_bytes; }

}  // namespace

struct FileCalls::Reading {
  Shared pending;
  u32 slot = 0, generation = 0;
  u32 bytes = 0;
  Position at;
};

void FileCalls::read(Program& program, const Shared& pending, const call::CallSlot& call) {
  if (file_at(program, call.socket, call.generation) == nullptr) return answer(pending, -EBADF);
  const u32 wanted = static_cast<u32>(std::min<u64>(call.a[0], call::max_file_read));
  if (under_way_ > max_under_way) return answer(pending, -EAGAIN);
  if (!reserve(program, pending, chunks_for(wanted))) return;
  const u32 room = static_cast<u32>(pending->chunks.size()) * call::receive_chunk_payload;
  if (room == 0 && wanted > 0) return answer(pending, -EAGAIN);
  const bool there = (call.flags & 1) != 0;
  const auto reading =
      std::make_shared<Reading>(Reading{.pending = pending,
                                        .slot = call.socket,
                                        .generation = call.generation,
                                        .bytes = std::min(wanted, room),
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
  files_->holder().read(
      file->ref, reading->at, reading->bytes, [this, reading](Result<ReadData> result) {
        if (result.is_error()) return answer(reading->pending, code_for_files(result.error().code));
        if (reading->at) keep(*reading, *reading->at, result.value());
        const auto got = result.value().bytes;
        const auto part = got.first(std::min<std::size_t>(got.size(), reading->bytes));
        tell_and_answer(reading->pending, part, static_cast<i32>(part.size()));
      });
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
    const auto part = rest.first(std::min<std::size_t>(rest.size(), reading->bytes));
    tell_and_answer(reading->pending, part, static_cast<i32>(part.size()));
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
  auto& bytes = reading->pending->bytes;
  bytes.resize(reading->bytes);
  const auto got = cache_.copy(program, *lease, *at, bytes);
  if (got.all && holder.advance(file->ref, *at, got.bytes)) {
    cache_.count_served();
    return tell_and_answer(reading->pending, std::span(bytes).first(got.bytes),
                           static_cast<i32>(got.bytes));
  }
  if (got.all || !again) return read_uncached(reading);
  fetch(reading, *lease, *at, [this, reading](const Result<ReadData>& result, u64) {
    if (result.is_error()) return answer(reading->pending, code_for_files(result.error().code));
    read_on(reading, false);
  });
}

}  // namespace cob::kernel
