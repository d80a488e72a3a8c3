// The machine that an added island runs on: QEMU's, with the image of its architecture. Model: one
// process, which dies with this one; full emulation where the host's KVM does not do; its network
// reaches nothing but one forwarded port of 127.0.0.1, its console is the cob's log. qemu(1).
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/types.h"

namespace cob::island {

struct MachinePlan {
  std::string architecture;  // Debian's name
  std::string image;         // folder with `kernel` and `initramfs`
  u32 memory_mib = 512;
  u32 processors = 1;
};

// An architecture that there can be guests of.
struct Architecture {
  const char* name;                // Debian's
  unsigned elf_machine;            // elf(5)
  const char* machine;             // uname -m, and the cross compiler's
  const char* emulator;            // QEMU's program
  const char* package;             // that has it
  std::vector<const char*> board;  // QEMU's words for the machine, without a processor
  const char* processor;           // where there is no KVM
  const char* console;
};
// nullptr: unknown.
const Architecture* find_architecture(const std::string& name);
std::string architecture_names();

struct Machine {
  pid_t process = 0;
  Fd pidfd;
  Fd channel;    // to the agent
  u16 port = 0;  // of 127.0.0.1: forwarded to the same of the guest
};
// ENOENT: there is no such emulator.
Result<Machine> start_machine(const MachinePlan& plan);

}  // namespace cob::island
