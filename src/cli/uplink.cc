// `--uplink`, checked and opened; see uplink.h. The supervisor's thread.
#include "cli/uplink.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <net/if.h>

#include <cstring>

#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr std::string_view tap_prefix = "tap:", host_option = "host=",
                           offload_option = "offload=off";

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

}  // namespace

UplinkPlan parse_uplink(std::string_view text, std::string_view gateway, CobAddress cob) {
  UplinkPlan plan;
  if (text.empty()) {
    if (!gateway.empty()) fail(exit_usage, "--gateway needs an --uplink to reach it by");
    return plan;
  }
  plan.text = text;
  if (!gateway.empty()) plan.gateway = parse_host("--gateway", gateway, cob);
  if (!text.starts_with(tap_prefix))
    fail(exit_usage, "--uplink {}: not of the form tap:NAME or tap:NAME,host=ADDR", text);
  text.remove_prefix(tap_prefix.size());
  const std::size_t comma = text.find(',');
  plan.kind = message::UplinkKind::tap;
  plan.name = text.substr(0, comma);
  if (plan.name.empty() || plan.name.size() >= IFNAMSIZ ||
      plan.name.find_first_of("/ %") != std::string::npos)
    fail(exit_usage, "--uplink {}: a TAP device has a name of 1 to 15 bytes", plan.text);
  while (text.find(',') != std::string_view::npos) {
    text.remove_prefix(text.find(',') + 1);
    const std::string_view word = text.substr(0, text.find(','));
    if (word == offload_option) {
      plan.offload = false;
    } else if (word.starts_with(host_option)) {
      plan.host = parse_host("--uplink host", word.substr(host_option.size()), cob);
    } else {
      fail(exit_usage, "--uplink {}: after the name only host=ADDR and offload=off may follow",
           plan.text);
    }
  }
  return plan;
}

Result<Uplink> Uplink::open(const UplinkPlan& plan, u16 kernels, CobAddress cob,
                            std::string& problem) {
  Uplink uplink(TRY(SteeringKeeper::create(kernels)));
  if (plan.kind != message::UplinkKind::tap) return uplink;
  net::TapFailure failure;
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
  uplink.tap_.emplace(tap.release_value());
  auto program = net::TapSteering::create(uplink.keeper_.tables());
  const auto attached = program.is_error() ? Result<void>(program.error())
                                           : program.value().attach(uplink.tap_->queue(0));
  if (attached.is_error()) {
    uplink.steered_by_ = fmt::format("the tun driver, and kernels hand frames on: {}: {}",
                                     attached.error().what, std::strerror(attached.error().code));
  } else {
    uplink.steered_by_ = "eBPF";
    uplink.program_.emplace(program.release_value());
  }
  return uplink;
}

std::vector<FdRef> Uplink::descriptors(u16 kernel) const {
  std::vector<FdRef> all{keeper_.tables().fd(), keeper_.changes()};
  if (tap_) all.push_back(tap_->queue(kernel));
  return all;
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

}  // namespace cob::cli
