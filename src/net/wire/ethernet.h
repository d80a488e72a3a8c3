// Ethernet II framing, IEEE 802.3-2022 section 3.1.1 (the type interpretation of the length/type
// field).
// Model: EthernetHeader is the view, the bytes as they lie; the receiver judges destination and
// type.
// Values; no owner.
#pragma once

#include "net/wire/address.h"
#include "net/wire/bytes.h"

namespace cob::net {

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                      Destination address                      |
// +                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                               |                               |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
// |                         Source address                        |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |             Type              |  data ...
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-
struct EthernetHeader {
  MacAddress destination;
  MacAddress source;
  Be16 type;
};
static_assert(sizeof(EthernetHeader) == 14 && alignof(EthernetHeader) == 1);

inline constexpr u16 ethernet_type_ipv4 = 0x0800;
inline constexpr u16 ethernet_type_arp = 0x0806;
inline constexpr MacAddress broadcast_mac{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

}  // namespace cob::net
