// Socket addresses between libc's form and the call channel's (host byte order).
// Any thread.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "shim/contract.h"

namespace cob::shim {

struct Ipv4Endpoint {
  u32 address;
  u16 port;
};

// False: too short, or of another family.
inline bool read_address(const sockaddr* address, socklen_t length, Ipv4Endpoint& out) {
  sockaddr_in in{};
  if (address == nullptr || length < sizeof in) return false;
  memcpy(&in, address, sizeof in);
  if (in.sin_family != AF_INET) return false;
  out = {ntohl(in.sin_addr.s_addr), ntohs(in.sin_port)};
  return true;
}

// Truncates as the kernel does; *length becomes the full length.
inline void write_address(const Ipv4Endpoint& from, sockaddr* address, socklen_t* length) {
  if (address == nullptr || length == nullptr) return;
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(from.address);
  in.sin_port = htons(from.port);
  memcpy(address, &in, *length < sizeof in ? *length : sizeof in);
  *length = sizeof in;
}

inline bool is_loopback(u32 address) { return address >> 24 == 127; }

}  // namespace cob::shim
