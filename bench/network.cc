// Making and entering the namespace of network.h.
// A short-lived child makes it and is held while the parent opens what /proc shows of it.
// Used by the measuring command's only thread. unshare(2), setns(2), netdevice(7).
#include "bench/network.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "bench/child.h"

namespace cob::bench {

namespace {

bool loopback_up() {
  const Fd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::memcpy(request.ifr_name, "lo", 3);
  request.ifr_flags = IFF_UP;
  return any.valid() && ioctl(any.get(), SIOCSIFFLAGS, &request) == 0;
}

// 0 or the error number.
int make_here() {
  if (unshare(CLONE_NEWNET) != 0 || !loopback_up()) return errno;
  return write_text("/proc/sys/net/ipv4/tcp_tw_reuse", "1") ? 0 : EACCES;
}

}  // namespace

Outcome<OwnNetwork> OwnNetwork::make() {
  using Made = Outcome<OwnNetwork>;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Made::failed("pipe2");
  const Fd said(ends[0]);
  Fd says(ends[1]);
  const auto maker = Child::start({}, [&]() -> int {
    const int error = make_here();
    if (write(says.get(), &error, sizeof error) != sizeof error) return 1;
    for (;;) pause();
  });
  says.reset();
  if (!maker) return Made::failed(maker.why());
  int error = ECHILD;
  if (read(said.get(), &error, sizeof error) != sizeof error || error != 0)
    return Made::failed(fmt::format("no network namespace: {}", std::strerror(error)));
  OwnNetwork made;
  made.network_ =
      Fd(open(fmt::format("/proc/{}/ns/net", maker->pid()).c_str(), O_RDONLY | O_CLOEXEC));
  if (!made.network_.valid())
    return Made::failed(fmt::format("the network namespace: {}", std::strerror(errno)));
  return Made(std::move(made));
}

bool OwnNetwork::enter() const { return setns(network_.get(), CLONE_NEWNET) == 0; }

std::string OwnNetwork::path() const {
  return fmt::format("/proc/{}/fd/{}", getpid(), network_.get());
}

}  // namespace cob::bench
