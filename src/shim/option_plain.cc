// Options without effect. Model: option_plain.h.

#include "shim/option_plain.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <string.h>

namespace cob::shim {

namespace {

using Form = PlainOption::Form;

constexpr PlainOption truth(int level, int name) {
  return {level, name, 0, INT_MIN, INT_MAX, Form::boolean};
}
constexpr PlainOption number(int level, int name, int initial, int least, int most) {
  return {level, name, initial, least, most, Form::number};
}

constexpr int ipv6_flowinfo_send = 33;  // IPV6_FLOWINFO_SEND, in linux/in6.h only

constexpr PlainOption options[] = {
    truth(SOL_SOCKET, SO_BROADCAST),
    truth(SOL_SOCKET, SO_DONTROUTE),
    truth(SOL_SOCKET, SO_OOBINLINE),
    truth(SOL_SOCKET, SO_TIMESTAMP),
    number(SOL_SOCKET, SO_PRIORITY, 0, INT_MIN, INT_MAX),
    number(SOL_SOCKET, SO_MARK, 0, INT_MIN, INT_MAX),
    number(SOL_SOCKET, SO_BUSY_POLL, 0, 0, INT_MAX),
    number(SOL_SOCKET, SO_INCOMING_CPU, -1, INT_MIN, INT_MAX),
    number(IPPROTO_TCP, TCP_FASTOPEN, 0, 0, INT_MAX),
    number(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0, 0, 1),
    number(IPPROTO_TCP, TCP_WINDOW_CLAMP, 0, 0, INT_MAX),
    number(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, INT_MIN, INT_MAX),
    number(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 0, 0, 1),
    {IPPROTO_IP, IP_TOS, 0, INT_MIN, INT_MAX, Form::differentiated_services},
    number(IPPROTO_IP, IP_TTL, 64, -1, 255),
    truth(IPPROTO_IP, IP_RECVERR),
    truth(IPPROTO_IP, IP_FREEBIND),
    truth(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT),
    number(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_WANT, IP_PMTUDISC_DONT, IP_PMTUDISC_OMIT),
    truth(IPPROTO_IP, IP_PKTINFO),
    number(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 64, -1, 255),
    number(IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 1, -1, 255),
    number(IPPROTO_IPV6, IPV6_MULTICAST_IF, 0, 0, INT_MAX),
    number(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1, 0, 1),
    {IPPROTO_IPV6, IPV6_MULTICAST_ALL, 1, INT_MIN, INT_MAX, Form::boolean},
    {IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 1, INT_MIN, INT_MAX, Form::boolean},
    number(IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_WANT, IPV6_PMTUDISC_DONT,
           IPV6_PMTUDISC_OMIT),
    {IPPROTO_IPV6, IPV6_TCLASS, 0, -1, 255, Form::differentiated_services},
    number(IPPROTO_IPV6, IPV6_MINHOPCOUNT, 0, 0, 255),
    truth(IPPROTO_IPV6, IPV6_RECVERR),
    truth(IPPROTO_IPV6, ipv6_flowinfo_send),
    truth(IPPROTO_IPV6, IPV6_RECVPKTINFO),
    truth(IPPROTO_IPV6, IPV6_RECVHOPLIMIT),
    truth(IPPROTO_IPV6, IPV6_RECVHOPOPTS),
    truth(IPPROTO_IPV6, IPV6_RECVRTHDR),
    truth(IPPROTO_IPV6, IPV6_RECVDSTOPTS),
    truth(IPPROTO_IPV6, IPV6_RECVPATHMTU),
    truth(IPPROTO_IPV6, IPV6_DONTFRAG),
    truth(IPPROTO_IPV6, IPV6_RECVTCLASS),
    truth(IPPROTO_IPV6, IPV6_RECVORIGDSTADDR),
    truth(IPPROTO_IPV6, IPV6_RECVFRAGSIZE),
    truth(IPPROTO_IPV6, IPV6_FREEBIND),
};

const KeptOption* find_kept(const Socket* socket, int level, int name) {
  for (u32 i = 0; i < socket->option_count; ++i) {
    const KeptOption& kept = socket->option[i];
    if (kept.level == level && kept.name == name) return &kept;
  }
  return nullptr;
}

}  // namespace

const PlainOption* plain_option(int level, int name) {
  for (const PlainOption& option : options) {
    if (option.level == level && option.name == name) return &option;
  }
  return nullptr;
}

int check_plain(const PlainOption& option, int value) {
  if (option.level == IPPROTO_IP && option.name == IP_TTL && value == 0) return EINVAL;
  return value < option.least || value > option.most ? EINVAL : 0;
}

int read_plain(const Socket* socket, const PlainOption& option) {
  const KeptOption* kept = find_kept(socket, option.level, option.name);
  if (kept == nullptr) return option.initial;
  int value = 0;
  memcpy(&value, kept->value, kept->bytes < sizeof value ? kept->bytes : sizeof value);
  if (option.least == -1 && value == -1) return option.initial;
  switch (option.form) {
    case Form::boolean:
      return value != 0;
    case Form::differentiated_services:
      return value & 0xfc;  // the congestion bits are TCP's own
    case Form::number:
      break;
  }
  return value;
}

bool reads_true(const Socket* socket, int level, int name) {
  return read_plain(socket, *plain_option(level, name)) != 0;
}

void keep_option(Socket* socket, int level, int name, const void* value, socklen_t length) {
  const KeptOption* found = find_kept(socket, level, name);
  u32 at = found != nullptr ? static_cast<u32>(found - socket->option) : socket->option_count;
  if (at == kept_options) return;
  KeptOption& kept = socket->option[at];
  kept.level = level;
  kept.name = name;
  kept.bytes = length < sizeof kept.value ? length : u32{sizeof kept.value};
  memcpy(kept.value, value, kept.bytes);
  if (at == socket->option_count) ++socket->option_count;
}

void inherit_plain(const Socket* listener, Socket* accepted) {
  for (u32 i = 0; i < listener->option_count; ++i) {
    const KeptOption& kept = listener->option[i];
    if (plain_option(kept.level, kept.name) == nullptr) continue;
    keep_option(accepted, kept.level, kept.name, kept.value, kept.bytes);
  }
}

}  // namespace cob::shim
