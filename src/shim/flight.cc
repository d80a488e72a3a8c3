// A cob socket on its way by SCM_RIGHTS. unix(7); docs/calls.md, "Details". Model: what travels is
// one end of a socket pair, in which the placeholder lies; the kernel has the other end, and a
// reference for as long as a copy of the first is open somewhere: in a message that nobody has
// received yet, whether or not its sender still lives. The receiver puts the placeholder in its
// place. Any thread.

#include "shim/inherit.h"
#include "shim/passage.h"
#include "shim/socket.h"

namespace cob::shim {

using namespace call;

Lock flight_lock;

namespace {

// Is it the end of a pair that travels? The placeholder in it, a fresh number, and its token; -1:
// no.
int placeholder_in(int fd, u64& token) {
  int kind[2] = {};
  constexpr int names[2] = {SO_DOMAIN, SO_TYPE};
  for (int i = 0; i < 2; ++i) {
    socklen_t length = sizeof kind[i];
    if (raw::call(SYS_getsockopt, fd, SOL_SOCKET, names[i], raw::at(&kind[i]), raw::at(&length)) <
        0) {
      return -1;
    }
  }
  if (kind[0] != AF_UNIX || kind[1] != SOCK_SEQPACKET) return -1;
  Flight flight{};
  const long n =
      raw::call(SYS_recvfrom, fd, raw::at(&flight), sizeof flight, MSG_PEEK | MSG_DONTWAIT, 0, 0);
  if (n != sizeof flight || flight.mark != flight_mark) return -1;
  int placeholder = -1;
  u32 count = 0;
  receive_with_fds(fd, &flight, sizeof flight, &placeholder, 1, count, MSG_PEEK | MSG_DONTWAIT);
  token = flight.token;
  return count == 1 ? placeholder : -1;
}

}  // namespace

int begin_flight(int fd) {
  const Critical critical;
  const Passage passage;
  Socket* socket = lookup_description(fd);
  if (socket == nullptr) return -EBADF;
  int error = share_for_passing(socket, fd);
  if (error != 0) return -error;
  int pair[2] = {-1, -1};
  const RaisedLimit raised;
  const long made =
      raw::call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, raw::at(pair));
  if (made < 0) return static_cast<int>(made);
  drop_stale(pair[0]);
  drop_stale(pair[1]);
  const Flight flight{flight_mark, socket->placeholder.token};
  long sent = send_with_fds(pair[1], &flight, sizeof flight, &fd, 1);
  if (sent >= 0) {
    Guard guard(flight_lock);
    const u32 hello = static_cast<u32>(Hello::flight);
    constexpr u16 in_flight = 1;
    sent = send_with_fds(socket->arena->liveness, &hello, sizeof hello, &pair[1], 1);
    if (sent >= 0) error = call_publish(socket, in_flight);
  }
  raw::close(pair[1]);
  if (sent >= 0 && error == 0) return pair[0];
  raw::close(pair[0]);
  return sent < 0 ? static_cast<int>(sent) : -error;
}

int adopt_arrived(int fd) {
  fresh(fd);
  if (!attached()) return 0;
  const Critical critical;
  const Passage passage;
  u64 token = 0;
  const int placeholder = placeholder_in(fd, token);
  if (placeholder < 0) return 0;
  const int flags = raw::fcntl(fd, F_GETFD);
  const int end = raw::fcntl(fd, F_DUPFD_CLOEXEC, 0);  // the flight lasts until the adoption
  drop_stale(end);
  raw::dup3(placeholder, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
  raw::close(placeholder);
  Arena* arena = attach();
  const int error = arena == nullptr ? ENETDOWN : adopt_token(arena, fd, token);
  if (end >= 0) raw::close(end);
  return error;
}

}  // namespace cob::shim
