// `--uplink`, checked and opened; see uplink.h. The supervisor's thread.
#include "cli/uplink.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <net/if.h>

#include <algorithm>
#include <cstring>

#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr std::string_view tap_prefix = "tap:", xdp_prefix = "xdp:", host_option = "host=",
                           offload_option = "offload=off", receive_option = "rps=";

u32 parse_host(std::string_view option, std::string_view text, CobAddress cob) {
  in_addr parsed{};
  if (::inet_pton(AF_INET, std::string(text).c_str(), &parsed) != 1)
    fail(exit_usage, "{} {}: not an IPv4 address", option, text);
  const u32 address = ntohl(parsed.s_addr);
  const u32 mask = cob.prefix_bits == 0 ? 0 : ~0u << (32 - cob.prefix_bits);
  if (address == cob.address || ((address ^ cob.address) & mask) != 0) {
    fail(exit_usage, "{} {}: must be another address of the cob's network {} (see --ip)", option,
         text, format_address(cob));
  }
  return address;
}

// Takes the name off what is left of "NAME[,WORD]...".
void take_name(std::string_view& text, UplinkPlan& plan, std::string_view what) {
  plan.name = text.substr(0, text.find(','));
  text.remove_prefix(plan.name.size());
  if (plan.name.empty() || plan.name.size() >= IFNAMSIZ ||
      plan.name.find_first_of("/ %") != std::string::npos)
    fail(exit_usage, "--uplink {}: {} has a name of 1 to 15 bytes", plan.text, what);
}

// The next of ",WORD[,WORD]..."; REQUIRES: there is one.
std::string_view take_word(std::string_view& text) {
  text.remove_prefix(1);
  const std::string_view word = text.substr(0, text.find(','));
  text.remove_prefix(word.size());
  return word;
}

// "0+2-5": a comma begins the uplink's next word.
std::vector<int> parse_receive_cores(std::string_view text) {
  std::string list(text);
  std::ranges::replace(list, '+', ',');
  std::vector<int> cores = parse_cores(list, "--uplink rps");
  check_usable(cores);
  return cores;
}

void parse_tap(std::string_view text, CobAddress cob, UplinkPlan& plan) {
  plan.kind = message::UplinkKind::tap;
  take_name(text, plan, "a TAP device");
  while (!text.empty()) {
    const std::string_view word = take_word(text);
    if (word == offload_option) {
      plan.offload = false;
    } else if (word.starts_with(host_option)) {
      plan.host = parse_host("--uplink host", word.substr(host_option.size()), cob);
    } else if (word.starts_with(receive_option)) {
      plan.receive_cores = parse_receive_cores(word.substr(receive_option.size()));
    } else {
      fail(exit_usage,
           "--uplink {}: after the name only host=ADDR, offload=off and rps=CORES may follow",
           plan.text);
    }
  }
}

void parse_xdp(std::string_view text, UplinkPlan& plan) {
  using Copies = net::XdpOptions::Copies;
  plan.kind = message::UplinkKind::xdp;
  take_name(text, plan, "an interface");
  while (!text.empty()) {
    const std::string_view word = take_word(text);
    if (word == "zerocopy") {
      plan.copies = Copies::never;
    } else if (word == "copy") {
      plan.copies = Copies::always;
    } else if (word == "generic") {
      plan.generic_xdp = true;
    } else {
      fail(exit_usage, "--uplink {}: after the name only zerocopy, copy and generic may follow",
           plan.text);
    }
  }
  if (plan.generic_xdp && plan.copies == Copies::never)
    fail(exit_usage, "--uplink {}: generic XDP copies; leave generic or zerocopy out", plan.text);
}

}  // namespace

UplinkPlan parse_uplink(std::string_view text, std::string_view gateway, CobAddress cob) {
  UplinkPlan plan;
  if (text.empty()) {
    if (!gateway.empty()) fail(exit_usage, "--gateway needs an --uplink to reach it by");
    return plan;
  }
  plan.text = text;
  if (!gateway.empty()) plan.gateway = parse_host("--gateway", gateway, cob);
  if (text.starts_with(tap_prefix)) {
    parse_tap(text.substr(tap_prefix.size()), cob, plan);
  } else if (text.starts_with(xdp_prefix)) {
    parse_xdp(text.substr(xdp_prefix.size()), plan);
  } else {
    fail(exit_usage, "--uplink {}: not of the form tap:NAME, tap:NAME,host=ADDR or xdp:NAME", text);
  }
  return plan;
}

Result<Uplink> Uplink::open(const UplinkPlan& plan, u16 kernels, CobAddress cob,
                            const CobIpv6& ipv6, std::string& problem) {
  Uplink uplink(TRY(SteeringKeeper::create(kernels)));
  if (plan.kind == message::UplinkKind::tap) {
    TRY(uplink.open_tap(plan, kernels, cob, problem));
    TRY(uplink.steer_receiving(plan, problem));
  } else if (plan.kind == message::UplinkKind::xdp) {
    TRY(uplink.open_xdp(plan, kernels, cob, ipv6, problem));
  }
  return uplink;
}

Result<void> Uplink::open_tap(const UplinkPlan& plan, u16 kernels, CobAddress cob,
                              std::string& problem) {
  net::PortFailure failure;
  auto tap = net::TapPort::open({.name = plan.name,
                                 .queues = kernels,
                                 .host = {plan.host},
                                 .prefix_bits = cob.prefix_bits,
                                 .offload = plan.offload},
                                failure);
  if (tap.is_error()) {
    problem = failure.text;
    return tap.error();
  }
  tap_.emplace(tap.release_value());
  offload_ = plan.offload;
  auto program = net::TapSteering::create(keeper_.tables());
  const auto attached =
      program.is_error() ? Result<void>(program.error()) : program.value().attach(tap_->queue(0));
  if (attached.is_error()) {
    steered_by_ = fmt::format("the tun driver, and kernels hand frames on: {}: {}",
                              attached.error().what, std::strerror(attached.error().code));
  } else {
    steered_by_ = "eBPF";
    program_.emplace(program.release_value());
  }
  return {};
}

Result<void> Uplink::steer_receiving(const UplinkPlan& plan, std::string& problem) {
  linux_receives_ = "on the sending kernel's core";
  if (plan.receive_cores.empty()) return {};
  auto set = net::ReceiveCores::set(plan.name, tap_->queues(), plan.receive_cores);
  if (set.is_error()) {
    problem = fmt::format("--uplink {}: rps: {}: {}{}", plan.text, set.error().what,
                          std::strerror(set.error().code),
                          set.error().code == EPERM ? ": needs root" : "");
    return set.error();
  }
  receive_.emplace(set.release_value());
  linux_receives_ = "on cores " + format_cores(plan.receive_cores);
  return {};
}

Result<void> Uplink::open_xdp(const UplinkPlan& plan, u16 kernels, CobAddress cob,
                              const CobIpv6& ipv6, std::string& problem) {
  net::PortFailure failure;
  auto xdp = net::XdpPort::open({.interface = plan.name,
                                 .kernels = kernels,
                                 .address = {cob.address},
                                 .ipv6 = {ipv6.address},
                                 .copies = plan.copies,
                                 .generic = plan.generic_xdp},
                                failure);
  if (xdp.is_error()) {
    problem = failure.text;
    return xdp.error();
  }
  xdp_.emplace(xdp.release_value());
  offload_ = xdp_->sums_left_out();
  steered_by_ = xdp_->describe();
  return {};
}

std::vector<FdRef> Uplink::descriptors(u16 kernel) const {
  std::vector<FdRef> all{keeper_.tables().fd(), keeper_.changes()};
  if (tap_) all.push_back(tap_->queue(kernel));
  return all;
}

Result<std::vector<Fd>> Uplink::descriptors_of_a_life(u16 kernel) {
  if (!xdp_) return std::vector<Fd>();
  return xdp_->take_sockets(kernel);
}

void Uplink::describe(message::Config& config) const {
  config.uplink = kind();
  config.uplink_offload = offload_ ? 1 : 0;
  if (tap_) config.uplink_mtu = tap_->mtu();  // a cable's frames have their own
  if (!xdp_) return;
  config.uplink_mtu = xdp_->mtu();
  config.uplink_proxy = static_cast<u16>(config.kernel % xdp_->queues());
  config.uplink_gathers = xdp_->gathers() ? 1 : 0;
  // The interface's own, which its hardware lets in; the program tells the cob's frames by their
  // address.
  std::ranges::copy(xdp_->mac().bytes, config.mac);
}

void Uplink::mirror() {
  if (!program_) return;
  program_->mirror();
  program_->set_first(keeper_.first());
}

void Uplink::kernel_up(u16 kernel) {
  keeper_.kernel_up(kernel);
  mirror();
}

void Uplink::kernel_down(u16 kernel) {
  keeper_.kernel_down(kernel);
  mirror();
}

bool Uplink::listening(u16 kernel, Port port, bool listens) {
  if (!keeper_.listening(kernel, port, listens)) return false;
  mirror();
  return true;
}

std::size_t Uplink::move_groups(u16 from, Port port, std::span<const SteeringKeeper::Move> moves) {
  const std::size_t moved = keeper_.move_groups(from, port, moves);
  if (moved != 0) mirror();
  return moved;
}

bool Uplink::hang(u16 kernel, bool on) {
  if (!keeper_.hang(kernel, on)) return false;
  mirror();
  return true;
}

bool Uplink::drain(u16 kernel, bool on) {
  if (!keeper_.drain(kernel, on)) return false;
  mirror();
  return true;
}

}  // namespace cob::cli
