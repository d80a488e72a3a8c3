// Fuzzes reassembly: any pieces of some datagrams, of IPv4 or of IPv6, whose bytes follow from
// their places. Whatever is made whole has the right bytes, a length that a last piece named, and
// comes from its own pieces; what is quoted of lost ones is a packet.
#include <cstdlib>
#include <vector>

#include "net/stack/fragments.h"
#include "net/wire/ethernet.h"
#include "sim/fuzz_input.h"

using namespace cob;
using namespace cob::net;

namespace {

std::byte byte_of(u16 identification, std::size_t at) {
  return static_cast<std::byte>(identification + at * 7 + at / 256);
}

constexpr Ipv6Address other{{0xfd, 2}}, us{{0xfd, 1}};

std::span<const std::byte> payload_of(std::span<const std::byte> packet, bool ipv6) {
  if (ipv6) {
    Ipv6Packet six;
    if (parse_ipv6(packet, six) != Ipv6Verdict::good) abort();
    return six.payload;
  }
  Ipv4Packet four;
  if (parse_ipv4(packet, true, four) != Ipv4Verdict::good) abort();
  return four.payload;
}

void check_quote(const Fragments::Lost& lost, bool ipv6) {
  if (lost.source.is_mapped() == ipv6 || lost.quote.size() > 1'232) abort();
  Ipv6Packet six;
  if (ipv6 && !parse_quoted_ipv6(lost.quote, six)) abort();
  if (!ipv6 && lost.quote.size() != sizeof(Ipv4Header) + 8) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  sim::FuzzInput in(data, size);
  const bool ipv6 = size % 2 == 1;
  Fragments fragments;
  constexpr std::array<std::byte, sizeof(EthernetHeader)> ethernet{};
  std::array<std::vector<std::size_t>, 256> ends;  // of last pieces, by identification
  u32 now_ms = 0;
  while (!in.empty()) {
    const u16 identification = in.byte();
    const u8 how = in.byte();
    const std::size_t begin = (how & 1) != 0 ? in.byte() * 256u * 8u % 65'536u : in.byte() * 8u;
    const std::size_t bytes = (how & 2) != 0 ? in.byte() * 8u : in.byte();
    const bool more = (how & 4) != 0;
    std::vector<std::byte> payload(bytes);
    for (std::size_t i = 0; i < bytes; ++i) payload[i] = byte_of(identification, begin + i);
    if (!more) ends[identification].push_back(begin + bytes);
    now_ms += (how >> 4) * 1'000u;
    const auto frame =
        ipv6 ? fragments.add(ethernet,
                             Ipv6Packet{.source = other,
                                        .destination = us,
                                        .protocol = ip_protocol_udp,
                                        .payload = payload,
                                        .fragment_identification = identification,
                                        .fragment_offset_bytes = static_cast<u16>(begin),
                                        .fragment_more = more},
                             now_ms)
             : fragments.add(ethernet,
                             Ipv4Packet{.source = {0x0a00'0002},
                                        .destination = {0x0a00'0001},
                                        .protocol = ip_protocol_udp,
                                        .payload = payload,
                                        .identification = identification,
                                        .fragment_offset = static_cast<u16>(begin),
                                        .more_fragments = more},
                             now_ms);
    for (const Fragments::Lost& lost : fragments.take_lost()) check_quote(lost, ipv6);
    if (frame.empty()) continue;
    const auto whole = payload_of(frame.subspan(ethernet.size()), ipv6);
    bool named = false;
    for (const std::size_t end : ends[identification]) named = named || end == whole.size();
    if (!named) abort();
    for (std::size_t i = 0; i < whole.size(); ++i)
      if (whole[i] != byte_of(identification, i)) abort();
  }
  return 0;
}
