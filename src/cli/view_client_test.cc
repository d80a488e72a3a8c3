// What a kernel replies is believed only as far as it can be right; times of frames too.
#include "cli/view_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/capture_merge.h"

namespace cob::cli {
namespace {

constexpr std::size_t row_bytes = sizeof(kernel::NeighbourRow);

bool accepted(kernel::ViewReply head, std::size_t rows, u32 asked_from = 5) {
  kernel::ViewRequest request;
  request.kind = static_cast<u32>(kernel::ViewKind::neighbours);
  request.cursor = asked_from;
  std::vector<std::byte> reply(sizeof head + rows * row_bytes);
  std::memcpy(reply.data(), &head, sizeof head);
  return check_view_reply(reply, request, row_bytes).has_value();
}

kernel::ViewReply good() {
  return {.kind = static_cast<u32>(kernel::ViewKind::neighbours),
          .cursor = 6,
          .rows = 2,
          .row_bytes = row_bytes};
}

TEST(ViewReply, OnlyWhatCanBeRightIsTaken) {
  EXPECT_TRUE(accepted(good(), 2));
  EXPECT_FALSE(accepted(good(), 1));
  EXPECT_FALSE(accepted(good(), 3));
  const auto with = [](auto change, std::size_t rows = 2) {
    kernel::ViewReply head = good();
    change(head);
    return accepted(head, rows);
  };
  EXPECT_FALSE(with([](auto& h) { h.version = 1; }));
  EXPECT_FALSE(with([](auto& h) { h.kind = static_cast<u32>(kernel::ViewKind::device); }));
  EXPECT_FALSE(with([](auto& h) { h.row_bytes = 1; }));
  EXPECT_FALSE(with([](auto& h) { h.error = -1; }));
  EXPECT_FALSE(with([](auto& h) { h.error = EBUSY; }));
  EXPECT_FALSE(with([](auto& h) { h.rows = kernel::view_rows + 1; }, kernel::view_rows + 1));
  EXPECT_TRUE(with([](auto& h) { h.rows = 0, h.error = EBUSY; }, 0));
  EXPECT_TRUE(with([](auto& h) { h.cursor = 0; }));
  EXPECT_FALSE(with([](auto& h) { h.cursor = 5; }));  // a table without an end
  EXPECT_FALSE(with([](auto& h) { h.cursor = 4; }));
  EXPECT_FALSE(check_view_reply({}, {}, row_bytes).has_value());
}

TEST(Printable, TextThatAKernelWrote) {
  EXPECT_EQ(printable(std::string("a\x1b[2Jb\n\0c", 9)), "a?[2Jb?");
  EXPECT_EQ(printable(std::string("abc")), "abc");
}

TEST(CaptureMerge, InTheOrderOfTimesThatCanBe) {
  CaptureMerge merge;
  const auto add = [&](std::size_t from, i64 time_ns) {
    net::CaptureReader::Frame frame;
    frame.record.time_ns = time_ns;
    merge.add(from, std::move(frame), Time{100}, Time{200});
  };
  add(0, 120);
  add(0, 150);
  add(1, 110);
  add(1, 199);
  add(2, -5);         // before the capture: its start
  add(2, INT64_MAX);  // in the future: now
  std::vector<std::pair<std::size_t, i64>> seen;
  const auto take = [&](std::size_t from, const net::CaptureReader::Frame& frame) {
    seen.emplace_back(from, frame.record.time_ns);
    return true;
  };
  merge.take(Time{150}, take);
  using testing::ElementsAre;
  using testing::Pair;
  EXPECT_THAT(seen, ElementsAre(Pair(2, 100), Pair(1, 110), Pair(0, 120), Pair(0, 150)));
  seen.clear();
  merge.take(Time::never(), take);
  EXPECT_THAT(seen, ElementsAre(Pair(1, 199), Pair(2, 200)));
  EXPECT_EQ(merge.bytes(), 0u);
}

}  // namespace
}  // namespace cob::cli
