// Whose a socket is: the cob's, or the host's whose socket then stands at its numbers (connect.cc).
// docs/calls.md, "Whose a socket is". The socket's lock.
#pragma once

#include <sys/socket.h>

#include "shim/address.h"
#include "shim/socket.h"

namespace cob::shim {

// The cob's own addresses, and those of the host's that a cob's socket may stand behind. While
// there is no kernel to ask they are nobody's (ENETDOWN): a host socket in their place would stay.
bool may_be_ours(u32 address);

// What the cob reaches if it has a way out, which its kernel knows; Sockets::goes_out() has the
// kernel's side of the rule. Else it is the host's.
bool goes_out(u32 address);

// The socket becomes the host's, with everything that was set on it. 0 or an errno. With `first`,
// an address of this machine, the connect is begun before: refused, the socket stays undecided, for
// Linux lets a refused socket try elsewhere; EINPROGRESS and EISCONN say how far it came.
int to_host(Socket* socket, bool keep_bind, const Ipv4Endpoint* first = nullptr);

// connect(2) as sendto(2) with MSG_FASTOPEN begins it: 0 where the first bytes may go with the SYN,
// and where there was time to connect. Sets errno.
int connect_fast_open(int fd, const sockaddr* address, socklen_t length);

}  // namespace cob::shim
