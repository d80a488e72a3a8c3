// SocketText: a socket's row as ss(8) shows it, and as JSON. Model: pure functions of the row and
// of who has which pid. Values; one thread.
#pragma once

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "kernel/view.h"

namespace cob::cli {

inline constexpr std::array<u8, 16> no_ipv6{};

// net::Ipv4Address::value, or what stands for IPv6's; `ipv6`: the bytes of call::ipv6_elsewhere.
std::string format_host(u32 address, std::span<const u8, 16> ipv6 = no_ipv6);
const char* state_name(u8 state);  // "ESTAB"

class SocketText {
 public:
  // `commands`: of the cob's programs, by pid. `numeric`: ports as numbers, not by services(5).
  SocketText(std::map<u32, std::string> commands, bool numeric)
      : commands_(std::move(commands)), numeric_(numeric) {}

  std::string local(const kernel::SocketRow& row) const;    // "10.77.0.1:http"
  std::string remote(const kernel::SocketRow& row) const;   // "0.0.0.0:*" of a listener
  std::string users(const kernel::SocketRow& row) const;    // -p
  std::string timer(const kernel::SocketRow& row) const;    // -o
  std::string details(const kernel::SocketRow& row) const;  // -e
  std::string memory(const kernel::SocketRow& row) const;   // -m
  std::string info(const kernel::SocketRow& row) const;     // -i
  nlohmann::json json(const kernel::SocketRow& row, int kernel) const;

 private:
  std::string end_point(const std::string& host, u16 port, bool datagram = false) const;
  std::string command_of(u32 pid) const;

  std::map<u32, std::string> commands_;
  bool numeric_;
};

}  // namespace cob::cli
