// Fuzzes reassembly: any pieces of some datagrams whose bytes follow from their places. Whatever is
// made whole has the right bytes, a length that a last piece named, and comes from its own pieces.
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  sim::FuzzInput in(data, size);
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
    const auto frame = fragments.add(ethernet,
                                     {.source = {0x0a00'0002},
                                      .destination = {0x0a00'0001},
                                      .protocol = ip_protocol_udp,
                                      .payload = payload,
                                      .identification = identification,
                                      .fragment_offset = static_cast<u16>(begin),
                                      .more_fragments = more},
                                     now_ms);
    if (frame.empty()) continue;
    Ipv4Packet packet;
    if (parse_ipv4(frame.subspan(ethernet.size()), true, packet) != Ipv4Verdict::good) abort();
    bool named = false;
    for (const std::size_t end : ends[identification])
      named = named || end == packet.payload.size();
    if (!named) abort();
    for (std::size_t i = 0; i < packet.payload.size(); ++i)
      if (packet.payload[i] != byte_of(identification, i)) abort();
  }
  return 0;
}
