// What people type: names of cobs, lists of cores, the cob's address. Each is checked here, before
// anything is touched. A bad value throws Failure{exit_usage} with a sentence that says what is
// wrong and what would be right. Values; no owner.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace cob::cli {

inline constexpr std::size_t max_name_bytes = 32;
inline constexpr std::size_t max_kernels = 64;
inline constexpr char default_name[] = "default";
inline constexpr char default_address[] = "10.77.0.1/24";

// 1 to 32 of [a-zA-Z0-9._-], not "." or "..": a name is also a directory.
std::string checked_name(std::string_view text);
// The same of an island's name.
std::string checked_island(std::string_view text);

// "0,2-5" in the order given; a core may be named twice (two kernels then share it).
// `option`: what a refusal names.
std::vector<int> parse_cores(std::string_view text, std::string_view option = "--cores");

// Cores that this process may run on, ascending.
std::vector<int> usable_cores();
// That each of them is one.
void check_usable(const std::vector<int>& cores);
std::string format_cores(const std::vector<int>& cores);  // "0-1,4"

// One core a kernel. kernels 0 and cores empty mean "not given"; see `cob up --help` for the rules.
std::vector<int> plan_cores(int kernels, std::string_view cores);

struct CobAddress {
  u32 address = 0;  // host byte order
  u32 prefix_bits = 0;
};
CobAddress parse_address(std::string_view text);  // "10.77.0.1/24"

struct CobIpv6 {
  bool on = false;
  bool automatic = false;        // from router advertisements
  std::array<u8, 16> address{};  // of prefix_bits; 0: none
  u32 prefix_bits = 0;
  std::array<u8, 16> gateway{};
  std::array<u64, 2> identifier_key{};  // of `automatic`
};
// "" (off), "auto" or "fd00::2/64"; `gateway`: "" or an address.
CobIpv6 parse_ipv6(std::string_view text, std::string_view gateway);
std::string format_ipv6(const std::array<u8, 16>& address);
std::string format_address(CobAddress address);

}  // namespace cob::cli
