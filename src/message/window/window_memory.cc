// Making, sealing and mapping a window's memfd.
// See window_memory.h. Any thread.
#include "message/window/window_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace cob::message {
namespace {

constexpr int size_seals = F_SEAL_SHRINK | F_SEAL_GROW;
constexpr int right_seals = size_seals | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL;

struct Both {
  Mapping mine, theirs;
};

// Half the file's size, if it has the seals.
Result<u64> half_of(FdRef memory, int seals) {
  const int have = ::fcntl(memory.get(), F_GET_SEALS);
  if (have < 0 || (have & seals) != seals) return Error::of(EPERM, "window memory lacks its seals");
  struct stat status{};
  if (::fstat(memory.get(), &status) != 0) return Error::from_errno("fstat of a window's memory");
  const u64 half = static_cast<u64>(status.st_size) / 2;
  if (half == 0 || half % 4'096 != 0) return Error::of(EMSGSIZE, "window memory of no whole pages");
  return half;
}

}  // namespace

Result<Fd> create_window_memory(u64 half_bytes) {
  if (half_bytes == 0 || half_bytes % 4'096 != 0)
    return Error::of(EINVAL, "a window's half is whole pages");
  Fd memory(::memfd_create("cob-window", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid()) return Error::from_errno("memfd_create");
  if (::ftruncate(memory.get(), static_cast<off_t>(2 * half_bytes)) != 0)
    return Error::from_errno("ftruncate of a window's memory");
  if (::fcntl(memory.get(), F_ADD_SEALS, size_seals) != 0) return Error::from_errno("F_ADD_SEALS");
  return memory;
}

Result<Mapping> map_their_half(FdRef memory, WindowSide side) {
  const u64 half = TRY(half_of(memory, size_seals));
  return Mapping::map(memory, half, Access::read_write, side == WindowSide::first ? half : 0);
}

Result<void> seal_window_memory(FdRef memory) {
  if (::fcntl(memory.get(), F_ADD_SEALS, right_seals) != 0) return Error::from_errno("F_ADD_SEALS");
  return {};
}

Result<Mapping> map_own_half(FdRef memory, WindowSide side) {
  const u64 half = TRY(half_of(memory, right_seals));
  return Mapping::map(memory, half, Access::read, side == WindowSide::first ? 0 : half);
}

WindowEnds window_ends(Mapping mine, Mapping theirs) {
  auto both = std::make_shared<Both>(std::move(mine), std::move(theirs));
  return {.mine = both->mine.bytes(),
          .theirs = both->theirs.bytes(),
          .hold = both,
          .ring = {},
          .bell = {}};
}

Result<std::array<WindowEnds, 2>> make_window_pair(u64 half_bytes) {
  const Fd memory = TRY(create_window_memory(half_bytes));
  Mapping of_second = TRY(map_their_half(memory.ref(), WindowSide::first));
  Mapping of_first = TRY(map_their_half(memory.ref(), WindowSide::second));
  TRY(seal_window_memory(memory.ref()));
  std::array<WindowEnds, 2> ends{
      window_ends(TRY(map_own_half(memory.ref(), WindowSide::first)), std::move(of_second)),
      window_ends(TRY(map_own_half(memory.ref(), WindowSide::second)), std::move(of_first))};
  for (std::size_t i = 0; i < 2; ++i) {
    Doorbell doorbell = TRY(make_doorbell());
    ends[i].bell = std::move(doorbell.bell);
    ends[1 - i].ring = [button = std::move(doorbell.button)] { cob::ring(button.ref()); };
  }
  return ends;
}

}  // namespace cob::message
