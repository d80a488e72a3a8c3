// cob-kernel: one kernel instance. Its supervisor gives it descriptor 3, a SOCK_SEQPACKET pair; see
// message/control.h.
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>

#include "base/passing.h"
#include "kernel/kernel.h"
#include "net/snap_bean/tap.h"
#include "net/snap_bean/xdp.h"

namespace {

constexpr int supervisor_fd = 3;

struct Start {
  cob::message::Config config;
  std::vector<cob::Fd> descriptors;
  cob::kernel::IslandSetup islands;
};

// They were sent before this process began.
cob::Result<void> read_shares(Start& start) {
  alignas(8)
      std::array<std::byte, sizeof(cob::message::ShareNotice) + cob::message::most_path_bytes>
          bytes;
  for (unsigned i = 0; i < start.config.shares; ++i) {
    auto got = TRY(cob::receive_datagram(cob::FdRef(supervisor_fd), bytes));
    if (got.truncated) return cob::Error::of(EPROTO, "a share's path is too long");
    start.islands.shares.push_back(TRY(
        cob::kernel::read_share(std::span(bytes).first(got.bytes), std::move(got.descriptors))));
  }
  return {};
}

cob::Result<Start> read_config() {
  Start start;
  auto got = cob::receive_datagram(cob::FdRef(supervisor_fd),
                                   std::as_writable_bytes(std::span(&start.config, 1)));
  if (got.is_error())
    return cob::Error::of(got.error().code, "cob-kernel is started by `cob up`, not by hand");
  if (got.value().bytes != sizeof start.config ||
      start.config.kind != static_cast<cob::u32>(cob::message::ControlKind::config))
    return cob::Error::of(EPROTO, "no configuration on descriptor 3");
  start.config.cob_name[sizeof start.config.cob_name - 1] = 0;
  auto& descriptors = start.descriptors = std::move(got.value().descriptors);
  const cob::message::Config& config = start.config;
  if (config.kernel < config.link_port.size() && config.link_port[config.kernel] != 0) {
    if (descriptors.empty()) return cob::Error::of(EPROTO, "no socket for links to other islands");
    start.islands.listener = std::move(descriptors.front());
    descriptors.erase(descriptors.begin());
  }
  TRY(read_shares(start));
  return start;
}

cob::Result<cob::kernel::Uplink> open_uplink(Start& start) {
  cob::kernel::Uplink uplink;
  using cob::message::UplinkKind;
  if (start.config.uplink == UplinkKind::none) return uplink;
  auto& fds = start.descriptors;
  const UplinkKind kind = start.config.uplink;
  const bool known = kind == UplinkKind::tap     ? fds.size() == 3
                     : kind == UplinkKind::cable ? fds.size() == 2
                     : kind == UplinkKind::xdp   ? fds.size() >= 2 && fds.size() % 2 == 0
                                                 : false;
  if (!known) return cob::Error::of(EPROTO, "an uplink that this kernel does not know");
  uplink.tables.emplace(TRY(cob::net::SteeringReader::open(fds[0].ref())));
  uplink.changes.emplace(TRY(cob::net::TableChangesReader::open(fds[1].ref())));
  const cob::u16 mtu = start.config.uplink_mtu;
  const bool offload = start.config.uplink_offload != 0;
  uplink.spreads = start.config.uplink_gathers == 0;
  if (kind == UplinkKind::tap) {
    uplink.device = std::make_unique<cob::net::TapDevice>(std::move(fds[2]), mtu, offload);
  } else if (kind == UplinkKind::xdp && fds.size() == 2) {
    if (start.config.uplink_proxy == start.config.kernel)
      return cob::Error::of(EPROTO, "an uplink without a queue");
    uplink.proxy = {cob::KernelId(start.config.uplink_proxy), mtu};
  } else if (kind == UplinkKind::xdp) {
    std::vector<cob::net::XdpQueue> queues;
    for (std::size_t i = 2; i < fds.size(); i += 2)
      queues.push_back(TRY(cob::net::XdpQueue::open(std::move(fds[i]), fds[i + 1].ref(), mtu)));
    uplink.device = std::make_unique<cob::net::XdpDevice>(std::move(queues), mtu, offload);
  }
  return uplink;
}

cob::Result<void> serve() {
  auto start = TRY(read_config());
  auto uplink = TRY(open_uplink(start));
  auto kernel = TRY(cob::kernel::Kernel::create(start.config, cob::Fd(supervisor_fd),
                                                std::move(uplink), std::move(start.islands)));
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
