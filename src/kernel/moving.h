// What two kernels say to each other while a program moves from one to the other, and what each
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
  offer = 1,  // old -> new. + {image, what the program writes, liveness socket, doorbell};
              // bytes: its pid, text: its command
  buttons,    // old -> new. + {buttons of threads}; thread[i]: whose
  ready,      // new -> old: the memory is there
  image,      // old -> new: `bytes` of the image are written; the program stands still
  accepted,   // new -> old: it will do. From when this is read the program is the new kernel's
  go,         // old -> new: it is yours
  done,       // new -> old: it runs here
  refused,    // new -> old: error, text: why
};

inline constexpr u32 buttons_a_word = 64;

struct MoveWord {
  u32 step = 0;
  i32 error = 0;
  u64 bytes = 0;
  u32 count = 0;
  u32 reserved = 0;
  char text[104] = {};
  u16 thread[buttons_a_word] = {};
};

// Kernel -> the command, once: how it ended.
struct MoveReport {
  i32 error = 0;  // 0: it has moved
  u32 connections = 0;
  i64 pause_ns = 0;  // from the last call that the old kernel ran until the new one runs them
  char text[240] = {};
};

// On the kernel that it leaves.
struct Departure {
  enum class Phase : u8 { offered, ready, frozen, gone };
  u32 move = 0;
  u32 program = 0;
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

// On the kernel that it comes to.
struct Arrival {
  u32 move = 0;
  KernelId from;
  Fd channel;
  u32 pid = 0;
  std::string command;
  Mapping image;
  Fd liveness, doorbell;
  struct Button {
    u32 thread;
    Fd fd;
  };
  std::vector<Button> buttons;
  std::unique_ptr<Arena> arena;
  std::optional<MovedProgram> program;
  Time deadline;  // begins with the first turn
  bool over = false;
};

// How long a departure waits for each of the other kernel's words, and for what the program has
// under way to end; an arrival for all of it.
inline constexpr Duration move_patience = Duration::seconds(2),
                          arrival_patience = Duration::seconds(6);
inline constexpr std::size_t max_arrivals = 8;  // reaction when full: refused

}  // namespace cob::kernel
