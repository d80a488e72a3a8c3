// Datagrams with descriptors beside them (SCM_RIGHTS, unix(7)) over SOCK_SEQPACKET, and pairs of
// such sockets. Descriptors received are close-on-exec and owned at once, so that nothing a peer
// sends can leak. Never blocks unless the socket does and the caller allows it. Any thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace cob {

inline constexpr std::size_t max_passed =
    128;  // descriptors a datagram; more than the kernels a cob may have

// O_NONBLOCK belongs to the open file description, which others may hold too: `never` does not
// depend on it.
enum class Blocking { as_the_socket_does, never };

struct Datagram {
  std::size_t bytes = 0;   // 0: the peer closed
  bool truncated = false;  // longer than the buffer, or more descriptors than max_passed
  pid_t sender = 0;        // from SCM_CREDENTIALS where SO_PASSCRED is set, else 0
  std::vector<Fd> descriptors;
};

// Both ends close-on-exec and non-blocking.
Result<std::pair<Fd, Fd>> seqpacket_pair();
// For an end that is handed to a program: the supervisor's own end stays as it is.
void make_blocking(FdRef socket);

Result<void> send_datagram(FdRef socket, std::span<const std::byte> bytes,
                           std::span<const FdRef> descriptors = {},
                           Blocking blocking = Blocking::as_the_socket_does);
// EAGAIN when nothing waits.
Result<Datagram> receive_datagram(FdRef socket, std::span<std::byte> buffer,
                                  Blocking blocking = Blocking::as_the_socket_does);

template <typename Struct>
Result<void> send_struct(FdRef socket, const Struct& value, std::span<const FdRef> descriptors = {},
                         Blocking blocking = Blocking::as_the_socket_does) {
  return send_datagram(socket, std::as_bytes(std::span(&value, 1)), descriptors, blocking);
}

}  // namespace cob
