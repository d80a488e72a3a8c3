// What a socket's family makes of the addresses that a program names, and IPv6's options. ipv6(7),
// RFC 3493. Model: a socket of AF_INET6 is a cob socket as one of AF_INET is; it remembers its
// family and IPV6_V6ONLY, and differs where addresses are read and written (address.h). The
// socket's lock.
#pragma once

#include "shim/address.h"
#include "shim/socket.h"

namespace cob::shim {

// To what a socket is bound that no bind named.
inline u32 unnamed_address(const Socket* socket) {
  if (!socket->ipv6) [[likely]]
    return 0;
  return socket->ipv6_only ? call::ipv6_any : call::dual_any;
}

// The address of a bind. 0 or an errno.
int read_local(const Socket* socket, const sockaddr* address, socklen_t length,
               Ipv4Endpoint& local);
// What the cob may reach by IPv6, as far as the shim can tell: its kernel is to be asked. An own
// address of the cob's becomes its name.
bool asks_for_ipv6(Ipv4Endpoint& remote);
// From the kernel's line: the other end.
Ipv4Endpoint remote_of(const call::SocketNames& names);
// The bind has succeeded. Who is bound to an IPv6 address speaks IPv6 only, as Linux has it.
void note_bound(Socket* socket, Ipv4Endpoint local);
// The address of a connect; :: is ::1. 0 or an errno.
int read_remote(const Socket* socket, const sockaddr* address, socklen_t length,
                Ipv4Endpoint& remote);
// The address of a datagram. 0 or an errno; EDESTADDRREQ: it names none.
int read_target(const Socket* socket, const sockaddr* address, socklen_t length,
                Ipv4Endpoint& remote);

// Level IPPROTO_IPV6: 0 or an errno.
int set_ipv6_option(Socket* socket, int name, const void* value, socklen_t length);
int get_ipv6_option(Socket* socket, int name, int& number);
// It joins a group of IPv6's, which are the host's.
bool joins_ipv6_group(const Socket* socket, int level, int name);

}  // namespace cob::shim
