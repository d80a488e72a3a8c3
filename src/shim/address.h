// Socket addresses between libc's forms and the call channel's (host byte order). RFC 3493 section
// 3.7, RFC 4291 section 2.5.5.2. Model: inside are IPv4 addresses and what stands for IPv6's
// (call/layout.h): `elsewhere` with its bytes beside, or the name of an own one of the cob's. A
// socket's family says how a program writes and sees them: one of AF_INET6 has IPv4's as
// ::ffff:a.b.c.d. Any thread.
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

#include "shim/contract.h"

namespace cob::shim {

struct Ipv4Endpoint {
  u32 address;
  u16 port;
  in6_addr ipv6 = {};  // with `elsewhere`; zeros: 0/8 by IPv4, which is nobody's
  u32 scope = 0;       // as the program named it
};

inline constexpr u32 elsewhere = call::ipv6_elsewhere;

// The cob's own IPv6 addresses, as its kernel shows them (family.cc). 0: not one of them.
u32 own_name(const in6_addr& address);
in6_addr own_ipv6(u32 name);
// Of link-local addresses by the cob's uplink.
u32 uplink_scope();
inline bool is_own_ipv6(u32 address) { return address - call::ipv6_own < call::most_ipv6_own; }
inline bool is_link_local(const in6_addr& a) {
  return a.s6_addr[0] == 0xfe && (a.s6_addr[1] & 0xc0) == 0x80;
}

inline bool is_any(u32 address) { return address == 0 || (address | 1) == call::dual_any; }
inline bool is_loopback(u32 address) {
  return address >> 24 == 127 || address == call::ipv6_loopback;
}
inline bool is_ipv4(u32 address) { return address == 0 || address >> 24 != 0; }

// A program that names 0.0.0.1 by IPv4 does not mean what that stands for here.
inline u32 from_ipv4(u32 address) { return is_ipv4(address) ? address : elsewhere; }

inline u32 from_ipv6(const in6_addr& address) {
  u32 word[4];
  memcpy(word, &address, sizeof word);
  if ((word[0] | word[1]) != 0) return elsewhere;
  const u32 low = ntohl(word[3]);
  if (word[2] == htonl(0xffff)) return from_ipv4(low);
  if (word[2] != 0 || low > 1) return elsewhere;
  return low == 0 ? call::dual_any : call::ipv6_loopback;
}

inline in6_addr to_ipv6(u32 address) {
  if (is_own_ipv6(address)) return own_ipv6(address);
  u32 word[4] = {};
  if (address == call::ipv6_loopback) {
    word[3] = htonl(1);
  } else if (is_ipv4(address)) {
    word[2] = htonl(0xffff);
    word[3] = htonl(address);
  }
  in6_addr out;
  memcpy(&out, word, sizeof out);
  return out;
}

// 0, EINVAL (too short) or EAFNOSUPPORT (not of the socket's family). :: is dual_any.
inline int read_address(const sockaddr* address, socklen_t length, bool ipv6, Ipv4Endpoint& out) {
  if (ipv6) [[unlikely]] {
    constexpr socklen_t least = offsetof(sockaddr_in6, sin6_scope_id);  // RFC 2133 had no scope
    sockaddr_in6 in{};
    if (address == nullptr || length < least) return EINVAL;
    memcpy(&in, address, length < sizeof in ? least : socklen_t{sizeof in});
    if (in.sin6_family != AF_INET6) return EAFNOSUPPORT;
    out = {from_ipv6(in.sin6_addr), ntohs(in.sin6_port)};
    if (out.address == elsewhere && !IN6_IS_ADDR_V4MAPPED(&in.sin6_addr)) {
      out.ipv6 = in.sin6_addr;
      out.scope = in.sin6_scope_id;
    }
    return 0;
  }
  sockaddr_in in{};
  if (address == nullptr || length < sizeof in) return EINVAL;
  memcpy(&in, address, sizeof in);
  if (in.sin_family != AF_INET) return EAFNOSUPPORT;
  out = {from_ipv4(ntohl(in.sin_addr.s_addr)), ntohs(in.sin_port)};
  return 0;
}

// Truncates as the kernel does; *length becomes the full length. An endpoint of zeros is unbound.
inline void write_address(const Ipv4Endpoint& from, bool ipv6, sockaddr* address,
                          socklen_t* length) {
  if (address == nullptr || length == nullptr) return;
  if (ipv6) [[unlikely]] {
    sockaddr_in6 in{};
    in.sin6_family = AF_INET6;
    if (from.address != 0 || from.port != 0)
      in.sin6_addr = from.address == elsewhere ? from.ipv6 : to_ipv6(from.address);
    if (is_link_local(in.sin6_addr))
      in.sin6_scope_id = from.scope != 0 ? from.scope : uplink_scope();
    in.sin6_port = htons(from.port);
    memcpy(address, &in, *length < sizeof in ? *length : sizeof in);
    *length = sizeof in;
    return;
  }
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(from.address);
  in.sin_port = htons(from.port);
  memcpy(address, &in, *length < sizeof in ? *length : sizeof in);
  *length = sizeof in;
}

}  // namespace cob::shim
