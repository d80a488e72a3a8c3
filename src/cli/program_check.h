// Which file a command names, and whether the shim can serve it: a dynamically linked program of
// this machine's ISA and C library that is not started in secure mode. Scripts are followed to
// their interpreters as the kernel does (execve(2), elf(5)). Pure reading; any thread.
#pragma once

#include <string>
#include <vector>

namespace cob::cli {

// As execvp(3) searches; Failure{127} when there is none, Failure{126} when there is one that
// cannot be executed.
std::string find_program(const std::string& name);

// Throws Failure{126} with the reason when libcob.so could not be loaded into the program at
// `path`.
void check_program(const std::string& path);

// An ELF machine number's name.
std::string machine_name(unsigned machine);

}  // namespace cob::cli
