// The pattern and the request's judgement of exchange.h.
// Random numbers: Steele, Lea, Flood, "Fast splittable pseudorandom number generators"
// (splitmix64). Values; any thread.
#include "bench/connections/exchange.h"

#include <algorithm>
#include <cstring>

namespace cob::bench {

std::optional<Request> parse_request(std::span<const std::byte, sizeof(Request)> received) {
  Request request;
  std::memcpy(&request, received.data(), sizeof request);
  if (request.magic != Request::right_magic || request.response_bytes == 0 ||
      request.response_bytes > most_response_bytes || request.offset >= Pattern::offsets ||
      request.work_ns > most_work_ns) {
    return std::nullopt;
  }
  return request;
}

Pattern::Pattern() : bytes_(window + offsets, '\0') {
  u64 state = 1;
  for (char& byte : bytes_) byte = static_cast<char>(next_random(state) & 0xff);
}

std::span<const std::byte> Pattern::piece(u32 offset, u64 from, u64 most) const {
  const std::size_t at = static_cast<std::size_t>(from) % window;
  const std::size_t length = static_cast<std::size_t>(std::min<u64>(most, window - at));
  return std::as_bytes(std::span(bytes_)).subspan(offset + at, length);
}

bool Pattern::matches(u32 offset, u64 from, std::span<const std::byte> received) const {
  while (!received.empty()) {
    const auto expected = piece(offset, from, received.size());
    if (std::memcmp(expected.data(), received.data(), expected.size()) != 0) return false;
    from += expected.size();
    received = received.subspan(expected.size());
  }
  return true;
}

u64 next_random(u64& state) {
  u64 z = (state += 0x9e37'79b9'7f4a'7c15);
  z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9;
  z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11eb;
  return z ^ (z >> 31);
}

}  // namespace cob::bench
