// What two kernels say to each other while programs move from one to the other, and what each
// keeps of it meanwhile; docs/moving.md.
// Model: the supervisor joins them by a socket of their own, the *channel*; its end is the other
// one's. Kernel's loop only.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/memory.h"
#include "kernel/departures.h"
#include "kernel/moved_program.h"

namespace cob::kernel {

enum class MoveStep : u32 {
  offer = 1,  // old -> new. + {image}; count: programs, bytes: likely of the image
  program,    // old -> new, one each. + {liveness socket} or, if it has attached, {liveness socket,
              // what it writes, doorbell}; bytes: its pid, text: its command, slots: lines
  buttons,    // old -> new. + {buttons of threads}; bytes: the program's number, thread[i]: whose
  ready,      // new -> old: the memory is there
  image,      // old -> new: `bytes` of the image are written; the programs stand still
  accepted,   // new -> old: it will do. From when this is read the program is the new kernel's
  go,         // old -> new: it is yours
  done,       // new -> old: they run here, since the time that `bytes` says
  refused,    // new -> old: error, text: why
};

inline constexpr u32 buttons_a_word = 64;

struct MoveWord {
  u32 step = 0;
  i32 error = 0;
  u64 bytes = 0;
  u32 count = 0;
  u16 low_slots = 0, high_slots = 0;
  char text[104] = {};
  u16 thread[buttons_a_word] = {};
};

// Kernel -> the command, once: how it ended.
struct MoveReport {
  i32 error = 0;  // 0: it has moved
  u32 connections = 0;
  i64 paused_at_ns = 0;  // the clock of all processes (base/clock.h)
  i64 pause_ns = 0;      // from the last call that the old kernel ran until the new one runs them
  char text[240] = {};
  u32 programs = 0;  // that moved; 0 stands for a child that has made no call yet
  u32 pid[max_moved_programs] = {};
};

// On the kernel that it leaves.
struct Departure {
  enum class Phase : u8 { offered, ready, frozen, gone };
  u32 move = 0;
  std::vector<u32> programs;   // the one that was named first
  std::vector<bool> attached;  // of each, when it was offered
  std::vector<u32> pids;       // once they have left
  KernelId target;
  Fd channel, report;
  SharedMemory image;
  std::size_t image_bytes = 0;
  std::vector<MovedEnd> ends;
  Phase phase = Phase::offered;
  Time deadline;  // begins with the first turn
  Time frozen_at;
  Error last_refusal;
};

// A program that comes.
struct Arriving {
  u32 pid = 0;
  std::string command;
  Fd liveness, doorbell;
  struct Button {
    u32 thread;
    Fd fd;
  };
  std::vector<Button> buttons;
  std::unique_ptr<Arena> arena;  // none: it has not attached
};

// On the kernel that they come to.
struct Arrival {
  u32 move = 0;
  KernelId from;
  Fd channel;
  u32 expected = 0;  // programs; 0: no offer yet
  std::vector<Arriving> programs;
  Mapping image;
  std::vector<std::byte> copy;  // of it: room, until it is written
  std::optional<MovedGroup> group;
  Time deadline;  // begins with the first turn
  bool over = false;
};

// How long a departure waits for each of the other kernel's words, and for what the program has
// under way to end; an arrival for all of it.
inline constexpr Duration move_patience = Duration::seconds(2),
                          arrival_patience = Duration::seconds(6);
// A kernel that waits for the other's next word keeps its core and looks, for so long.
inline constexpr Duration move_hurry = Duration::microseconds(300);
// What is touched beforehand at most; larger images are written at the pages' own pace.
inline constexpr std::size_t most_touched_bytes = std::size_t{4} << 20;
inline constexpr std::size_t max_arrivals = 8;  // reaction when full: refused

// move_channel.cc. Never blocking.
Result<void> say(FdRef channel, MoveStep step, u64 bytes = 0);
void refuse(FdRef channel, const Error& why);
struct HeardWord {
  MoveWord word;
  std::vector<Fd> descriptors;
};
// EAGAIN: nothing; ECONNRESET: the other kernel has ended, or given up.
Result<HeardWord> hear(FdRef channel);

}  // namespace cob::kernel
