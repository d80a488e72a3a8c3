// What client and server of `cob bench connections` say: a request of 64 bytes, answered by as many
// bytes of a fixed pattern as it asks for, each of which the client checks. Both are one program on
// one machine: numbers are the host's. Values; shared by the threads of both sides.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "base/types.h"

namespace cob::bench {

struct Request {
  static constexpr u32 right_magic = 0x636f'6e6e;
  static constexpr u32 server_closes = 1;  // flag: the server closes behind the response
  static constexpr u32 blocks = 2;         // flag: the work is a timer's time, nothing is computed
  u32 magic = right_magic;
  u32 flags = 0;
  u64 response_bytes = 0;
  u32 offset = 0;   // of the response's first byte in the pattern
  u32 work_ns = 0;  // computed by the server, or waited for, before it answers
  u64 number = 0;
  std::byte filler[32] = {};
};
static_assert(sizeof(Request) == 64);

inline constexpr u64 most_response_bytes = u64{1} << 30;
inline constexpr u32 most_work_ns = 10'000'000;

// A copy of what came, if it is a request that may be served.
std::optional<Request> parse_request(std::span<const std::byte, sizeof(Request)> received);

// Byte i of a response is pattern()[offset + i % window].
class Pattern {
 public:
  static constexpr std::size_t window = 65'536;
  static constexpr u32 offsets = 4'096;  // that a request may choose from
  Pattern();
  // The longest stretch from byte `from` of a response that lies in one piece, at most `most`.
  // REQUIRES: offset < offsets.
  std::span<const std::byte> piece(u32 offset, u64 from, u64 most) const;
  // Whether `received` is a response from its byte `from` on.
  bool matches(u32 offset, u64 from, std::span<const std::byte> received) const;

 private:
  std::string bytes_;
};

// A step of splitmix64: a well-mixed number, and the next state.
u64 next_random(u64& state);

}  // namespace cob::bench
