// Lock and Locked (types 66, 67): flock(2), and record locks of fcntl(2), of a description that is
// held from another kernel. docs/descriptors.md, 4.
// Model: a lock that may wait is a request that is answered when it is had, or was cancelled by its
// number. Values; flat structs.
#pragma once

#include "descriptor/lock_table.h"
#include "descriptor/protocol.h"

namespace cob::descriptor {

enum class LockCall : u8 {
  set = 0,     // EAGAIN rather than wait; LockMode::none: unlock
  wait = 1,    // answered when it is had
  test = 2,    // F_GETLK: what is in its way, mode none: nothing
  cancel = 3,  // of the asker's wait `wait`, which is answered EINTR unless it is had already
  close = 4,   // the program `owner` has closed the file: its POSIX locks there are gone
  give = 5,  // its POSIX locks there are the program's `wait` of kernel `first`, which holds it too
};
constexpr bool known(LockCall call) { return call <= LockCall::give; }

// Errors beside the host's: ENOENT, the asker does not hold it; EAGAIN; EDEADLK; EINTR, cancelled;
// EBADF, it is not open for that; ENOLCK, no room for more; EINVAL, not a file that has locks;
// EPROTO, no such request.
struct Lock {
  static constexpr message::MessageType type{66};
  HandleField handle;
  message::le<u64> first;
  message::le<u64> last;   // inclusive; max_lock_offset: however far the file grows
  message::le<u32> owner;  // of a POSIX lock: the program's number at its kernel
  message::le<u32> wait;   // of wait and cancel: the asker's number for it, not 0
  message::le<u32> pid;    // what F_GETLK tells others
  message::le<LockKind> kind;
  message::le<LockMode> mode;
  message::le<LockCall> call;
  message::le<u8> reserved;
};
struct Locked {
  static constexpr message::MessageType type{67};
  message::le<u64> first;  // of test
  message::le<u64> last;
  message::le<u32> pid;  // 0xffffffff: of an open description
  message::le<LockMode> mode;
  message::le<u8> reserved_a;
  message::le<u16> reserved_b;
};
inline constexpr u32 no_pid = 0xffff'ffff;

static_assert(message::FlatMessage<Lock> && message::FlatMessage<Locked>);

}  // namespace cob::descriptor
