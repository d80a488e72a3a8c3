// Arena: creation, sealing and chunk allocation; see arena.h. memfd_create(2), fcntl(2)
// F_ADD_SEALS.
#include "kernel/arena.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/memory.h"

namespace cob::kernel {

namespace {

Result<Fd> sized_memfd(const char* name, std::size_t bytes) {
  Fd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return Error::from_errno("memfd_create for an arena");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
    return Error::from_errno("ftruncate of an arena");
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
    return Error::from_errno("sealing an arena");
  return fd;
}

Result<void*> map_writable(FdRef fd, std::size_t bytes) {
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return Error::from_errno("mmap of an arena");
  return at;
}

}  // namespace

Result<void> Arena::make_ours() {
  ours_fd_ = TRY(sized_memfd("cob-kernel-side", sizeof(call::KernelSide)));
  ours_ =
      static_cast<call::KernelSide*>(TRY(map_writable(ours_fd_.ref(), sizeof(call::KernelSide))));
  if (::fcntl(ours_fd_.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) != 0)
    return Error::from_errno("sealing the kernel side of an arena");
  send_held_.resize(call::send_chunks);
  return {};
}

Result<std::unique_ptr<Arena>> Arena::create() {
  std::unique_ptr<Arena> arena(new Arena);
  TRY(arena->make_ours());
  arena->theirs_fd_ = TRY(sized_memfd("cob-program-side", sizeof(call::ProgramSide)));
  arena->theirs_ = static_cast<call::ProgramSide*>(
      TRY(map_writable(arena->theirs_fd_.ref(), sizeof(call::ProgramSide))));
  if (::fcntl(arena->theirs_fd_.get(), F_ADD_SEALS, F_SEAL_SEAL) != 0)
    return Error::from_errno("sealing the program side of an arena");
  return arena;
}

Result<std::unique_ptr<Arena>> Arena::create_for(Fd program_side) {
  TRY(check_memory(program_side.ref(), sizeof(call::ProgramSide), Writers::anyone));
  std::unique_ptr<Arena> arena(new Arena);
  TRY(arena->make_ours());
  arena->theirs_fd_ = std::move(program_side);
  arena->theirs_ = static_cast<call::ProgramSide*>(
      TRY(map_writable(arena->theirs_fd_.ref(), sizeof(call::ProgramSide))));
  return arena;
}

void Arena::restore(std::span<const u32> received, u32 freed_head) {
  memory_->give_received(chunks_held());
  memory_->give_sent(send_chunks_held_);
  send_held_.assign(call::send_chunks, false);
  send_chunks_held_ = 0;
  freed_head_ = freed_head;
  freed_dirty_ = false;
  free_chunks_.clear();
  unused_chunk_ = 0;
  for (const u32 chunk : received) unused_chunk_ = std::max(unused_chunk_, chunk + 1);
  touched_chunks_ = (unused_chunk_ + 1) / 2 * 2;
  std::vector<bool> used(unused_chunk_);
  for (const u32 chunk : received) {
    used[chunk] = true;
    memory_->take_received();
  }
  for (u32 chunk = unused_chunk_; chunk > 0; --chunk)
    if (!used[chunk - 1]) free_chunks_.push_back(chunk - 1);
}

Arena::~Arena() {
  memory_->give_received(chunks_held());
  memory_->give_sent(send_chunks_held_);
  if (ours_ != nullptr) ::munmap(ours_, sizeof(call::KernelSide));
  if (theirs_ != nullptr) ::munmap(theirs_, sizeof(call::ProgramSide));
}

void Arena::populate() {
  auto touch = [](void* at, std::size_t bytes) { ::madvise(at, bytes, MADV_POPULATE_WRITE); };
  constexpr std::size_t page = 4096;
  touch(ours_, offsetof(call::KernelSide, socket) + 2 * page);
  touch(&ours_->socket[call::first_kernel_socket], 2 * page);
  touch(&ours_->names[0], page);
  touch(&ours_->names[call::first_kernel_socket], page);
  touch(&ours_->freed, page);
  touch(&ours_->offer_head[0], page);
  touch(&ours_->offers[0], page);
  touch(&ours_->ready[0], page);
  touch(&ours_->ready[1], page);
  touch(&ours_->chunk[0], std::size_t{64} * call::chunk_bytes);
  touch(theirs_, offsetof(call::ProgramSide, ring) + sizeof(theirs_->ring[0]));
  touch(&theirs_->socket[0], 2 * page);
  touch(&theirs_->socket[call::first_kernel_socket], 2 * page);
  touch(&theirs_->chunk[0], std::size_t{64} * call::chunk_bytes);
}

void Arena::populate_lines(u32 low, u32 high) {
  const auto touch = [](auto* first, u32 count) {
    const auto at = reinterpret_cast<std::uintptr_t>(first) & ~std::uintptr_t{4095};
    const auto end = reinterpret_cast<std::uintptr_t>(first + count);
    if (count > 0) ::madvise(reinterpret_cast<void*>(at), end - at, MADV_POPULATE_WRITE);
  };
  constexpr u32 half = call::first_kernel_socket;
  low = std::min(low, half);
  high = std::min(high, half);
  touch(&ours_->socket[0], low);
  touch(&ours_->names[0], low);
  touch(&ours_->socket[half], high);
  touch(&ours_->names[half], high);
  touch(&theirs_->socket[0], low);
  touch(&theirs_->socket[half], high);
}

// Many pages at once cost the host a quarter of what each costs by itself.
void Arena::touch_chunks() {
  const u32 count = call::chunks_to_touch(touched_chunks_, call::receive_chunks);
  ::madvise(ours_->chunk[touched_chunks_], std::size_t{count} * call::chunk_bytes,
            MADV_POPULATE_WRITE);
  touched_chunks_ += count;
}

u32 Arena::take_chunk() {
  if (free_chunks_.empty() && unused_chunk_ == call::receive_chunks) return call::no_chunk;
  memory_->take_received();
  if (free_chunks_.empty()) {
    if (unused_chunk_ == touched_chunks_) touch_chunks();
    return unused_chunk_++;
  }
  const u32 chunk = free_chunks_.back();
  free_chunks_.pop_back();
  return chunk;
}

void Arena::give_chunk(u32 chunk) {
  memory_->give_received(1);
  free_chunks_.push_back(chunk);
}

std::byte* Arena::chunk_payload(u32 chunk) {
  return reinterpret_cast<std::byte*>(ours_->chunk[chunk]) + sizeof(call::ChunkHeader);
}

call::ChunkHeader& Arena::chunk_header(u32 chunk) {
  return *reinterpret_cast<call::ChunkHeader*>(ours_->chunk[chunk]);
}

bool Arena::claim_send_chunk(u32 chunk) {
  if (chunk >= call::send_chunks || send_held_[chunk]) return false;
  send_held_[chunk] = true;
  ++send_chunks_held_;
  memory_->take_sent();
  return true;
}

void Arena::unclaim_send_chunk(u32 chunk) {
  VERIFY(send_held_[chunk]);
  send_held_[chunk] = false;
  --send_chunks_held_;
  memory_->give_sent(1);
}

const std::byte* Arena::send_chunk(u32 chunk) const {
  return reinterpret_cast<const std::byte*>(theirs_->chunk[chunk]);
}

void Arena::give_send_chunk(u32 chunk) {
  unclaim_send_chunk(chunk);
  // At most send_chunks are held at once, so the ring of that many entries cannot overflow for a
  // program that reads it; one that posts chunks it has not read back only overwrites its own.
  ours_->freed.chunk[freed_head_ % call::send_chunks] = chunk;
  ++freed_head_;
  freed_dirty_ = true;
}

bool Arena::publish_freed() {
  if (!freed_dirty_) return false;
  freed_dirty_ = false;
  publish(ours_->freed_head.head, freed_head_);
  return true;
}

}  // namespace cob::kernel
