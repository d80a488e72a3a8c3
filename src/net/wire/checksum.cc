// The Internet checksum, RFC 1071: sums of 32-bit words in a u64, so carries need no care until the
// fold.
// Model: byte order does not matter to one's complement sums (RFC 1071 section 2 B), so words are
// added as they lie.
// Values; no owner.
#include "net/wire/checksum.h"

#include <cstring>

#include "net/wire/bytes.h"

namespace cob::net {

u64 checksum_add(u64 sum, std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  u64 lanes[4] = {sum, 0, 0, 0};
  for (; left >= 16; at += 16, left -= 16) {
    u32 words[4];
    std::memcpy(words, at, sizeof words);
    for (int i = 0; i < 4; ++i) lanes[i] += words[i];
  }
  sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
  for (; left >= 2; at += 2, left -= 2) {
    u16 word;
    std::memcpy(&word, at, sizeof word);
    sum += word;
  }
  if (left == 1) {
    u8 pair[2] = {std::to_integer<u8>(*at), 0};
    u16 word;
    std::memcpy(&word, pair, sizeof word);
    sum += word;
  }
  return sum;
}

u64 checksum_pseudo_header(Ipv4Address source, Ipv4Address destination, u8 protocol, u16 length) {
  return u64{swap_to_network(source.value)} + swap_to_network(destination.value) +
         swap_to_network(u16{protocol}) + swap_to_network(length);
}

u16 checksum_fold(u64 sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<u16>(~sum);
}

}  // namespace cob::net
