// Arena: the kernel's end of the shared memory with one program (src/call/layout.h), and its
// receive-chunk allocator. Model: the kernel side is sealed against other writers; the program side
// is hostile memory, read once and checked. Owned by one Program; outlives it until the last send
// chunk has left (retain/release). Kernel's loop only.
#pragma once

#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/types.h"
#include "call/layout.h"
#include "kernel/buffer_memory.h"

namespace cob::kernel {

class Arena {
 public:
  static Result<std::unique_ptr<Arena>> create();
  // For a program that comes from another kernel, with what it writes. EPERM, EMSGSIZE: that is not
  // such memory.
  static Result<std::unique_ptr<Arena>> create_for(Fd program_side);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  call::KernelSide& ours() { return *ours_; }
  call::ProgramSide& theirs() { return *theirs_; }
  const call::ProgramSide& theirs() const { return *theirs_; }
  FdRef ours_fd() const { return ours_fd_.ref(); }
  FdRef theirs_fd() const { return theirs_fd_.ref(); }
  // Counts what it holds in `memory`. REQUIRES: it holds nothing yet.
  void count_in(std::shared_ptr<BufferMemory> memory) { memory_ = std::move(memory); }
  const BufferMemory& memory() const { return *memory_; }
  // Once the program has its own. What the program writes another kernel may be given yet.
  void close_descriptors() { ours_fd_.reset(); }

  // Touches the pages that every program uses first, so that its first connections do not.
  void populate();
  // Likewise those of so many lines of each numbering, for a program that has them already.
  void populate_lines(u32 low, u32 high);

  // A receive chunk, or call::no_chunk when all are in use.
  u32 take_chunk();
  void give_chunk(u32 chunk);
  u32 chunks_held() const { return unused_chunk_ - static_cast<u32>(free_chunks_.size()); }
  // How many one socket may hold at present: an eighth of what is free here and in the kernel
  // (buffer_memory.h).
  u32 fair_share() const {
    return std::min(call::receive_chunks - chunks_held(), memory_->left()) / 8;
  }
  std::byte* chunk_payload(u32 chunk);
  call::ChunkHeader& chunk_header(u32 chunk);

  // Send chunks: a chunk is the kernel's from the `send` that names it until give_send_chunk.
  // claim_send_chunk: false if the program named one that it had already given (a fault) or that
  // does not exist.
  bool claim_send_chunk(u32 chunk);
  void unclaim_send_chunk(u32 chunk);  // as if it had not been claimed
  const std::byte* send_chunk(u32 chunk) const;
  void give_send_chunk(u32 chunk);
  u32 send_chunks_held() const { return send_chunks_held_; }
  // It holds these receive chunks and no others, and no send chunks. REQUIRES: each once, and in
  // range.
  void restore(std::span<const u32> received, u32 freed_head);
  u32 freed_head() const { return freed_head_; }
  // Makes the chunks given back since the last call visible.
  bool publish_freed();  // false: there was none

 private:
  Arena() = default;
  void touch_chunks();
  Result<void> make_ours();

  Fd ours_fd_, theirs_fd_;
  call::KernelSide* ours_ = nullptr;
  call::ProgramSide* theirs_ = nullptr;
  std::shared_ptr<BufferMemory> memory_ = std::make_shared<BufferMemory>();
  std::vector<u32> free_chunks_;
  u32 unused_chunk_ = 0;    // chunks from here on were never taken
  u32 touched_chunks_ = 0;  // not below unused_chunk_
  std::vector<bool> send_held_;
  u32 send_chunks_held_ = 0;
  u32 freed_head_ = 0;
  bool freed_dirty_ = false;
};

// Pages of either side, each field of hostile memory read exactly once.
template <typename T>
T load(const T& word) {
  T value;
  __atomic_load(&word, &value, __ATOMIC_ACQUIRE);
  return value;
}
template <typename T>
void publish(T& word, std::type_identity_t<T> value) {
  __atomic_store(&word, &value, __ATOMIC_RELEASE);
}

}  // namespace cob::kernel
