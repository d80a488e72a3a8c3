// The two memories of a window between kernels of one machine: halves of one memfd, each written by
// one side only. Model: each side maps the other's half for writing, then the file is sealed and
// its own half mapped: the host refuses every later writable mapping, so one-sidedness is not a
// promise. fcntl(2) F_SEAL_FUTURE_WRITE. Any thread.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>

#include "base/doorbell.h"
#include "base/memory.h"
#include "message/window/window_layout.h"

namespace cob::message {

// What a window transport works on: one side's view of the two memories, wherever they lie.
struct WindowEnds {
  std::span<const std::byte> mine;       // written by the peer; whole pages
  std::span<std::byte> theirs;           // the peer's, never read here; of the size of its `mine`
  std::shared_ptr<const void> hold;      // keeps both mapped
  std::move_only_function<void()> ring;  // wakes the peer after what was stored before; or none
  Fd bell;                               // wakes us, to be watched edge-triggered; or none
};

enum class WindowSide : u8 { first, second };  // the first one's own half is the first

// A memfd of two halves of `half_bytes`, whole pages, sealed in size.
Result<Fd> create_window_memory(u64 half_bytes);
// The other side's half, for writing. EPERM after seal_window_memory() and if the size may change.
Result<Mapping> map_their_half(FdRef memory, WindowSide side);
// Once both sides have mapped the other's half: no further writers, ever.
Result<void> seal_window_memory(FdRef memory);
// The own half, read-only for good. EPERM before seal_window_memory().
Result<Mapping> map_own_half(FdRef memory, WindowSide side);

// As ends; the bell and what rings the peer are the caller's to add.
WindowEnds window_ends(Mapping mine, Mapping theirs);

// Both sides within one process, with doorbells.
Result<std::array<WindowEnds, 2>> make_window_pair(u64 half_bytes);

}  // namespace cob::message
