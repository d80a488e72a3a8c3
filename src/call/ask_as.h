// As whom a program asks other islands for files when it asks for somebody else, as a server of
// files does (src/mount). Model: said for the calling thread, to libcob.so, by functions found with
// dlsym(3); without the shim there are none. What they say goes along with each call by name
// (FileAsk, layout.h). Values.
#pragma once

#include <sys/stat.h>

#include "call/layout.h"

namespace cob::call {

struct AskAs {
  bool others;  // uid, gid and pid are told; else the program asks as itself. A superuser's alone
  u32 uid, gid;
  u32 pid;    // of the thread whose supplementary groups count; 0: there are none
  u32 umask;  // in the place of the program's own
};

// nullptr: as the program, from now on. Until then no path that leads out of its share is followed:
// EXDEV.
using AskAsFunction = void (*)(const AskAs* whom);
inline constexpr char ask_as_name[] = "cob_ask_as";
// The status, as of its opening, of what this thread opened last. REQUIRES: that is a file of
// another island.
using OpenedStatusFunction = void (*)(struct statx* status);
inline constexpr char opened_status_name[] = "cob_opened_status";

}  // namespace cob::call
