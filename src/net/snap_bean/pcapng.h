// PcapngWriter: captured frames as a pcapng file: one section, an interface a kernel, an enhanced
// packet block a frame, counters at the end. draft-ietf-opsawg-pcapng, sections 4.1 to 4.6.
// Model: appends blocks to a buffer in the host's byte order, which the format allows; who writes
// the buffer out empties it. fill_checksums() makes whole what a wire of memory left out.
// Owned by the command's thread.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "net/snap_bean/capture_ring.h"

namespace cob::net {

class PcapngWriter {
 public:
  // Begins the section. `application`: who writes it.
  explicit PcapngWriter(std::string_view application);

  // Ethernet, timestamps in ns. Returns its number; they count from 0.
  u32 add_interface(std::string_view name, std::string_view description, u32 snap_bytes);
  // `time_ns`: since 1970. `bytes`: record.captured of them. `comment` may be empty.
  void add_frame(u32 interface, const CaptureRecord& record, std::span<const std::byte> bytes,
                 i64 time_ns, std::string_view comment);
  void add_statistics(u32 interface, i64 time_ns, u64 received, u64 dropped);

  std::vector<std::byte>& buffer() { return buffer_; }

 private:
  void put(const void* bytes, std::size_t count);
  template <typename T>
  void put_value(T value) {
    put(&value, sizeof value);
  }
  void pad();
  void put_option(u16 code, const void* value, std::size_t bytes);
  void put_text(u16 code, std::string_view text);
  void begin_block(u32 type);
  void end_block();

  std::vector<std::byte> buffer_;
  std::size_t block_ = 0;  // where the open block begins
  u32 interfaces_ = 0;
};

// Computes the IPv4, TCP, UDP or ICMP checksums of a frame whose sender left them out. Those over
// bytes that were cut off stay as they are (a reader cannot check them either). True: some were
// filled in.
bool fill_checksums(std::span<std::byte> frame);

}  // namespace cob::net
