// The Internet checksum, RFC 1071, and the TCP pseudo-header of RFC 9293 section 3.1.
// Model: a partial sum is a u64 of native-order 16-bit words; fold() makes it the 16 bits that lie
// on the wire.
// Values; no owner.
#pragma once

#include <span>

#include "base/types.h"
#include "net/wire/address.h"

namespace cob::net {

// Adds `bytes` to a partial sum. Only the last piece of a sum may have an odd length.
u64 checksum_add(u64 sum, std::span<const std::byte> bytes);

// The partial sum of the pseudo-header; `length` is that of the TCP header and payload.
u64 checksum_pseudo_header(Ipv4Address source, Ipv4Address destination, u8 protocol, u16 length);

// The one's complement of the folded sum, as it lies in memory (store it without swapping). A sum
// over bytes that contain a right checksum folds to 0.
u16 checksum_fold(u64 sum);

}  // namespace cob::net
