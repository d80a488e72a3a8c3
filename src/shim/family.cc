// AF_INET6 sockets: addresses and options. Model: family.h.

#include "shim/family.h"

#include "shim/arena.h"
#include "shim/information.h"
#include "shim/option_plain.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr int least_ipv6_mtu = 1'280;  // RFC 8200 section 5

// What Linux says of an address of the family that the socket does not speak, or is not bound to.
int check_family(const Socket* socket, Ipv4Endpoint& remote, int only_ipv6) {
  const bool bound_to_ipv4 = socket->bound && is_ipv4(socket->local_address);
  if (remote.address == dual_any)
    remote.address = bound_to_ipv4 ? u32{INADDR_LOOPBACK} : ipv6_loopback;
  if (is_ipv4(remote.address)) {
    return socket->ipv6_only ? only_ipv6 : 0;
  }
  return bound_to_ipv4 ? EAFNOSUPPORT : 0;
}

bool is_of_ipv4(const sockaddr* address, socklen_t length) {
  return length >= sizeof(sa_family_t) && address->sa_family == AF_INET;
}

}  // namespace

u32 own_name(const in6_addr& address) {
  const Arena* arena = current_arena();
  const in6_addr none{};
  if (arena == nullptr || memcmp(&address, &none, sizeof none) == 0) return 0;
  for (u32 i = 0; i < most_ipv6_own; ++i)
    if (memcmp(&address, arena->kernel->header.own_ipv6[i], sizeof address) == 0)
      return ipv6_own + i;
  return 0;
}

in6_addr own_ipv6(u32 name) {
  in6_addr out{};
  const Arena* arena = current_arena();
  if (arena != nullptr && is_own_ipv6(name))
    memcpy(&out, arena->kernel->header.own_ipv6[name - ipv6_own], sizeof out);
  return out;
}

u32 uplink_scope() {
  const Arena* arena = current_arena();
  return arena == nullptr ? 0 : load(arena->kernel->header.uplink_index);
}

bool asks_for_ipv6(Ipv4Endpoint& remote) {
  const in6_addr none{};
  if (!g.ipv6 || remote.address != elsewhere || memcmp(&remote.ipv6, &none, sizeof none) == 0 ||
      IN6_IS_ADDR_MULTICAST(&remote.ipv6) || attach() == nullptr)
    return is_own_ipv6(remote.address);
  if (is_link_local(remote.ipv6) && (remote.scope == 0 || remote.scope != uplink_scope()))
    return false;
  if (const u32 name = own_name(remote.ipv6)) remote.address = name;
  return true;
}

Ipv4Endpoint remote_of(const SocketNames& names) {
  Ipv4Endpoint out{load(names.remote_address), load(names.remote_port)};
  if (out.address == elsewhere) memcpy(&out.ipv6, names.remote_ipv6, sizeof out.ipv6);
  return out;
}

int read_local(const Socket* socket, const sockaddr* address, socklen_t length,
               Ipv4Endpoint& local) {
  const int error = read_address(address, length, socket->ipv6, local);
  if (error == 0) asks_for_ipv6(local);
  if (error != 0 || !socket->ipv6_only) return error;
  if (is_ipv4(local.address)) return EINVAL;
  if (local.address == dual_any) local.address = ipv6_any;
  return 0;
}

void note_bound(Socket* socket, Ipv4Endpoint local) {
  socket->bound = true;
  socket->local_address = local.address;
  socket->local_port = local.port;
  if (is_ipv4(local.address) || is_any(local.address)) return;
  socket->ipv6_only = true;
  if (socket->inherited_flags) remember(socket);
}

int read_remote(const Socket* socket, const sockaddr* address, socklen_t length,
                Ipv4Endpoint& remote) {
  if (!socket->ipv6) [[likely]]
    return read_address(address, length, false, remote);
  const bool plain = socket->datagram && is_of_ipv4(address, length);
  const int error = read_address(address, length, !plain, remote);
  return error != 0 ? error : check_family(socket, remote, plain ? EAFNOSUPPORT : ENETUNREACH);
}

int read_target(const Socket* socket, const sockaddr* address, socklen_t length,
                Ipv4Endpoint& remote) {
  const socklen_t least = socket->ipv6 ? sizeof(sa_family_t) : socklen_t{sizeof(sockaddr_in)};
  if (length < least) return EINVAL;
  int error = 0;
  if (!socket->ipv6) {
    sockaddr_in in{};
    memcpy(&in, address, sizeof in);
    if (in.sin_family != AF_INET && in.sin_family != AF_UNSPEC) return EAFNOSUPPORT;
    remote = {from_ipv4(ntohl(in.sin_addr.s_addr)), ntohs(in.sin_port)};
  } else {
    if (address->sa_family == AF_UNSPEC) return EDESTADDRREQ;
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6) return EINVAL;
    error = read_address(address, length, address->sa_family == AF_INET6, remote);
  }
  if (error == 0 && remote.port == 0) error = EINVAL;
  return error != 0 || !socket->ipv6 ? error : check_family(socket, remote, ENETUNREACH);
}

// ---- options

bool joins_ipv6_group(const Socket* socket, int level, int name) {
  if (!socket->ipv6 || !socket->datagram || level != IPPROTO_IPV6) return false;
  return name == IPV6_JOIN_GROUP || name == IPV6_JOIN_ANYCAST || name == MCAST_JOIN_GROUP ||
         name == MCAST_JOIN_SOURCE_GROUP;
}

namespace {

// Linux's inet_num: a connection that is over has given back a port that bind did not name.
bool holds_port(const Socket* socket) {
  if (socket->stage == Stage::undecided || (socket->bound && socket->local_port != 0))
    return socket->bound;
  if (socket->stage != Stage::stream || !is_live(socket) || !begun(socket)) return true;
  const auto state = acquire(socket->kernel->state);
  return state != call::SocketState::closed && state != call::SocketState::failed &&
         state != call::SocketState::undecided;
}

}  // namespace

int set_ipv6_option(Socket* socket, int name, const void* value, socklen_t length) {
  if (!socket->ipv6) return ENOPROTOOPT;
  const PlainOption* plain = plain_option(IPPROTO_IPV6, name);
  if (plain == nullptr && name != IPV6_V6ONLY && name != IPV6_MTU) return ENOPROTOOPT;
  int number = 0;
  if (length < sizeof number) return EINVAL;
  memcpy(&number, value, sizeof number);
  switch (name) {
    case IPV6_V6ONLY:
      if (holds_port(socket)) return EINVAL;
      socket->ipv6_only = number != 0;
      return 0;
    case IPV6_MTU:  // an MTU of the program's own choice, for datagrams
      if (number != 0 && number < least_ipv6_mtu) return EINVAL;
      socket->ipv6_mtu = static_cast<u16>(number < 65'535 ? number : 65'535);
      keep_option(socket, IPPROTO_IPV6, name, value, length);
      return 0;
    case IPV6_MULTICAST_IF:
    case IPV6_MULTICAST_HOPS:
      if (!socket->datagram) return ENOPROTOOPT;
      break;
    default:
      break;
  }
  if (const int error = check_plain(*plain, number)) return error;
  switch (name) {
    case IPV6_UNICAST_HOPS:
      socket->hop_limit = static_cast<u8>(number < 0 ? plain->initial : number);
      break;
    case IPV6_TCLASS:
      socket->traffic_class = static_cast<u8>(number < 0 ? 0 : number);
      break;
    case IPV6_MTU_DISCOVER:
      socket->ipv6_mtu_discover = static_cast<u8>(number);
      break;
    case IPV6_DONTFRAG:
      socket->ipv6_whole = number != 0;
      break;
    case IPV6_RECVPKTINFO:
      socket->tell_ipv6_packet_info = number != 0;
      break;
    case IPV6_RECVHOPLIMIT:
      socket->tell_hop_limit = number != 0;
      break;
    case IPV6_RECVTCLASS:
      socket->tell_traffic_class = number != 0;
      break;
    default:
      break;
  }
  keep_option(socket, IPPROTO_IPV6, name, value, length);
  return 0;
}

int get_ipv6_option(Socket* socket, int name, int& number) {
  if (!socket->ipv6) return EOPNOTSUPP;
  if (name == IPV6_MTU) return path_mtu(socket, number);
  if (name == IPV6_V6ONLY) {
    number = socket->ipv6_only;
    return 0;
  }
  const PlainOption* plain = plain_option(IPPROTO_IPV6, name);
  if (plain == nullptr) return ENOPROTOOPT;
  number =
      name == IPV6_TCLASS && socket->datagram ? socket->traffic_class : read_plain(socket, *plain);
  return 0;
}

}  // namespace cob::shim
