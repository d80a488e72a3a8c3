// What `cob run` and an added island's agent say to each other about one program, a datagram each
// (channel.h, StreamKind::run). Model: the command says what to start; the agent makes a process
// and tells its number, so that the descriptors can be passed to it; the command says which numbers
// are what; the agent executes the program. The command's hang-up ends the program (SIGHUP). Flat
// structs in the byte order of both. Values.
#pragma once

#include "base/types.h"

namespace cob::island {

enum class RunKind : u32 {
  // command -> agent
  text = 1,  // RunText, and bytes of what `start` describes
  start,     // RunStart
  numbers,   // RunNumbers; one of them is the last
  signal,    // RunWord: for the program's process group
  // agent -> command
  ready,    // RunWord: the process
  running,  // RunWord: it executes the program
  failed,   // RunWord: an errno: it cannot
  ended,    // RunWord: how, as wait(2) has it
  lost,     // RunWord: the working directory is not there; the program is in the root
};

inline constexpr u32 most_text_bytes = 4u << 20;
inline constexpr u32 text_piece_bytes = 32 * 1'024;
struct RunText {
  u32 kind = static_cast<u32>(RunKind::text);
  u32 bytes = 0;
};

// The text is the working directory, the arguments and the environment, each ended by a zero.
inline constexpr u32 most_groups = 64;
struct RunStart {
  u32 kind = static_cast<u32>(RunKind::start);
  u32 arguments = 0;
  u32 variables = 0;
  u32 user = 0, group = 0;
  u32 umask = 0;
  u32 groups = 0;
  u32 spread = 0;
  u32 group_list[most_groups] = {};
};

// A number that is open there: a placeholder of that name, the same for all numbers of one
// description; without a name one of the memory devices (null(4)), by its minor number.
struct RunNumber {
  i32 number = 0;
  u32 device = 0;
  u64 name = 0;
};
inline constexpr u32 most_run_numbers = 64;
struct RunNumbers {
  u32 kind = static_cast<u32>(RunKind::numbers);
  u16 count = 0;
  u16 last = 0;
  RunNumber number[most_run_numbers] = {};
};

struct RunWord {
  u32 kind = 0;
  u32 value = 0;
};

}  // namespace cob::island
