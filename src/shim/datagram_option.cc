// Options of datagram sockets. ip(7), udp(7), socket(7). Model: what is put into each datagram or
// said with each received one lies in the Socket; groups are the kernel's. The socket's lock.

#include <netinet/in.h>
#include <netinet/ip.h>
#include <string.h>

#include "shim/address.h"
#include "shim/datagram.h"
#include "shim/places.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr int ip_multicast_all = 49;  // IP_MULTICAST_ALL, not in every libc's headers

// IP_ADD_MEMBERSHIP and IP_DROP_MEMBERSHIP: ip_mreq or ip_mreqn. The interface is the cob.
int change_membership(Socket* socket, bool join, const void* value, socklen_t length) {
  struct Request {
    u32 group, interface;
  } request{};
  if (length < sizeof request) return EINVAL;
  memcpy(&request, value, sizeof request);
  const u32 group = ntohl(request.group);
  if (group >> 28 != 14) return EINVAL;
  if (socket->stage == Stage::undecided) {
    const u32 interface = ntohl(request.interface);
    // Named by an address of the host's: so will the socket be, and the group is kept for it.
    if (interface != 0 && interface != g.cob_address && !is_loopback(interface)) return 0;
    Arena* arena = birth_arena();
    if (arena == nullptr) return ENETDOWN;
    const bool fresh_slot = socket->arena == nullptr;
    if (const int error = begin_slot(socket, arena)) return error;
    if (fresh_slot) post_options(socket);
  }
  if (!is_live(socket)) return ENETDOWN;
  Call c{.op = Op::membership};
  c.a[0] = group;
  c.a[1] = join ? 1 : 0;
  const i32 result = call_on(socket, c).result;
  return result < 0 ? -result : 0;
}

// Linux's ip options take one byte or an int.
int number_of(const void* value, socklen_t length) {
  int number = 0;
  if (length >= sizeof number) {
    memcpy(&number, value, sizeof number);
  } else if (length > 0) {
    u8 byte = 0;
    memcpy(&byte, value, 1);
    number = byte;
  }
  return number;
}

}  // namespace

int set_datagram_option(Socket* socket, int level, int name, const void* value, socklen_t length,
                        bool& handled) {
  handled = true;
  const int number = number_of(value, length);
  if (level == SOL_SOCKET && name == SO_BROADCAST) socket->broadcast = number != 0;
  if (level != IPPROTO_IP) {
    handled = level != SOL_SOCKET;  // a datagram socket has no options of TCP's
    return handled ? ENOPROTOOPT : 0;
  }
  switch (name) {
    case IP_ADD_MEMBERSHIP:
    case IP_DROP_MEMBERSHIP:
      return change_membership(socket, name == IP_ADD_MEMBERSHIP, value, length);
    case IP_MULTICAST_TTL:
      if (length < 1 || number < -1 || number > 255) return EINVAL;
      socket->group_time_to_live = static_cast<u8>(number == -1 ? 1 : number);
      return 0;
    case IP_MULTICAST_LOOP:
      if (length < 1) return EINVAL;
      socket->group_loop_off = number == 0;
      return 0;
    case IP_MULTICAST_IF:
    case ip_multicast_all:
      return length < sizeof(int) ? EINVAL : 0;
    case IP_RECVTTL:
      socket->tell_time_to_live = number != 0;
      return 0;
    case IP_RECVTOS:
      socket->tell_type_of_service = number != 0;
      return 0;
    // These are also kept among the plain ones, for getsockopt and a host socket.
    case IP_PKTINFO:
      socket->tell_packet_info = number != 0;
      break;
    case IP_TOS:
      socket->type_of_service = static_cast<u8>(number);
      break;
    case IP_TTL:
      if (number >= 1 && number <= 255) socket->time_to_live = static_cast<u8>(number);
      if (number == -1) socket->time_to_live = 64;
      break;
    case IP_MTU_DISCOVER:
      if (number >= IP_PMTUDISC_DONT && number <= IP_PMTUDISC_OMIT)
        socket->mtu_discover = static_cast<u8>(number);
      break;
    default:
      break;
  }
  handled = false;
  return 0;
}

int get_datagram_option(Socket* socket, int level, int name, int& number, bool& handled) {
  handled = true;
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_TYPE:
        number = SOCK_DGRAM;
        return 0;
      case SO_PROTOCOL:
        number = IPPROTO_UDP;
        return 0;
      case SO_SNDBUF:
        number = socket->send_buffer != 0 ? socket->send_buffer : 212'992;
        return 0;
      case SO_RCVBUF:
        number = socket->receive_buffer != 0 ? socket->receive_buffer : 212'992;
        return 0;
      case SO_ACCEPTCONN:
        number = 0;
        return 0;
      default:
        handled = false;
        return 0;
    }
  }
  if (level != IPPROTO_IP) return socket->ipv6 ? ENOPROTOOPT : EOPNOTSUPP;
  switch (name) {
    case IP_MULTICAST_TTL:
      number = socket->group_time_to_live;
      return 0;
    case IP_MULTICAST_LOOP:
      number = !socket->group_loop_off;
      return 0;
    case IP_RECVTTL:
      number = socket->tell_time_to_live;
      return 0;
    case IP_RECVTOS:
      number = socket->tell_type_of_service;
      return 0;
    case IP_TOS:
      number = socket->type_of_service;
      return 0;
    case ip_multicast_all:
    case IP_MULTICAST_IF:
      number = name == ip_multicast_all ? 1 : 0;
      return 0;
    default:
      handled = false;
      return 0;
  }
}

}  // namespace cob::shim
