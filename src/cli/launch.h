// What a process does to become a program of the cob, once the supervisor has given it a kernel
// ({"do":"attach"}, requests.cc). Throws Failure. The process's only thread.
#pragma once

#include <string>

#include "cli/control_client.h"

namespace cob::cli {

// `cob run --spread`: what the program forks; --spread-threads: its threads.
struct Spreading {
  bool children = false, threads = false;
};

// To the core of its kernel. REQUIRES: `attached` is the supervisor's answer.
void move_to_core(const ControlReply& attached);
// The descriptors and variables that libcob.so, `shim`, looks for. `adopts`: something was handed
// over to the program.
void enter_cob(ControlReply& attached, const std::string& shim, bool adopts, Spreading spread);
// Within a cob (`cob run -- bash`, then `cob run -k 1 -- PROGRAM`) this process has a shim of its
// own, whose exec would put its kernel in place of the one just chosen: the C library's own execve
// is asked for by name.
int host_execve(const char* path, char* const* arguments);

}  // namespace cob::cli
