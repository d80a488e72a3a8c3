// Opening a TAP and configuring Linux's end; see tap_port.h. The supervisor's thread.
#include "net/snap_bean/tap_port.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "net/snap_bean/tap.h"

namespace cob::net {
namespace {

ifreq request_for(const std::string& name) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
  return request;
}

void set_address(ifreq& request, u32 address) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(address);
  std::memcpy(&request.ifr_addr, &in, sizeof in);
}

Error say(PortFailure& failure, int code, std::string text) {
  failure = {code, std::move(text)};
  return Error::of(code, "the TAP uplink");
}

std::string why_not_attached(const std::string& name, int code) {
  const std::string make = "ip tuntap add dev " + name + " mode tap multi_queue vnet_hdr user ";
  switch (code) {
    case EPERM:
      return "making or using the TAP device " + name +
             " needs CAP_NET_ADMIN: run as root, or let root make one for you first: " + make +
             "$USER";
    case EINVAL:
      return "the TAP device " + name +
             " exists and was not made for several queues; let root make it anew: ip link del " +
             name + "; " + make + "USER";
    case EBUSY:
      return "the TAP device " + name + " is in use by another program";
    case E2BIG:
      return "the TAP device " + name + " has no queue left: another program uses it";
    default:
      return "the TAP device " + name + ": " + std::strerror(code);
  }
}

Result<Fd> attach_queue(const TapOptions& options, PortFailure& failure) {
  const std::string& name = options.name;
  Fd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) {
    const int code = errno;
    return say(failure, code,
               std::string("/dev/net/tun: ") + std::strerror(code) +
                   (code == ENOENT ? ": modprobe tun" : ": give the user access to it"));
  }
  ifreq request = request_for(name);
  request.ifr_flags =
      static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | static_cast<int>(IFF_MULTI_QUEUE));
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    const int code = errno;
    return say(failure, code, why_not_attached(name, code));
  }
  int header_bytes = sizeof(VirtioNetHeader);
  const unsigned long offloads = options.offload ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 : 0;
  if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header_bytes) != 0 ||
      ::ioctl(fd.get(), TUNSETOFFLOAD, offloads) != 0) {
    const int code = errno;
    return say(failure, code,
               "the TAP device " + name + " takes no offloads: " + std::strerror(code));
  }
  return fd;
}

// Linux's end: its address, and up.
Result<void> bring_up(FdRef socket, const TapOptions& options, PortFailure& failure) {
  const auto failed = [&](const char* what) {
    const int code = errno;
    return say(
        failure, code,
        std::string(what) + " of " + options.name + ": " + std::strerror(code) +
            (code == EPERM ? ": needs CAP_NET_ADMIN; leave host= out and let root do it" : ""));
  };
  ifreq request = request_for(options.name);
  set_address(request, options.host.value);
  if (::ioctl(socket.get(), SIOCSIFADDR, &request) != 0) return failed("the address");
  request = request_for(options.name);
  set_address(request, options.prefix_bits == 0 ? 0 : ~0u << (32 - options.prefix_bits));
  if (::ioctl(socket.get(), SIOCSIFNETMASK, &request) != 0) return failed("the netmask");
  request = request_for(options.name);
  if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) return failed("the state");
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return failed("bringing up");
  return {};
}

}  // namespace

Result<TapPort> TapPort::open(const TapOptions& options, PortFailure& failure) {
  if (options.name.empty() || options.name.size() >= IFNAMSIZ || options.queues == 0)
    return say(failure, EINVAL, "a TAP device has a name of 1 to 15 bytes");
  TapPort port;
  for (u16 i = 0; i < options.queues; ++i)
    port.queues_.push_back(TRY(attach_queue(options, failure)));
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return say(failure, errno, "no socket to configure the TAP device by");
  if (!options.host.is_any()) TRY(bring_up(socket.ref(), options, failure));
  ifreq request = request_for(options.name);
  if (::ioctl(socket.get(), SIOCGIFMTU, &request) == 0)
    port.mtu_ = static_cast<u16>(std::clamp(request.ifr_mtu, 576, 65'535));
  return port;
}

}  // namespace cob::net
