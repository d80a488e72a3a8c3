// Making the wire of wire.h: links and addresses by ip(8), offloads by short-lived
// children within each namespace. Used by the measuring command's only thread.
#include "bench/wire.h"

#include <fmt/format.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "base/types.h"

namespace cob::bench {

namespace {

constexpr const char* client_device = "client0";

// Some cannot be changed on a veth, those that then do nothing there.
void leave_nothing_to_a_card(const std::string& device) {
  const Fd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  for (const u32 command :
       {u32{ETHTOOL_STSO}, u32{ETHTOOL_SGSO}, u32{ETHTOOL_SGRO}, u32{ETHTOOL_STXCSUM}}) {
    ethtool_value off{.cmd = command, .data = 0};
    ifreq request{};
    std::memcpy(request.ifr_name, device.data(),
                std::min(device.size(), sizeof request.ifr_name - 1));
    request.ifr_data = reinterpret_cast<char*>(&off);
    ioctl(any.get(), SIOCETHTOOL, &request);
  }
}

// "" or why not.
std::string set_up_end(const OwnNetwork& network, const std::string& device,
                       Interrupts& interrupts) {
  auto child = Child::start({}, [&]() -> int {
    if (!network.enter()) return 1;
    leave_nothing_to_a_card(device);
    return 0;
  });
  if (!child) return child.why();
  const auto status = child->wait(5, interrupts);
  if (!status) return status.why();
  return *status == 0 ? "" : fmt::format("{}: its namespace cannot be entered", device);
}

}  // namespace

Outcome<Wire> Wire::make(bool address_the_server, Interrupts& interrupts) {
  using Made = Outcome<Wire>;
  const std::string ip = find_program("ip");
  if (ip.empty()) return Made::failed("ip(8) is not installed");
  auto client = OwnNetwork::make();
  if (!client) return Made::failed(client.why());
  auto server = OwnNetwork::make();
  if (!server) return Made::failed(server.why());
  Wire wire(std::move(*client), std::move(*server));
  const TemporaryDirectory scratch;
  const auto set_up = [&](const OwnNetwork* network, const std::string& script) -> std::string {
    const auto done = run({.argv = {"/bin/sh", "-ec", script},
                           .output = scratch.path() + "/output",
                           .network = network},
                          10, interrupts);
    if (!done) return done.why();
    return done->status == 0 ? "" : "ip: " + done->output;
  };
  std::string wrong = set_up(
      wire.client(),
      fmt::format("{0} link add {1} mtu 1500 numrxqueues 1 numtxqueues 1 type veth peer name {2} "
                  "mtu 1500 numrxqueues 1 numtxqueues 1 netns {3}\n"
                  "{0} addr add {4}/24 dev {1}\n{0} link set {1} up\n",
                  ip, client_device, server_device, wire.server()->path(), client_address));
  if (wrong.empty()) {
    const std::string address = address_the_server ? fmt::format("{} addr add {}/24 dev {}\n", ip,
                                                                 server_address, server_device)
                                                   : "";
    wrong = set_up(wire.server(), address + fmt::format("{} link set {} up\n", ip, server_device));
  }
  if (wrong.empty()) wrong = set_up_end(*wire.client(), client_device, interrupts);
  if (wrong.empty()) wrong = set_up_end(*wire.server(), server_device, interrupts);
  return wrong.empty() ? Made(std::move(wire)) : Made::failed(wrong);
}

}  // namespace cob::bench
