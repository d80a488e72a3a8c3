// What the control data of a sendmsg asks of one datagram. sendmsg(2), ip(7), ipv6(7). Values; any
// thread.
#pragma once

#include "shim/address.h"

namespace cob::shim {

// What a message says beside its bytes.
struct Extras {
  u32 local_address = 0;  // IP_PKTINFO, IPV6_PKTINFO
  int type_of_service = -1, time_to_live = -1;
  int traffic_class = -1, hop_limit = -1;  // to IPv6
  int whole = -1;                          // likewise, IPV6_DONTFRAG
};

// 0 or an errno. `ipv6`: the socket is of AF_INET6; `to`: where the datagram goes, null: where the
// socket is connected.
int read_extras(const msghdr* message, bool ipv6, const Ipv4Endpoint* to, Extras& extras);

}  // namespace cob::shim
