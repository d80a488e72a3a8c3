// Datagram sockets: what the families of calls pass on here. udp(7). docs/calls.md, "Datagrams".
// Model: undecided until bind, connect or the first send; a received datagram is a header and its
// bytes in the receive chunks; a sent one is one post. Any thread.
#pragma once

#include "shim/pieces.h"
#include "shim/socket.h"

namespace cob::shim {

// The socket at `fd` if it is a datagram socket of the cob's, or not decided.
inline Socket* datagram_at(int fd) {
  Socket* socket = lookup_socket(fd);
  return socket != nullptr && socket->datagram ? socket : nullptr;
}

// recv and its kin. Bytes or -errno; -ENOTSOCK: the number is no longer cob's. `message` (may be
// null) gets name, control data and flags.
ssize_t receive_datagram(int fd, const iovec* parts, size_t count, int flags,
                         msghdr* message = nullptr);

struct DatagramOut {
  int fd;
  const iovec* parts;
  size_t count;
  int flags;
  const sockaddr* to = nullptr;
  socklen_t length = 0;
  const msghdr* message = nullptr;  // its control data
};
// send and its kin. Bytes or -errno; -ENOTSOCK: the number is no longer cob's.
ssize_t send_datagram(const DatagramOut& out);

// 0, -1 and errno. True: the socket is the host's now, and so is the call.
int bind_datagram(Socket* socket, const sockaddr* address, socklen_t length, bool& host);
int connect_datagram(Socket* socket, const sockaddr* address, socklen_t length, bool& host);
int shutdown_datagram(Socket* socket, int how);
// It becomes the host's, if it may: 0 or an errno.
int leave_cob(Socket* socket);

// FIONREAD: bytes of the next datagram.
i64 next_datagram_bytes(Socket* socket, int fd);
// As take_error (socket.h).
int take_datagram_error(Socket* socket);

// After a kernel's death, in a slot of its successor's: bound and connected as before. False: not.
bool bind_anew(Socket* socket);

// Options of datagram sockets (datagram_option.cc): an errno; ENOPROTOOPT also where the others'
// handling applies (`handled` false).
int set_datagram_option(Socket* socket, int level, int name, const void* value, socklen_t length,
                        bool& handled);
int get_datagram_option(Socket* socket, int level, int name, int& number, bool& handled);

}  // namespace cob::shim
