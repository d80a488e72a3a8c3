// Looking at an interface, and opening AF_XDP sockets on it; see xdp_port.h. The supervisor's
// thread.
#include "net/snap_bean/xdp_port.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/if_xdp.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/memory.h"
#include "net/snap_bean/xdp.h"

namespace cob::net {
namespace {

Error say(PortFailure& failure, int code, std::string text) {
  failure = {code, std::move(text)};
  return Error::of(code, "the AF_XDP uplink");
}

// netdevice(7) about one interface. False, and errno: it could not be asked.
class Interface {
 public:
  explicit Interface(const std::string& name)
      : name_(name), socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {}

  bool ask(unsigned long what, ifreq& request) const {
    std::memcpy(request.ifr_name, name_.data(),
                std::min(name_.size(), sizeof request.ifr_name - 1));
    return ::ioctl(socket_.get(), what, &request) == 0;
  }
  template <typename Command>
  bool ask_ethtool(Command& command) const {
    ifreq request{};
    request.ifr_data = reinterpret_cast<char*>(&command);
    return ask(SIOCETHTOOL, request);
  }

 private:
  std::string name_;
  Fd socket_;
};

bool is_hosts(Ipv4Address address, const Ipv6Address& ipv6) {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return false;
  bool found = false;
  for (const ifaddrs* a = all; a != nullptr; a = a->ifa_next) {
    if (a->ifa_addr == nullptr) continue;
    if (a->ifa_addr->sa_family == AF_INET6) {
      sockaddr_in6 in{};
      std::memcpy(&in, a->ifa_addr, sizeof in);
      found = found || std::memcmp(&in.sin6_addr, ipv6.bytes.data(), ipv6.bytes.size()) == 0;
    }
    if (a->ifa_addr->sa_family != AF_INET) continue;
    sockaddr_in in{};
    std::memcpy(&in, a->ifa_addr, sizeof in);
    found = found || ntohl(in.sin_addr.s_addr) == address.value;
  }
  ::freeifaddrs(all);
  return found;
}

// What comes in is spread over so many; 1 where the driver does not say.
u32 receive_queues(const Interface& interface) {
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  if (!interface.ask_ethtool(channels)) return 1;
  return std::max(channels.combined_count + channels.rx_count, 1u);
}

template <typename Value>
Result<void> set(FdRef socket, int option, const Value& value, const char* what) {
  if (::setsockopt(socket.get(), SOL_XDP, option, &value, sizeof value) != 0)
    return Error::from_errno(what);
  return {};
}

constexpr const char* privilege = ": needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF: run as root";

}  // namespace

Result<XdpPort> XdpPort::open(const XdpOptions& options, PortFailure& failure) {
  const std::string& name = options.interface;
  const u32 index = ::if_nametoindex(name.c_str());
  if (index == 0)
    return say(failure, ENODEV, "there is no network interface " + name + "; see: ip link");
  if (is_hosts(options.address, options.ipv6))
    return say(
        failure, EADDRINUSE,
        "the cob's address is one of this machine's own, whose frames it would take: give it "
        "another of the network of " +
            name + " (--ip, --ip6)");
  const Interface interface(name);
  ifreq request{};
  if (!interface.ask(SIOCGIFFLAGS, request))
    return say(failure, errno, name + ": " + std::strerror(errno));
  if ((request.ifr_flags & IFF_UP) == 0)
    return say(failure, ENETDOWN, name + " is down: ip link set " + name + " up");
  if (!interface.ask(SIOCGIFHWADDR, request) || request.ifr_hwaddr.sa_family != ARPHRD_ETHER)
    return say(failure, EINVAL, name + " is no Ethernet interface: AF_XDP needs one");
  XdpPort port(options);
  port.index_ = index;
  std::memcpy(port.mac_.bytes.data(), request.ifr_hwaddr.sa_data, port.mac_.bytes.size());
  if (!interface.ask(SIOCGIFMTU, request) || request.ifr_mtu > XdpLayout::max_mtu ||
      request.ifr_mtu < 576)
    return say(failure, EMSGSIZE,
               name + " has an MTU of " + std::to_string(request.ifr_mtu) +
                   ", and AF_XDP takes 576 to " + std::to_string(XdpLayout::max_mtu) +
                   ": ip link set " + name + " mtu 1500");
  port.mtu_ = static_cast<u16>(request.ifr_mtu);
  ethtool_drvinfo driver{};
  driver.cmd = ETHTOOL_GDRVINFO;
  if (interface.ask_ethtool(driver))
    port.driver_.assign(driver.driver, ::strnlen(driver.driver, sizeof driver.driver));
  const u32 queues = receive_queues(interface), most = options.kernels * max_queues_a_kernel;
  if (queues > most)
    return say(failure, E2BIG,
               name + " has " + std::to_string(queues) + " receive queues, too many for " +
                   std::to_string(options.kernels) + " kernels: ethtool -L " + name + " combined " +
                   std::to_string(options.kernels));
  port.queues_ = static_cast<u16>(queues);
  TRY(port.attach(failure));
  if (!options.ipv6.is_any()) TRY(port.join_group(failure));
  for (u16 kernel = 0; kernel < options.kernels; ++kernel) {
    auto sockets = port.take_sockets(kernel);
    if (sockets.is_error())
      return say(failure, sockets.error().code, port.why_no_socket(sockets.error()));
    port.first_.push_back(sockets.release_value());
  }
  return port;
}

// The card would not let the group's frames in, nor a switch that snoops: Linux tells both, for as
// long as it has a listener (RFC 3810). Where Linux has no IPv6 on the interface, the card alone.
Result<void> XdpPort::join_group(PortFailure& failure) {
  const Ipv6Address group = options_.ipv6.solicited_node();
  ipv6_mreq listener{};
  std::memcpy(&listener.ipv6mr_multiaddr, group.bytes.data(), group.bytes.size());
  listener.ipv6mr_interface = index_;
  group_ = Fd(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (group_.valid() &&
      ::setsockopt(group_.get(), IPPROTO_IPV6, IPV6_JOIN_GROUP, &listener, sizeof listener) == 0)
    return {};
  packet_mreq frames{};
  frames.mr_ifindex = static_cast<int>(index_);
  frames.mr_type = PACKET_MR_MULTICAST;
  frames.mr_alen = sizeof(MacAddress);
  const MacAddress mac = group_mac(group);
  std::memcpy(frames.mr_address, mac.bytes.data(), mac.bytes.size());
  group_ = Fd(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (group_.valid() &&
      ::setsockopt(group_.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &frames, sizeof frames) == 0)
    return {};
  const int problem = errno;
  return say(failure, problem,
             "the group by which " + options_.interface +
                 " hears who asks for the cob's IPv6 address: " + std::strerror(problem) +
                 (problem == EPERM ? privilege : ""));
}

// In the driver if it can.
Result<void> XdpPort::attach(PortFailure& failure) {
  const std::string& name = options_.interface;
  const auto failed = [&](const Error& error) {
    const bool taken = error.code == EBUSY || error.code == EEXIST;
    const std::string why = error.code == EPERM ? privilege
                            : taken
                                ? ": it has an XDP program already, which `ip link show " + name +
                                      "` names; `ip link set " + name + " xdp off` may remove it"
                                : "";
    return say(
        failure, error.code,
        "the XDP program of " + name + ": " + error.what + ": " + std::strerror(error.code) + why);
  };
  auto program = XdpProgram::create(options_.address, queues_, options_.ipv6);
  if (program.is_error()) return failed(program.error());
  program_.emplace(program.release_value());
  if (!options_.generic) {
    const auto native = program_->attach(index_, XdpProgram::Mode::native);
    if (!native.is_error()) return {};
    not_native_ = native.error().code;
    if (not_native_ == EPERM || not_native_ == EBUSY || not_native_ == EEXIST)
      return failed(native.error());
  }
  mode_ = XdpProgram::Mode::generic;
  const auto generic = program_->attach(index_, mode_);
  if (generic.is_error()) return failed(generic.error());
  return {};
}

std::string XdpPort::why_no_socket(const Error& error) const {
  const std::string& name = options_.interface;
  std::string text = "AF_XDP on " + name + ": " + error.what + ": " + std::strerror(error.code);
  switch (error.code) {
    case EPERM:
      return text + privilege;
    case EBUSY:
      return text + ": another program has one of its queues";
    case ENOBUFS:
    case ENOMEM:
      return text + ": raise the limit of locked memory (ulimit -l)";
    case EAFNOSUPPORT:
      return text + ": this Linux was built without CONFIG_XDP_SOCKETS";
    case EOPNOTSUPP:
    case EINVAL:
      if (options_.copies == XdpOptions::Copies::never)
        return text + ": the driver (" + driver_ + ") cannot do without copies: leave zerocopy out";
      return text;
    default:
      return text;
  }
}

std::string XdpPort::describe() const {
  std::string text = std::to_string(queues_) + (queues_ == 1 ? " queue, " : " queues, ") +
                     (mode_ == XdpProgram::Mode::native ? "native" : "generic") + " XDP, " +
                     (zero_copy_ ? "zero-copy" : "with copies");
  if (not_native_ != 0)
    text += std::string(" (the driver refused: ") + std::strerror(not_native_) + ")";
  if (queues_ < options_.kernels)
    text += "; kernels from " + std::to_string(queues_) + " on by those before";
  return text;
}

Result<std::vector<Fd>> XdpPort::take_sockets(u16 kernel) {
  if (kernel < first_.size() && !first_[kernel].empty()) return std::exchange(first_[kernel], {});
  std::vector<Fd> sockets;
  for (u32 queue = kernel; queue < queues_; queue += options_.kernels)
    TRY(add_queue(static_cast<u16>(queue), sockets));
  return sockets;
}

Result<void> XdpPort::add_queue(u16 queue, std::vector<Fd>& sockets) {
  SharedMemory frames =
      TRY(create_memory("cob-xdp", XdpLayout::memory_bytes(mtu_), Writers::anyone));
  Fd socket(::socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return Error::from_errno("socket");
  xdp_umem_reg memory{};
  memory.addr = reinterpret_cast<u64>(frames.mapping.data());
  memory.len = frames.mapping.size();
  memory.chunk_size = XdpLayout::chunk_bytes(mtu_);
  TRY(set(socket.ref(), XDP_UMEM_REG, memory, "registering memory"));
  TRY(set(socket.ref(), XDP_UMEM_FILL_RING, XdpLayout::receive_frames, "the fill ring"));
  TRY(set(socket.ref(), XDP_UMEM_COMPLETION_RING, XdpLayout::send_frames, "the completion ring"));
  TRY(set(socket.ref(), XDP_RX_RING, XdpLayout::receive_frames, "the receive ring"));
  TRY(set(socket.ref(), XDP_TX_RING, XdpLayout::send_frames, "the transmit ring"));
  // With copies each frame under way is an skb of the socket's.
  const int send_bytes = XdpLayout::send_frames * 4'096;
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUFFORCE, &send_bytes, sizeof send_bytes);
  sockaddr_xdp address{};
  address.sxdp_family = AF_XDP;
  address.sxdp_ifindex = index_;
  address.sxdp_queue_id = queue;
  address.sxdp_flags = XDP_USE_NEED_WAKEUP;
  if (mode_ == XdpProgram::Mode::generic || options_.copies == XdpOptions::Copies::always)
    address.sxdp_flags |= XDP_COPY;
  else if (options_.copies == XdpOptions::Copies::never)
    address.sxdp_flags |= XDP_ZEROCOPY;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return Error::from_errno("bind to a queue");
  xdp_options bound{};
  socklen_t bytes = sizeof bound;
  if (::getsockopt(socket.get(), SOL_XDP, XDP_OPTIONS, &bound, &bytes) == 0)
    zero_copy_ = (bound.flags & XDP_OPTIONS_ZEROCOPY) != 0;
  TRY(program_->give(queue, socket.ref()));
  sockets.push_back(std::move(socket));
  sockets.push_back(std::move(frames.fd));
  return {};
}

}  // namespace cob::net
