// Blocks of a pcapng file, and the checksums of frames that came without. See pcapng.h.
// Model: a block is type, length, body, length, all padded to 4; options are code, length, value.
// Owned by the command's thread.
#include "net/snap_bean/pcapng.h"

#include <algorithm>
#include <cstring>

#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/ipv4.h"

namespace cob::net {
namespace {

constexpr u32 section_header = 0x0a0d0d0a, interface_description = 1, interface_statistics = 5,
              enhanced_packet = 6;
constexpr u32 byte_order_magic = 0x1a2b3c4d;
constexpr u16 link_type_ethernet = 1;
// Option codes: of every block, then by block.
constexpr u16 end_of_options = 0, comment_option = 1;
constexpr u16 section_application = 4;
constexpr u16 interface_name = 2, interface_text = 3, interface_resolution = 9;
constexpr u16 packet_flags = 2;
constexpr u16 statistics_received = 4, statistics_dropped = 5;
constexpr std::size_t max_text = 1'024;

struct Place {
  std::size_t checksum;  // offset within the transport's header
  std::size_t least;     // bytes of that header
  bool pseudo_header;
};
Place place_of(u8 protocol) {
  switch (protocol) {
    case ip_protocol_tcp:
      return {16, 20, true};
    case 17:
      return {6, 8, true};
    case ip_protocol_icmp:
      return {2, 8, false};
    default:
      return {0, 0, false};
  }
}

void store(std::span<std::byte> at, u16 checksum) { std::memcpy(at.data(), &checksum, 2); }

}  // namespace

void PcapngWriter::put(const void* bytes, std::size_t count) {
  const auto* from = static_cast<const std::byte*>(bytes);
  buffer_.insert(buffer_.end(), from, from + count);
}

void PcapngWriter::pad() { buffer_.resize(block_ + (buffer_.size() - block_ + 3) / 4 * 4); }

void PcapngWriter::put_option(u16 code, const void* value, std::size_t bytes) {
  put_value(code);
  put_value(static_cast<u16>(bytes));
  put(value, bytes);
  pad();
}

void PcapngWriter::put_text(u16 code, std::string_view text) {
  if (!text.empty()) put_option(code, text.data(), std::min(text.size(), max_text));
}

void PcapngWriter::begin_block(u32 type) {
  block_ = buffer_.size();
  put_value(type);
  put_value(u32{0});  // the length, filled in at the end
}

void PcapngWriter::end_block() {
  put_option(end_of_options, nullptr, 0);
  const auto length = static_cast<u32>(buffer_.size() - block_ + sizeof(u32));
  put_value(length);
  std::memcpy(buffer_.data() + block_ + 4, &length, sizeof length);
}

PcapngWriter::PcapngWriter(std::string_view application) {
  begin_block(section_header);
  put_value(byte_order_magic);
  put_value(u16{1});  // version 1.0
  put_value(u16{0});
  put_value(~u64{0});  // the section's length: not told
  put_text(section_application, application);
  end_block();
}

u32 PcapngWriter::add_interface(std::string_view name, std::string_view description,
                                u32 snap_bytes) {
  begin_block(interface_description);
  put_value(link_type_ethernet);
  put_value(u16{0});
  put_value(snap_bytes);
  put_text(interface_name, name);
  put_text(interface_text, description);
  const u8 nanoseconds = 9;
  put_option(interface_resolution, &nanoseconds, 1);
  end_block();
  return interfaces_++;
}

void PcapngWriter::add_frame(u32 interface, const CaptureRecord& record,
                             std::span<const std::byte> bytes, i64 time_ns,
                             std::string_view comment) {
  begin_block(enhanced_packet);
  put_value(interface);
  put_value(static_cast<u32>(static_cast<u64>(time_ns) >> 32));
  put_value(static_cast<u32>(time_ns));
  put_value(static_cast<u32>(bytes.size()));
  put_value(record.original);
  put(bytes.data(), bytes.size());
  pad();
  const u32 direction = record.outgoing != 0 ? 2 : 1;
  put_option(packet_flags, &direction, sizeof direction);
  put_text(comment_option, comment);
  end_block();
}

void PcapngWriter::add_statistics(u32 interface, i64 time_ns, u64 received, u64 dropped) {
  begin_block(interface_statistics);
  put_value(interface);
  put_value(static_cast<u32>(static_cast<u64>(time_ns) >> 32));
  put_value(static_cast<u32>(time_ns));
  put_option(statistics_received, &received, sizeof received);
  put_option(statistics_dropped, &dropped, sizeof dropped);
  end_block();
}

bool fill_checksums(std::span<std::byte> frame) {
  if (frame.size() < sizeof(EthernetHeader) + sizeof(Ipv4Header)) return false;
  if (read_once<EthernetHeader>(frame, 0).type.get() != ethernet_type_ipv4) return false;
  const auto packet = frame.subspan(sizeof(EthernetHeader));
  const auto ip = read_once<Ipv4Header>(packet, 0);
  const std::size_t ip_bytes = std::size_t{ip.version_and_length & 15u} * 4;
  const std::size_t whole = ip.total_length.get();
  if (ip.version_and_length >> 4 != 4 || ip_bytes < sizeof(Ipv4Header) || ip_bytes > whole ||
      packet.size() < ip_bytes)
    return false;
  const auto header = packet.first(ip_bytes);
  store(header.subspan(offsetof(Ipv4Header, checksum)), 0);
  store(header.subspan(offsetof(Ipv4Header, checksum)), checksum_fold(checksum_add(0, header)));
  const Place place = place_of(ip.protocol);
  const bool in_one_piece =
      (ip.flags_and_offset.get() & (ip_more_fragments | 0x1fff)) == 0 && packet.size() >= whole;
  if (!in_one_piece || place.least == 0 || whole - ip_bytes < place.least) return true;
  const auto payload = packet.subspan(ip_bytes, whole - ip_bytes);
  const auto at = payload.subspan(place.checksum, 2);
  store(at, 0);
  u64 sum = 0;
  if (place.pseudo_header)
    sum = checksum_pseudo_header({ip.source.get()}, {ip.destination.get()}, ip.protocol,
                                 static_cast<u16>(payload.size()));
  const u16 checksum = checksum_fold(checksum_add(sum, payload));
  store(at, checksum == 0 && ip.protocol == 17 ? u16{0xffff} : checksum);  // RFC 768: 0 is "none"
  return true;
}

}  // namespace cob::net
