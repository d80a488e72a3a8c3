// Fuzzes what a capture reads of a kernel: a ring and a header of any bytes, and filters against
// frames of any bytes. Nothing is read outside the ring, what comes out can be written as pcapng,
// and a filter's text never makes one that is_valid() refuses.
#include <cstdlib>
#include <cstring>
#include <string>

#include "net/snap_bean/capture_filter.h"
#include "net/snap_bean/capture_ring.h"
#include "net/snap_bean/pcapng.h"

using namespace cob;
using namespace cob::net;

namespace {

// A small ring: what the reader checks does not depend on the size.
constexpr std::size_t ring_bytes = 4'096;

void read_ring(std::span<const std::byte> input) {
  if (input.size() < 2) return;
  alignas(64) static std::byte memory[capture_page_bytes + ring_bytes];
  std::memset(memory, 0, sizeof memory);
  CaptureHeader header{.ring_bytes = ring_bytes};
  std::memcpy(&header.written, input.data(), 2);  // mostly within the ring or a little behind
  if (header.written % 7 == 0 && input.size() > 10) std::memcpy(&header.written, input.data(), 8);
  std::memcpy(memory, &header, sizeof header);
  const auto body = input.subspan(2);
  for (std::size_t at = 0; at < ring_bytes && !body.empty(); at += body.size())
    std::memcpy(memory + capture_page_bytes + at, body.data(),
                std::min(body.size(), ring_bytes - at));
  CaptureProgress progress;
  CaptureReader reader(memory, &progress);
  PcapngWriter file("fuzz");
  const u32 interface = file.add_interface("kernel0", "", capture_max_snap);
  CaptureReader::Frame frame;
  for (int i = 0; i < 1'000; ++i) {
    const auto outcome = reader.take(frame);
    if (outcome != CaptureReader::Outcome::frame) {
      if (reader.take(frame) != outcome) abort();
      break;
    }
    if (frame.bytes.size() != frame.record.captured || frame.bytes.size() > ring_bytes) abort();
    (void)fill_checksums(frame.bytes);
    file.add_frame(interface, frame.record, frame.bytes, frame.record.time_ns, "");
    reader.release();
  }
  if (file.buffer().size() % 4 != 0) abort();
}

void filter(std::span<const std::byte> input) {
  const std::size_t text_bytes = std::min<std::size_t>(input.size(), 48);
  const std::string text(reinterpret_cast<const char*>(input.data()), text_bytes);
  const ParsedFilter parsed = parse_capture_filter(text);
  if (!is_valid(parsed.filter)) abort();
  (void)matches(parsed.filter, input);
  CaptureFilter any;
  std::memcpy(&any, input.data(), std::min(input.size(), sizeof any));
  if (is_valid(any)) (void)matches(any, input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const std::span input(reinterpret_cast<const std::byte*>(data), size);
  read_ring(input);
  filter(input);
  return 0;
}
