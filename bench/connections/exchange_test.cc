// Requests that are refused, and the pattern's pieces.
// One thread.
#include "bench/connections/exchange.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

namespace cob::bench {
namespace {

std::optional<Request> parsed(const Request& request) {
  std::array<std::byte, sizeof(Request)> bytes;
  std::memcpy(bytes.data(), &request, sizeof request);
  return parse_request(bytes);
}

TEST(Exchange, ARequestIsTakenOnlyWithinItsBounds) {
  const Request good{.response_bytes = 64};
  EXPECT_TRUE(parsed(good));
  Request bad = good;
  bad.magic = 1;
  EXPECT_FALSE(parsed(bad));
  EXPECT_FALSE(parsed({.response_bytes = 0}));
  EXPECT_FALSE(parsed({.response_bytes = most_response_bytes + 1}));
  EXPECT_FALSE(parsed({.response_bytes = 64, .offset = Pattern::offsets}));
  EXPECT_FALSE(parsed({.response_bytes = 64, .work_ns = most_work_ns + 1}));
}

TEST(Exchange, PiecesOfAResponseFollowEachOther) {
  const Pattern pattern;
  std::vector<std::byte> response;
  const u64 size = 2 * Pattern::window + 77;
  while (response.size() < size) {
    const auto piece = pattern.piece(5, response.size(), size - response.size());
    ASSERT_FALSE(piece.empty());
    response.insert(response.end(), piece.begin(), piece.end());
  }
  ASSERT_EQ(response.size(), size);
  EXPECT_TRUE(pattern.matches(5, 0, response));
  EXPECT_TRUE(pattern.matches(5, 1'000, std::span(response).subspan(1'000)));
  EXPECT_FALSE(pattern.matches(6, 0, response));
  response[Pattern::window + 3] ^= std::byte{1};
  EXPECT_FALSE(pattern.matches(5, 0, response));
}

}  // namespace
}  // namespace cob::bench
