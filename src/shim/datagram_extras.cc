// Control data of datagrams to be sent. Model: datagram_extras.h.

#include "shim/datagram_extras.h"

#include <netinet/ip.h>

namespace cob::shim {

namespace {

// As Linux's ip6_datagram_send_ctl. 0 or an errno.
int read_ipv6_extra(const cmsghdr* header, Extras& extras) {
  const size_t bytes = header->cmsg_len - CMSG_LEN(0);
  if (header->cmsg_type == IPV6_PKTINFO) {
    in6_pktinfo info{};
    if (bytes < sizeof info) return EINVAL;
    memcpy(&info, CMSG_DATA(header), sizeof info);
    u32 address = from_ipv6(info.ipi6_addr);
    if (address == elsewhere && (address = own_name(info.ipi6_addr)) == 0) return EINVAL;
    extras.local_address = is_any(address) ? 0 : address;
    return 0;
  }
  int* asked = header->cmsg_type == IPV6_HOPLIMIT   ? &extras.hop_limit
               : header->cmsg_type == IPV6_TCLASS   ? &extras.traffic_class
               : header->cmsg_type == IPV6_DONTFRAG ? &extras.whole
                                                    : nullptr;
  if (asked == nullptr) return 0;
  const bool truth = asked == &extras.whole;
  int number = 0;
  if (bytes != sizeof number) return EINVAL;
  memcpy(&number, CMSG_DATA(header), sizeof number);
  if (number < (truth ? 0 : -1) || number > (truth ? 1 : 255)) return EINVAL;
  *asked = number;
  return 0;
}

}  // namespace

// As Linux's ip_cmsg_send.
int read_extras(const msghdr* message, bool ipv6, const Ipv4Endpoint* to, Extras& extras) {
  if (message == nullptr || message->msg_control == nullptr) return 0;
  auto* m = const_cast<msghdr*>(message);
  for (cmsghdr* h = CMSG_FIRSTHDR(m); h != nullptr; h = CMSG_NXTHDR(m, h)) {
    if (h->cmsg_len < sizeof(cmsghdr)) return EINVAL;
    if (ipv6 && h->cmsg_level == IPPROTO_IPV6) {
      if (const int error = read_ipv6_extra(h, extras)) return error;
    }
    if (h->cmsg_level != IPPROTO_IP || (to != nullptr && !is_ipv4(to->address))) continue;
    const size_t bytes = h->cmsg_len - CMSG_LEN(0);
    int number = 0;
    memcpy(&number, CMSG_DATA(h), bytes < sizeof number ? bytes : sizeof number);
    switch (h->cmsg_type) {
      case IP_PKTINFO: {
        in_pktinfo info{};
        if (bytes < sizeof info) return EINVAL;
        memcpy(&info, CMSG_DATA(h), sizeof info);
        extras.local_address = ntohl(info.ipi_spec_dst.s_addr);
        break;
      }
      case IP_TTL:
        if (bytes != sizeof number || number < 1 || number > 255) return EINVAL;
        extras.time_to_live = number;
        break;
      case IP_TOS:
        if (number < 0 || number > 255) return EINVAL;
        extras.type_of_service = number;
        break;
      default:
        return EINVAL;
    }
  }
  return 0;
}

}  // namespace cob::shim
