// The capture ring's two ends. See capture_ring.h; memfd_create(2), madvise(2).
// Model: positions only grow; a place is its position modulo the ring's size. Each end keeps its
// own numbers and copies the other's once.
// The writer belongs to the kernel's loop, the reader to the command's thread.
#include "net/snap_bean/capture_ring.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace cob::net {
namespace {

constexpr u64 padded(u64 bytes) { return (bytes + 7) & ~u64{7}; }

}  // namespace

Result<CaptureWriter> CaptureWriter::create(u32 ring_bytes) {
  CaptureWriter writer;
  writer.size_ = std::bit_ceil(std::clamp(ring_bytes, capture_min_bytes, capture_max_bytes));
  writer.ring_ =
      TRY(create_memory("cob-capture", capture_page_bytes + writer.size_, Writers::creator));
  writer.progress_ = TRY(create_memory("cob-capture-read", capture_page_bytes, Writers::anyone));
  new (writer.ring_.mapping.data()) CaptureHeader{.ring_bytes = static_cast<u32>(writer.size_)};
  return writer;
}

void CaptureWriter::put_bytes(u64 position, std::span<const std::byte> bytes) const {
  std::memcpy(ring_.mapping.data() + capture_page_bytes + position % size_, bytes.data(),
              bytes.size());
}

void CaptureWriter::put(const CaptureRecord& record, std::span<const std::byte> frame) {
  const u64 whole = sizeof(CaptureRecord) + padded(record.captured);
  const u64 to_end = size_ - written_ % size_;
  const u64 skipped = whole <= to_end ? 0 : to_end;
  const auto* progress = reinterpret_cast<const CaptureProgress*>(progress_.mapping.data());
  // A position that the reader cannot have leaves no room.
  const u64 unread = written_ - __atomic_load_n(&progress->read, __ATOMIC_ACQUIRE);
  if (unread > size_ || size_ - unread < skipped + whole) {
    ++dropped_;
    return;
  }
  if (skipped != 0) {
    const u32 skip = CaptureRecord::skip;
    put_bytes(written_, std::as_bytes(std::span(&skip, 1)));
    written_ += skipped;
  }
  put_bytes(written_, std::as_bytes(std::span(&record, 1)));
  put_bytes(written_ + sizeof(CaptureRecord), frame.first(record.captured));
  written_ += whole;
  ++records_;
}

void CaptureWriter::publish() {
  CaptureHeader& h = header();
  __atomic_store_n(&h.dropped, dropped_, __ATOMIC_RELAXED);
  if (published_ == written_) return;
  published_ = written_;
  __atomic_store_n(&h.records, records_, __ATOMIC_RELAXED);
  __atomic_store_n(&h.written, written_, __ATOMIC_RELEASE);
}

Result<CaptureReader> CaptureReader::open(FdRef ring, FdRef progress) {
  struct stat status{};
  if (::fstat(ring.get(), &status) != 0) return Error::from_errno("fstat of a capture's memory");
  const auto bytes = static_cast<u64>(status.st_size);
  const u64 size = bytes - capture_page_bytes;
  if (bytes < capture_page_bytes + capture_min_bytes || size > capture_max_bytes ||
      !std::has_single_bit(size))
    return Error::of(EPROTO, "the size of a capture's memory");
  Mapping ring_mapping = TRY(map_foreign(ring, bytes, Writers::creator, Access::read));
  Mapping own = TRY(map_foreign(progress, capture_page_bytes, Writers::anyone, Access::read_write));
  // The pages come now, by the reader's time and not at the writer's first frames.
  (void)::madvise(ring_mapping.data(), bytes, MADV_POPULATE_READ);
  CaptureReader reader(ring_mapping.bytes(), reinterpret_cast<CaptureProgress*>(own.data()));
  reader.ring_ = std::move(ring_mapping);
  reader.progress_page_ = std::move(own);
  const CaptureHeader& h = reader.header();
  if (__atomic_load_n(&h.magic, __ATOMIC_RELAXED) != capture_magic ||
      __atomic_load_n(&h.ring_bytes, __ATOMIC_RELAXED) != size)
    return Error::of(EPROTO, "the head of a capture's memory");
  return reader;
}

CaptureReader::CaptureReader(std::span<std::byte> ring, CaptureProgress* progress)
    : bytes_(ring), progress_(progress), size_(ring.size() - capture_page_bytes) {}

std::span<const std::byte> CaptureReader::at(u64 position, u64 bytes) const {
  return bytes_.subspan(capture_page_bytes + position % size_, bytes);
}

CaptureReader::Outcome CaptureReader::take(Frame& out) {
  if (faulted_) return Outcome::fault;
  const u64 written = __atomic_load_n(&header().written, __ATOMIC_ACQUIRE);
  while (read_ != written) {
    const u64 there = written - read_;
    const u64 to_end = size_ - read_ % size_;
    u32 captured = 0;
    if (there > size_ || read_ % 8 != 0 || there < sizeof captured) break;
    std::memcpy(&captured, at(read_, sizeof captured).data(), sizeof captured);
    asm volatile("" ::: "memory");  // judged on the copy
    if (captured == CaptureRecord::skip) {
      if (there < to_end) break;
      read_ += to_end;
      continue;
    }
    const u64 whole = sizeof(CaptureRecord) + padded(captured);
    if (captured > capture_max_snap || whole > there || whole > to_end) break;
    std::memcpy(&out.record, at(read_, sizeof(CaptureRecord)).data(), sizeof(CaptureRecord));
    out.record.captured = captured;
    out.record.original = std::max(out.record.original, captured);
    const auto bytes = at(read_ + sizeof(CaptureRecord), captured);
    out.bytes.assign(bytes.begin(), bytes.end());
    read_ += whole;
    return Outcome::frame;
  }
  if (read_ == written) return Outcome::nothing;
  faulted_ = true;
  return Outcome::fault;
}

void CaptureReader::release() { __atomic_store_n(&progress_->read, read_, __ATOMIC_RELEASE); }

u64 CaptureReader::dropped() const { return __atomic_load_n(&header().dropped, __ATOMIC_RELAXED); }

}  // namespace cob::net
