// cob-island ARCHITECTURE IMAGE MEMORY PROCESSORS: the stand-in of a kernel on another machine. Its
// supervisor gives it descriptor 3, as to any kernel; see stand_in.h.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "island/stand_in.h"

namespace {

constexpr int supervisor_fd = 3;

cob::Result<void> serve(const cob::island::MachinePlan& plan) {
  auto stand_in = TRY(cob::island::StandIn::create(cob::Fd(supervisor_fd), plan));
  return stand_in.run();
}

}  // namespace

int main(int count, char** words) {
  if (count != 5) {
    std::fputs("cob-island is started by `cob island add`, not by hand\n", stderr);
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);
  const auto done = serve({.architecture = words[1],
                           .image = words[2],
                           .memory_mib = static_cast<cob::u32>(std::atoi(words[3])),
                           .processors = static_cast<cob::u32>(std::atoi(words[4]))});
  if (!done.is_error()) return 0;
  std::fprintf(stderr, "cob-island: %s: %s\n", done.error().what, std::strerror(done.error().code));
  return 1;
}
