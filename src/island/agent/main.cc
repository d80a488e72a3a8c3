// cob-agent: the first process of a guest that is an island of a cob (docs/islands.md).
#include <sys/reboot.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "island/agent/agent.h"
#include "island/agent/boot.h"

namespace {

cob::Result<void> serve() {
  TRY(cob::island::mount_file_systems());
  cob::island::load_modules();
  auto port = TRY(cob::island::open_port());
  TRY(cob::island::set_up_network());
  auto agent = TRY(cob::island::Agent::create(std::move(port)));
  return agent.run();
}

}  // namespace

int main() {
  if (::getpid() != 1) {
    std::fputs("cob-agent is the first process of a guest; see: cob island --help\n", stderr);
    return 2;
  }
  const auto done = serve();
  if (done.is_error())
    std::fprintf(stderr, "cob-agent: %s: %s\n", done.error().what,
                 std::strerror(done.error().code));
  ::sync();
  ::reboot(RB_POWER_OFF);
  return 1;
}
