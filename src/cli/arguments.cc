#include "cli/arguments.h"

#include <arpa/inet.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "cli/failure.h"

namespace cob::cli {
namespace {

std::optional<u32> parse_number(std::string_view text, u32 max) {
  u32 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value > max)
    return std::nullopt;
  return value;
}

std::string checked_as(std::string_view whose, std::string_view text) {
  if (text.empty()) fail(exit_usage, "{} name cannot be empty", whose);
  if (text.size() > max_name_bytes) {
    fail(exit_usage, "the name '{}...' is too long: {} characters, at most {}",
         text.substr(0, max_name_bytes), text.size(), max_name_bytes);
  }
  const bool plain = std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  if (!plain || text == "." || text == "..") {
    fail(exit_usage, "the name '{}' cannot be used: a name is letters, digits, '.', '_' and '-'",
         text);
  }
  return std::string(text);
}

}  // namespace

std::string checked_name(std::string_view text) { return checked_as("a cob's", text); }

std::string checked_island(std::string_view text) { return checked_as("an island's", text); }

std::vector<int> parse_cores(std::string_view text, std::string_view option) {
  std::vector<int> cores;
  const std::string_view whole = text;
  auto bad = [&](std::string_view part) {
    fail(exit_usage, "{} {}: '{}' is not a core or a range of cores (examples: 0   0,1   2-5,8)",
         option, whole, part);
  };
  while (true) {
    const std::size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    const std::size_t dash = part.find('-');
    const auto first = parse_number(part.substr(0, dash), CPU_SETSIZE - 1);
    const auto last = dash == std::string_view::npos
                          ? first
                          : parse_number(part.substr(dash + 1), CPU_SETSIZE - 1);
    if (!first || !last || *last < *first) bad(part);
    for (u32 core = *first; core <= *last; ++core) cores.push_back(static_cast<int>(core));
    if (cores.size() > max_kernels)
      fail(exit_usage, "{} {}: more than {} kernels", option, whole, max_kernels);
    if (comma == std::string_view::npos) return cores;
    text.remove_prefix(comma + 1);
  }
}

std::vector<int> usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(static_cast<std::size_t>(core), &set)) cores.push_back(core);
  }
  return cores;
}

void check_usable(const std::vector<int>& cores) {
  const std::vector<int> usable = usable_cores();
  for (const int core : cores) {
    if (!std::ranges::binary_search(usable, core)) {
      fail(exit_usage,
           "core {} does not exist or is not ours to use: this process may use cores {}", core,
           format_cores(usable));
    }
  }
}

std::string format_cores(const std::vector<int>& cores) {
  std::string text;
  for (std::size_t i = 0; i < cores.size();) {
    std::size_t last = i;
    while (last + 1 < cores.size() && cores[last + 1] == cores[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += last == i ? fmt::format("{}", cores[i]) : fmt::format("{}-{}", cores[i], cores[last]);
    i = last + 1;
  }
  return text;
}

std::vector<int> plan_cores(int kernels, std::string_view cores_text) {
  const std::vector<int> usable = usable_cores();
  std::vector<int> plan = usable;
  if (!cores_text.empty()) {
    plan = parse_cores(cores_text);
    check_usable(plan);
  }
  const std::size_t wanted =
      kernels > 0 ? static_cast<std::size_t>(kernels) : std::min(plan.size(), max_kernels);
  if (wanted > plan.size()) {
    fail(exit_usage,
         "{} kernels need {} cores, and there {} {}: kernels poll, one a core. To let kernels "
         "share a core all the same, "
         "name it twice (--cores 0,0)",
         wanted, wanted, plan.size() == 1 ? "is" : "are", plan.size());
  }
  plan.resize(wanted);
  return plan;
}

CobAddress parse_address(std::string_view text) {
  const std::size_t slash = text.find('/');
  const std::string host(text.substr(0, slash));
  in_addr parsed{};
  const u32 bits =
      slash == std::string_view::npos ? 0 : parse_number(text.substr(slash + 1), 32).value_or(0);
  if (::inet_pton(AF_INET, host.c_str(), &parsed) != 1 || bits < 8) {
    fail(exit_usage, "--ip {}: not an IPv4 address with its prefix length of 8 to 32 (example: {})",
         text, default_address);
  }
  const CobAddress address{ntohl(parsed.s_addr), bits};
  const u32 top = address.address >> 24;
  if (top == 0 || top == 127 || top >= 224) {
    fail(exit_usage, "--ip {}: {} addresses cannot be a cob's", text,
         top == 127 ? "loopback" : "multicast and reserved");
  }
  const u32 host_mask = bits == 32 ? 0 : 0xffff'ffffu >> bits;
  const u32 host_part = address.address & host_mask;
  if (bits < 31 && (host_part == 0 || host_part == host_mask)) {
    fail(exit_usage, "--ip {}: that is the network's own {} address; choose a host's", text,
         host_part == 0 ? "first (network)" : "last (broadcast)");
  }
  return address;
}

std::string format_ipv6(const std::array<u8, 16>& address) {
  char text[INET6_ADDRSTRLEN];
  return ::inet_ntop(AF_INET6, address.data(), text, sizeof text);
}

CobIpv6 parse_ipv6(std::string_view text, std::string_view gateway) {
  CobIpv6 ipv6;
  if (text.empty()) {
    if (!gateway.empty()) fail(exit_usage, "--gateway6 needs an --ip6 to reach it from");
    return ipv6;
  }
  ipv6.on = true;
  ipv6.automatic = text == "auto";
  const auto read = [](const std::string& host, std::array<u8, 16>& out) {
    return ::inet_pton(AF_INET6, host.c_str(), out.data()) == 1 && out[0] != 0xff &&
           (out[0] | out[1] | out[2] | out[3]) != 0;  // no group, ::1, ::ffff:a.b.c.d or the like
  };
  if (!ipv6.automatic) {
    const std::size_t slash = text.find('/');
    const u32 bits =
        slash == std::string_view::npos ? 0 : parse_number(text.substr(slash + 1), 128).value_or(0);
    const bool link_local = text.starts_with("fe80:");
    if (!read(std::string(text.substr(0, slash)), ipv6.address) || bits < 16 || link_local)
      fail(exit_usage,
           "--ip6 {}: neither 'auto' nor a host's IPv6 address with its prefix length of 16 to 128 "
           "(example: fd00::2/64)",
           text);
    ipv6.prefix_bits = bits;
  }
  if (!gateway.empty() && !read(std::string(gateway), ipv6.gateway))
    fail(exit_usage, "--gateway6 {}: not a host's IPv6 address", gateway);
  return ipv6;
}

std::string format_address(CobAddress a) {
  return fmt::format("{}.{}.{}.{}/{}", a.address >> 24, (a.address >> 16) & 255,
                     (a.address >> 8) & 255, a.address & 255, a.prefix_bits);
}

}  // namespace cob::cli
