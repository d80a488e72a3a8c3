// cob-offload: an island for the hosts of this machine that attach: serves the tasks of libraries.
// A library has `extern "C" void cob_offload_tasks(cob::offload::TaskSet&)`, which adds them.
// cob-offload PLACE LIBRARY... [--cores LIST]. dlopen(3).
#include <dlfcn.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "offload/island.h"

using namespace cob;
using namespace cob::offload;

namespace {

constexpr const char* usage =
    "usage: cob-offload PLACE LIBRARY... [--cores LIST]\n\n"
    "Runs tasks for programs that attach to PLACE (\"@name\" or \"/a/directory\"), one after the\n"
    "other, with a thread on each core of LIST (0,2,3; default: all). Each LIBRARY is a shared\n"
    "object with a function cob_offload_tasks(cob::offload::TaskSet&).\n\n"
    "Example: cob-offload @blur ./libblur.so --cores 2,3\n";

bool parse_cores(std::string_view text, std::vector<int>& cores) {
  while (!text.empty()) {
    int core = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), core);
    if (error != std::errc() || core < 0 || core >= 1'024) return false;
    cores.push_back(core);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (!text.empty() && (text[0] != ',' || text.size() == 1)) return false;
    if (!text.empty()) text.remove_prefix(1);
  }
  return !cores.empty();
}

int wrong(const char* what, const char* which) {
  std::fprintf(stderr, "cob-offload: %s: %s\n", what, which);
  return 2;
}

}  // namespace

int main(int count, char** words) {
  ServeOptions options;
  TaskSet tasks;
  std::vector<const char*> libraries;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = words[i];
    if (word == "--help" || word == "-h") {
      std::fputs(usage, stdout);
      return 0;
    }
    if (word == "--cores") {
      ++i;
      if (i == count || !parse_cores(words[i], options.cores))
        return wrong("--cores wants numbers of cores", i < count ? words[i] : "");
    } else if (word.starts_with("-")) {
      return wrong("no such option", words[i]);
    } else if (options.place.empty()) {
      options.place = word;
    } else {
      libraries.push_back(words[i]);
    }
  }
  if (libraries.empty()) {
    std::fputs(usage, stderr);
    return 2;
  }
  for (const char* library : libraries) {
    void* handle = ::dlopen(library, RTLD_NOW);
    if (handle == nullptr) return wrong("cannot be loaded", ::dlerror());
    void* found = ::dlsym(handle, "cob_offload_tasks");
    if (found == nullptr) return wrong("has no function cob_offload_tasks", library);
    const std::size_t before = tasks.size();
    reinterpret_cast<void (*)(TaskSet&)>(found)(tasks);
    if (tasks.size() == before) return wrong("adds no task", library);
  }
  const auto served = serve(tasks, options);
  if (served) return 0;
  std::fprintf(stderr, "cob-offload: %s: %s: %s\n", options.place.c_str(), served.error().what,
               std::strerror(served.error().code));
  return 1;
}
