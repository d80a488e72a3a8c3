// cob-kernel: one kernel instance. Its supervisor gives it descriptor 3, a SOCK_SEQPACKET pair; see
// message/control.h.
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>

#include "kernel/kernel.h"

namespace {

constexpr int supervisor_fd = 3;

cob::Result<cob::message::Config> read_config() {
  cob::message::Config config;
  const ssize_t got = ::recv(supervisor_fd, &config, sizeof config, 0);
  if (got < 0) return cob::Error::from_errno("cob-kernel is started by `cob up`, not by hand");
  if (got != sizeof config ||
      config.kind != static_cast<cob::u32>(cob::message::ControlKind::config))
    return cob::Error::of(EPROTO, "no configuration on descriptor 3");
  config.cob_name[sizeof config.cob_name - 1] = 0;
  return config;
}

cob::Result<void> serve() {
  const auto config = TRY(read_config());
  auto kernel = TRY(cob::kernel::Kernel::create(config, cob::Fd(supervisor_fd)));
  return kernel->run();
}

// What a kernel cannot do without: its supervisor starts another, its programs see a death.
void out_of_memory() {
  constexpr char text[] = "cob-kernel: out of memory: this kernel ends\n";
  (void)!::write(STDERR_FILENO, text, sizeof text - 1);
  ::_exit(1);
}

}  // namespace

int main() {
  std::set_new_handler(out_of_memory);
  std::signal(SIGPIPE, SIG_IGN);
  // Interrupts of a terminal are for programs; the supervisor ends kernels.
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);
  ::prctl(PR_SET_DUMPABLE, 0);
  const auto done = serve();
  if (!done.is_error()) return 0;
  std::fprintf(stderr, "cob-kernel: %s: %s\n", done.error().what, std::strerror(done.error().code));
  return 1;
}
