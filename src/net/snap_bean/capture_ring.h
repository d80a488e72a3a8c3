// The memory through which a kernel hands copies of frames to a capture: a page of counters, then a
// ring of bytes with records of 8-byte grain.
// Model: one writer (a kernel), one reader (a command), who trust each other with nothing. The ring
// is sealed against the reader's writing; how far it has read lies in memory of its own, and a lie
// there costs the reader alone. Full: the record is dropped and counted; the writer never waits.
//   ring   = record* ; a record never wraps: a `skip` record fills the rest up to the end
//   record = CaptureRecord, bytes, padding to 8
// The writer belongs to the kernel's loop, the reader to the command's thread.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/types.h"

namespace cob::net {

inline constexpr u32 capture_magic = 0x63617074;
inline constexpr u32 capture_page_bytes = 4'096;
inline constexpr u32 capture_min_bytes = 256 * 1024, capture_max_bytes = 64 * 1024 * 1024;
inline constexpr u32 capture_max_snap = 128 * 1024;  // more than any frame

struct CaptureHeader {
  u32 magic = capture_magic;
  u32 ring_bytes = 0;           // a power of two
  alignas(64) u64 written = 0;  // position behind the last whole record; only grows
  u64 records = 0;              // in the ring so far
  u64 dropped = 0;              // the ring was full
};
static_assert(sizeof(CaptureHeader) <= capture_page_bytes);

// The reader's own page.
struct CaptureProgress {
  u64 read = 0;  // position
};

struct CaptureRecord {
  static constexpr u32 skip = 0xffff'ffff;
  u32 captured = 0;  // bytes that follow; skip: the rest of the ring is unused
  u32 original = 0;  // bytes of the frame
  i64 time_ns = 0;   // CLOCK_BOOTTIME
  u16 peer = 0;      // the kernel at the other end; Route::uplink_id: outside
  u8 outgoing = 0;   // 1: sent by this kernel
  u8 checksum_not_computed = 0;
  u32 reserved = 0;
};
static_assert(sizeof(CaptureRecord) == 24);

class CaptureWriter {
 public:
  // `ring_bytes`: rounded up to a power of two, within capture_min_bytes and capture_max_bytes.
  static Result<CaptureWriter> create(u32 ring_bytes);

  // The first `record.captured` bytes of `frame` are copied behind the record. Invisible before
  // publish().
  void put(const CaptureRecord& record, std::span<const std::byte> frame);
  void publish();

  // To hand over: the ring, read-only for whoever gets it; the reader's page.
  FdRef ring() const { return ring_.fd.ref(); }
  FdRef progress() const { return progress_.fd.ref(); }

 private:
  CaptureWriter() = default;
  CaptureHeader& header() const { return *reinterpret_cast<CaptureHeader*>(ring_.mapping.data()); }
  void put_bytes(u64 position, std::span<const std::byte> bytes) const;

  SharedMemory ring_, progress_;
  u64 size_ = 0;  // of the ring; the writer believes its own numbers only
  u64 written_ = 0, published_ = 0, records_ = 0, dropped_ = 0;
};

class CaptureReader {
 public:
  struct Frame {
    CaptureRecord record;
    std::vector<std::byte> bytes;
  };
  enum class Outcome : u8 { frame, nothing, fault };

  // EPERM, EPROTO: not the memory of a writer.
  static Result<CaptureReader> open(FdRef ring, FdRef progress);

  // The next frame. `fault`: the writer breaks the format; nothing of it is believed from then on.
  Outcome take(Frame& out);
  // What was taken may be overwritten.
  void release();
  u64 dropped() const;

  // For a mapping made elsewhere, whose `ring` begins with the header's page.
  CaptureReader(std::span<std::byte> ring, CaptureProgress* progress);

 private:
  const CaptureHeader& header() const {
    return *reinterpret_cast<const CaptureHeader*>(bytes_.data());
  }
  std::span<const std::byte> at(u64 position, u64 bytes) const;

  Mapping ring_, progress_page_;
  std::span<std::byte> bytes_;
  CaptureProgress* progress_ = nullptr;
  u64 size_ = 0;
  u64 read_ = 0;
  bool faulted_ = false;
};

}  // namespace cob::net
