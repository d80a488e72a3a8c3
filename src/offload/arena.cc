// The shared memory of arena.h. The host looks for an address that is free in most processes, so
// that the island finds it free too; whoever cannot have it takes any, and says so. mmap(2).
#include "offload/arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>

namespace cob::offload {

namespace {

constexpr u64 page = message::ExtentAllocator::page;
// Behind what the linker, the heap and the sanitizers take, before what mmap(2) gives first.
constexpr std::array<u64, 4> addresses{u64{0x2000} << 32, u64{0x2800} << 32, u64{0x3000} << 32,
                                       u64{0x3800} << 32};
constexpr u64 pages(u64 bytes) { return (bytes + page - 1) / page * page; }

void* map_at(FdRef fd, u64 bytes, u64 address) {
  void* data =
      ::mmap(reinterpret_cast<void*>(address), bytes, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_NORESERVE | (address != 0 ? MAP_FIXED_NOREPLACE : 0), fd.get(), 0);
  if (data == MAP_FAILED) return nullptr;
  if (address != 0 && data != reinterpret_cast<void*>(address)) {  // Linux before 4.17: a hint
    ::munmap(data, bytes);
    return nullptr;
  }
  return data;
}

}  // namespace

Result<Arena> Arena::map(FdRef fd, u64 bytes, u64 address) {
  Arena arena;
  void* data = address != 0 ? map_at(fd, bytes, address) : nullptr;
  if (data == nullptr) data = map_at(fd, bytes, 0);
  if (data == nullptr) return Error::from_errno("mapping an arena");
  ::madvise(data, bytes, MADV_HUGEPAGE);  // where the system lets shared memory have them
  ::madvise(data, bytes, MADV_DONTFORK);
  arena.data_ = static_cast<std::byte*>(data);
  arena.bytes_ = bytes;
  return arena;
}

Result<Arena> Arena::create(u64 bytes) {
  bytes = pages(bytes);
  if (bytes <= arena_head_bytes || bytes > max_arena_bytes)
    return Error::of(EINVAL, "an arena has 8 KiB to 1 TiB");
  Fd fd(::memfd_create("cob-offload", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return Error::from_errno("memfd_create");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
    return Error::from_errno("sizing an arena");
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return Error::from_errno("sealing an arena");
  for (const u64 address : addresses) {
    void* data = map_at(fd.ref(), bytes, address);
    if (data == nullptr) continue;
    ::munmap(data, bytes);
    Arena arena = TRY(map(fd.ref(), bytes, address));
    arena.fd_ = std::move(fd);
    arena.extents_.emplace(bytes - arena_head_bytes);
    return arena;
  }
  Arena arena = TRY(map(fd.ref(), bytes, 0));
  arena.fd_ = std::move(fd);
  arena.extents_.emplace(bytes - arena_head_bytes);
  return arena;
}

Result<Arena> Arena::open(FdRef fd, u64 bytes, u64 address) {
  if (bytes <= arena_head_bytes || bytes > max_arena_bytes || bytes % page != 0)
    return Error::of(EINVAL, "an arena has 8 KiB to 1 TiB, in whole pages");
  TRY(check_memory(fd, bytes, Writers::anyone));
  // A peer names the address: it must be one of those that nothing of ours lives at.
  for (const u64 known : addresses)
    if (address == known) return map(fd, bytes, address);
  return map(fd, bytes, 0);
}

Arena& Arena::operator=(Arena&& other) noexcept {
  if (this == &other) return *this;
  reset();
  fd_ = std::move(other.fd_);
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  extents_ = std::move(other.extents_);
  return *this;
}

void Arena::reset() {
  if (data_ != nullptr) ::munmap(std::exchange(data_, nullptr), bytes_);
}

Result<u64> Arena::allocate(u64 bytes) {
  VERIFY(extents_.has_value() && bytes > 0);
  if (bytes > bytes_) return Error::of(ENOMEM, "the arena is smaller");
  const u64 offset = extents_->allocate(pages(bytes));
  if (offset == message::ExtentAllocator::none) return Error::of(ENOMEM, "the arena is full");
  return arena_head_bytes + offset;
}

void Arena::free(u64 offset, u64 bytes) { extents_->free(offset - arena_head_bytes, pages(bytes)); }

}  // namespace cob::offload
