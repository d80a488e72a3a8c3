#include "cli/install.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "cli/failure.h"

namespace cob::cli {
namespace {

namespace fs = std::filesystem;

fs::path own_directory() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (error) fail(exit_state, "cannot read /proc/self/exe: {}", error.message());
  return self.parent_path();
}

std::string first_of(const std::vector<fs::path>& places, int access_mode, std::string_view what) {
  std::string tried;
  for (const fs::path& place : places) {
    std::error_code error;
    const fs::path whole = fs::absolute(place, error).lexically_normal();
    if (::access(whole.c_str(), access_mode) == 0) return whole.string();
    tried += fmt::format("\n  {}", whole.string());
  }
  fail(exit_state, "{} is missing; looked for{}", what, tried);
}

std::string helper(const std::string& name) {
  if (const char* directory = std::getenv("COB_LIBEXEC");
      directory != nullptr && *directory != '\0') {
    return first_of({fs::path(directory) / name}, X_OK, name + " (COB_LIBEXEC is set)");
  }
  const fs::path here = own_directory();
  return first_of({here / name, here / "../libexec/cob" / name}, X_OK, name);
}

}  // namespace

std::string kernel_executable() { return helper("cob-kernel"); }
std::string mount_executable() { return helper("cob-mount"); }

std::string image_builder() { return helper("cob-island-image"); }

std::string island_parts(const std::string& machine, const std::string& architecture) {
  const fs::path here = own_directory();
  const std::vector<fs::path> places{here / ("../build-" + architecture),
                                     here / "../lib/cob/islands" / machine};
  for (const fs::path& place : places) {
    bool all = true;
    for (const char* part : {"cob-agent", "cob-kernel", "libcob.so"})
      all = all && ::access((place / part).c_str(), R_OK) == 0;
    if (all) return fs::canonical(place).string();
  }
  fail(
      exit_state,
      "cob is not built for {}: cob-agent, cob-kernel and libcob.so of it are neither in {} nor in "
      "{} (see: make cross)",
      architecture, places[0].lexically_normal().string(), places[1].lexically_normal().string());
}

std::string shim_library() {
  if (const char* path = std::getenv("COB_SHIM_PATH"); path != nullptr && *path != '\0') {
    return first_of({fs::path(path)}, R_OK, "libcob.so (COB_SHIM_PATH is set)");
  }
  const fs::path here = own_directory();
  return first_of({here / "libcob.so", here / "../lib/cob/libcob.so"}, R_OK, "libcob.so");
}

}  // namespace cob::cli
