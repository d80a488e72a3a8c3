// Where the parts of cob lie: beside the executable (a build tree) or in ../libexec/cob and
// ../lib/cob (installed). $COB_LIBEXEC (a directory) and $COB_SHIM_PATH (a file) override. Throws
// Failure{exit_state} when a part is missing. Any thread.
#pragma once

#include <string>

namespace cob::cli {

std::string kernel_executable();  // absolute path of cob-kernel
std::string mount_executable();   // of cob-mount, which is not built without libfuse
std::string image_builder();      // of cob-island-image
// The folder with what an island of that machine (uname -m) runs: cob-agent, cob-kernel, libcob.so.
std::string island_parts(const std::string& machine, const std::string& architecture);
std::string shim_library();  // absolute path of libcob.so

}  // namespace cob::cli
