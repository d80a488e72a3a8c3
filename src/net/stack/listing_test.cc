// What tools list: every connection once, in pieces of any size; TIME_WAIT entries; neighbours.
#include <gtest/gtest.h>

#include <set>

#include "net/stack/arp.h"
#include "net/stack/two_stacks.h"

namespace cob::net {
namespace {

constexpr Port server{80};

class ListingTest : public testing::Test {
 protected:
  void connect(u16 count) {
    ASSERT_FALSE(world_.b.stack->listen({{}, server}, 100).is_error());
    for (u16 i = 0; i < count; ++i) {
      cookies_.push_back(world_.connect(Port(static_cast<u16>(1'000 + i)), server).release_value());
    }
    const auto all = [&] {
      return std::all_of(cookies_.begin(), cookies_.end(),
                         [&](u64 c) { return world_.a.layer.connections[c].connected; });
    };
    ASSERT_TRUE(world_.run([&] { return all() && world_.b.layer.incoming.size() == count; }));
  }
  std::vector<TcbEntry> list(const Stack& stack, u32 places, std::size_t rows) {
    std::vector<TcbEntry> found, piece(rows);
    u32 cursor = 0;
    do {
      const u32 before = cursor;
      const std::size_t n = stack.list_connections(cursor, places, piece);
      found.insert(found.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(n));
      EXPECT_TRUE(cursor == 0 || cursor > before);
    } while (cursor != 0);
    return found;
  }

  TwoStacks world_;
  std::vector<u64> cookies_;
};

TEST_F(ListingTest, EveryConnectionOnceInPiecesOfAnySize) {
  connect(50);
  for (const auto& [places, rows] :
       {std::pair<u32, std::size_t>{1, 1}, {7, 100}, {100, 3}, {512, 64}}) {
    std::set<u16> ports;
    for (const TcbEntry& e : list(*world_.a.stack, places, rows)) {
      EXPECT_TRUE(ports.insert(e.info.local.port.value).second);
      EXPECT_EQ(e.info.state, TcpState::established);
      EXPECT_EQ(e.info.remote.port, server);
      EXPECT_EQ(world_.a.layer.connections[e.cookie].id, e.id);
    }
    EXPECT_EQ(ports.size(), 50u);
  }
  // What a bounded piece costs is bounded: it looks at so many places and no more.
  u32 cursor = 0;
  TcbEntry row[8];
  EXPECT_EQ(world_.a.stack->list_connections(cursor, 5, row), 5u);
  EXPECT_EQ(cursor, 5u);
  cursor = 1'000'000;
  EXPECT_EQ(world_.a.stack->list_connections(cursor, 5, row), 0u);
  EXPECT_EQ(cursor, 0u);
}

TEST_F(ListingTest, QueuesTimersAndOptions) {
  connect(1);
  TestConnection& c = world_.a.layer.connections[cookies_[0]];
  world_.b.layer.capacity = 0;
  c.to_send = std::string(700, 'x');
  world_.a.stack->send_available(c.id, 700);
  world_.a.turn();
  const TcbInfo info = list(*world_.a.stack, 512, 64).at(0).info;
  EXPECT_EQ(info.unacked_bytes + info.unsent_bytes, 700u);
  EXPECT_EQ(info.waits_for, WaitKind::retransmit);
  EXPECT_GT(info.wait_ms, 0u);
  EXPECT_LE(info.wait_ms, 1'000u);
  EXPECT_TRUE(info.timestamps);
  EXPECT_TRUE(info.window_scaling);
  EXPECT_EQ(info.send_scale, 7);
  EXPECT_EQ(info.congestion_state, CongestionState::open);
}

TEST_F(ListingTest, TimeWaitEntriesGoAndAreNotListedAgain) {
  connect(5);
  std::set<u16> expected;
  for (const u64 cookie : cookies_) world_.a.stack->close(world_.a.layer.connections[cookie].id);
  world_.settle(Duration::milliseconds(10));
  for (auto& [cookie, c] : world_.b.layer.connections) world_.b.stack->close(c.id);
  ASSERT_TRUE(
      world_.run([&] { return world_.a.stack->counters().time_wait == 5; }, Duration::seconds(5)));
  std::vector<TimeWaitInfo> found(64);
  u32 cursor = 0;
  ASSERT_EQ(world_.a.stack->list_time_wait(cursor, 512, found), 5u);
  EXPECT_EQ(cursor, 0u);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(found[i].remote.port, server);
    EXPECT_GT(found[i].left_ms, 50'000u);
    EXPECT_LE(found[i].left_ms, 60'000u);
  }
  EXPECT_EQ(world_.a.stack->list_time_wait(cursor, 3, std::span(found).first(2)), 2u);
  EXPECT_EQ(cursor, 2u);
  world_.settle(Duration::seconds(62));
  ASSERT_EQ(world_.a.stack->counters().time_wait, 0u);
  cursor = 0;
  EXPECT_EQ(world_.a.stack->list_time_wait(cursor, 512, found), 0u);
}

TEST(Neighbours, AskedAnsweredAndStale) {
  ArpCache cache;
  const Ipv4Address silent{0x0a000002}, answering{0x0a000003};
  cache.lookup(silent, 1'000);
  cache.lookup(answering, 1'000);
  cache.learn(answering, {{2, 0, 0, 0, 0, 3}}, false, 1'010, [](std::span<std::byte>) {});
  const auto find = [&](Ipv4Address address, u32 now_ms) {
    for (u32 place = 0; place < ArpCache::places; ++place) {
      const auto entry = cache.at(place, now_ms);
      if (entry && entry->address == address) return *entry;
    }
    return NeighbourInfo{};
  };
  EXPECT_FALSE(find(silent, 1'020).answered);
  EXPECT_TRUE(find(answering, 1'020).fresh);
  EXPECT_EQ(find(answering, 1'020).mac, (MacAddress{{2, 0, 0, 0, 0, 3}}));
  EXPECT_EQ(find(answering, 1'020).heard_ms, 10u);
  EXPECT_TRUE(find(answering, 100'000).answered);
  EXPECT_FALSE(find(answering, 100'000).fresh);
}

}  // namespace
}  // namespace cob::net
