// The tables under the stack, each against a plain model: timer wheel, flat index, TCB table,
// TIME_WAIT table, reassembly, ARP.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>

#include "net/stack/arp.h"
#include "net/stack/reassembly.h"
#include "net/stack/tcb_table.h"
#include "net/stack/time_wait.h"
#include "net/stack/timer_wheel.h"

namespace cob::net {
namespace {

TEST(TimerWheel, FiresLikeASortedMap) {
  std::mt19937_64 random(7);
  TimerWheel wheel(512);
  std::map<u32, u64> model;
  u64 now = 0;
  for (int step = 0; step < 20'000; ++step) {
    const u32 slot = static_cast<u32>(random() % 512);
    const int action = static_cast<int>(random() % 10);
    if (action < 6) {
      const u64 tick = now + 1 + (random() >> (random() % 40 + 24)) % 40'000'000;
      wheel.arm(slot, tick);
      model[slot] = tick;
    } else if (action < 8) {
      wheel.disarm(slot);
      model.erase(slot);
    } else {
      const u64 to = now + random() % (1ull << (random() % 26));
      u64 earliest = TimerWheel::never;
      for (const auto& [s, tick] : model) earliest = std::min(earliest, tick);
      EXPECT_LE(wheel.next_event(), earliest);
      std::set<u32> fired;
      wheel.advance(to, [&](u32 s) { fired.insert(s); });
      now = to;
      for (auto it = model.begin(); it != model.end();) {
        EXPECT_EQ(fired.contains(it->first), it->second <= now);
        it = it->second <= now ? model.erase(it) : std::next(it);
      }
    }
    ASSERT_EQ(wheel.armed(slot), model.contains(slot));
  }
}

TEST(TimerWheel, MayBeArmedWhileFiring) {
  TimerWheel wheel(2);
  wheel.arm(0, 10);
  int count = 0;
  wheel.advance(100, [&](u32 s) {
    if (++count < 5) wheel.arm(s, 0);  // the past: the next tick
  });
  EXPECT_EQ(count, 5);
  EXPECT_EQ(wheel.next_event(), TimerWheel::never);
}

TEST(FlatIndex, FindsWhatAMapFinds) {
  std::mt19937 random(3);
  FlatIndex index;
  std::map<u32, u32> model;  // slot -> hash; few hashes, so runs are long
  for (int step = 0; step < 200'000; ++step) {
    const u32 slot = static_cast<u32>(random() % 4'000);
    const auto it = model.find(slot);
    if (it == model.end()) {
      const u32 hash = static_cast<u32>(random() % 64) * 0x01000193;
      index.insert(hash, slot);
      model[slot] = hash;
    } else {
      EXPECT_EQ(index.find(it->second, [&](u32 s) { return s == slot; }), slot);
      if (random() % 2 == 0) {
        index.erase(it->second, slot);
        EXPECT_EQ(index.find(it->second, [&](u32 s) { return s == slot; }), FlatIndex::none);
        model.erase(it);
      }
    }
    ASSERT_EQ(index.size(), model.size());
  }
}

TEST(TcbTable, AnOldIdFindsNothingForManyLives) {
  TcbTable table(1'024, {1, 2});
  const FlowKey key{1, 2, 3, 4};
  std::set<u32> seen;
  for (int i = 0; i < 100'000; ++i) {
    Tcb* t = table.allocate(key);
    ASSERT_TRUE(seen.insert(t->id.value).second) << i;
    EXPECT_EQ(table.get(t->id), t);
    EXPECT_EQ(table.find(key, table.hash(key)), t);
    const TcbId id = t->id;
    table.release(*t);
    EXPECT_EQ(table.get(id), nullptr);
    EXPECT_EQ(table.find(key, table.hash(key)), nullptr);
  }
}

// What a burst left free is not gone round in turn: few connections stay on few lines.
TEST(TcbTable, AfterABurstAConnectionAtATimeUsesFewSlots) {
  TcbTable table(8'192, {1, 2});
  std::vector<Tcb*> burst;
  for (u16 i = 0; i < 5'000; ++i) burst.push_back(table.allocate({1, 2, i, 80}));
  for (Tcb* t : burst) table.release(*t);
  std::set<u32> slots;
  for (int i = 0; i < 20'000; ++i) {
    Tcb* t = table.allocate({1, 2, 3, 80});
    slots.insert(table.slot_of(*t));
    table.release(*t);
  }
  EXPECT_LT(slots.size(), 512u);
  EXPECT_EQ(table.slots_touched(), 5'000u);
  // All of them are still to be had.
  burst.clear();
  for (u16 i = 0; i < 8'192; ++i) burst.push_back(table.allocate({1, 2, i, 80}));
  EXPECT_EQ(std::ranges::count(burst, nullptr), 0);
  EXPECT_EQ(std::set<Tcb*>(burst.begin(), burst.end()).size(), 8'192u);
}

TEST(TcbTable, HoldsItsCapacityAndNoMore) {
  TcbTable table(1'000, {1, 2});
  std::vector<Tcb*> all;
  for (u16 i = 0; i < 1'000; ++i) all.push_back(table.allocate({1, 2, i, 80}));
  EXPECT_EQ(table.allocate({9, 9, 9, 9}), nullptr);
  for (Tcb* t : all) EXPECT_EQ(table.find(t->key, table.hash(t->key)), t);
  table.release(*all[500]);
  EXPECT_NE(table.allocate({9, 9, 9, 9}), nullptr);
}

TEST(TcbTable, AnIdleConnectionCostsAtMost256Bytes) {
  constexpr std::size_t timer_node = 16,
                        index_entries = 4 * 8;  // the index is a quarter full at worst
  EXPECT_LE(sizeof(Tcb) + sizeof(TcbIdle) + timer_node + index_entries + sizeof(u32) * 3, 256u);
}

Tcb* established(TcbTable& table, u16 port) {
  Tcb* t = table.allocate({1, 2, port, 80});
  t->state = TcpState::established;
  t->send_unacknowledged = t->send_next = t->send_max = t->send_end = {1'000u + port};
  TcbCold& cold = table.cold(*t);
  cold.reassembly_head = cold.listener = no_slot;
  cold.retransmit_timeout_ms = first_rto_ms;
  cold.bytes_sent = port;
  return t;
}

TEST(TcbTable, IdleConnectionsLeaveTheirTcbColdToOthers) {
  TcbTable table(16'384, {1, 2});
  std::vector<Tcb*> all;
  for (u16 i = 0; i < 10'000; ++i) {
    all.push_back(established(table, i));
    if (i % 16 == 0) table.settle_idle(i + 1u);
  }
  EXPECT_LE(table.colds_touched(), 1'100u);
  EXPECT_TRUE(table.is_idle(*all[0]));
  const TcbTable& watcher = table;
  for (u16 i = 0; i < 10'000; ++i) ASSERT_EQ(watcher.cold(*all[i]).bytes_sent, i);
  EXPECT_TRUE(table.is_idle(*all[0]));
  for (u16 i = 0; i < 10'000; ++i) ASSERT_EQ(table.cold(*all[i]).bytes_sent, i);
  EXPECT_FALSE(table.is_idle(*all[0]));
  for (u16 i = 0; i < 10'000; ++i) table.release(*all[i]);
}

// Each of them makes a connection not idle.
TEST(TcbTable, WhatIsUnderWayKeepsItsTcbCold) {
  using Change = void (*)(Tcb&, TcbCold&);
  const Change changes[] = {
      [](Tcb& t, TcbCold&) { t.state = TcpState::close_wait; },
      [](Tcb& t, TcbCold&) { t.send_end = t.send_end + 1; },
      [](Tcb& t, TcbCold&) { t.send_max = t.send_end = t.send_end + 1; },
      [](Tcb& t, TcbCold&) { t.set(flag_scoreboard); },
      [](Tcb& t, TcbCold&) { t.set(flag_peer_fin_known); },
      [](Tcb&, TcbCold& c) { c.reassembly_head = 0; },
      [](Tcb&, TcbCold& c) { c.listener = 0; },
      [](Tcb&, TcbCold& c) { c.user_timeout_ms = 1; },
      [](Tcb&, TcbCold& c) { c.keep_alive_sent = 1; },
      [](Tcb& t, TcbCold& c) { t.set(flag_keep_alive), c.keep_alive_idle_ms = 1'001; },
      [](Tcb&, TcbCold& c) { c.probe = Probe::again; },
      [](Tcb&, TcbCold& c) { c.reorder_persist = 1; },
      [](Tcb&, TcbCold& c) { c.retransmit_timeout_ms = 3'000; },
      [](Tcb&, TcbCold& c) { c.cubic.epoch_ms = 1, c.last_send_ms = 9'500; },
      [](Tcb&, TcbCold& c) { c.last_answer_ms = 9'900; },
  };
  TcbTable table(64, {1, 2});
  TcbIdle idle;
  for (std::size_t i = 0; i < std::size(changes); ++i) {
    Tcb& t = *established(table, static_cast<u16>(i));
    EXPECT_TRUE(pack_idle(t, table.cold(t), 10'000, idle));
    changes[i](t, table.cold(t));
    EXPECT_FALSE(pack_idle(t, table.cold(t), 10'000, idle)) << i;
  }
}

TEST(TcbTable, AnIdleConnectionIsFoundAsItWas) {
  TcbTable table(64, {1, 2});
  Tcb& t = *established(table, 7);
  t.set(flag_keep_alive);
  TcbCold& cold = table.cold(t);
  cold.bytes_sent = u64{1} << 40;
  cold.bytes_received = 5;
  cold.slow_start_threshold = 77;
  cold.initial_send = t.send_unacknowledged - 1;
  cold.recover = cold.rtt_sequence = cold.ecn_recover = cold.urgent_send = t.send_unacknowledged;
  cold.smoothed_rtt_us = 90'000;
  cold.rtt_variance_us = 80'000;
  cold.retransmit_timeout_ms = retransmit_timeout_ms(90'000, 80'000);
  EXPECT_EQ(cold.retransmit_timeout_ms, 410u);
  cold.retransmits = 3;
  cold.window_growth = 11;
  cold.timestamp_recent_ms = 12;
  cold.last_receive_ms = 13;
  cold.last_send_ms = 14;
  cold.keep_alive_idle_ms = 7'200'000;
  cold.keep_alive_interval_ms = 75'000;
  cold.keep_alive_probes = 127;
  cold.fin_wait_2_s = no_fin_wait_2;
  cold.advertised_mss = 65'495;
  cold.soft_error = 113;
  cold.min_rtt_us = 80'000;
  cold.cubic = {.window_max = 1, .window_prior = 2, .epoch_ms = 0, .rise_ms = 0, .reno_window = 0};
  cold.congestion = CongestionControl::new_reno;
  cold.reordering_seen = 1;
  cold.fast_open = fast_open_data_taken;
  TcbIdle idle;
  ASSERT_TRUE(pack_idle(t, cold, 20'000, idle));
  TcbCold found;
  unpack_idle(t, idle, found);
  EXPECT_EQ(std::memcmp(&found, &cold, sizeof cold), 0);
}

TEST(TimeWait, ExpiresInOrderAndRestarts) {
  TimeWaitTable table(100);
  for (u16 i = 0; i < 10; ++i) table.insert({.key = {1, 2, i, 4}, .hash = i % 3u}, i * 1'000u);
  table.restart(*table.find({1, 2, 0, 4}, 0), 9'500);
  table.expire(60'000 + 4'000);
  EXPECT_EQ(table.size(), 6u);
  EXPECT_NE(table.find({1, 2, 0, 4}, 0), nullptr);
  EXPECT_EQ(table.find({1, 2, 4, 4}, 1), nullptr);
  table.erase(*table.find({1, 2, 7, 4}, 1));
  EXPECT_EQ(table.next_expiry_ms(), 65'000u);
  table.expire(60'000 + 9'500);
  EXPECT_EQ(table.size(), 0u);
}

TEST(Reassembly, GivesBackTheBytesWhateverTheOrder) {
  ReassemblyPool pool(2'000);
  for (u32 seed = 1; seed <= 200; ++seed) {
    std::mt19937 random(seed);
    std::string stream(20'000, '\0');
    for (char& c : stream) c = static_cast<char>(random());
    TcbCold cold{};
    cold.reassembly_head = no_slot;
    const SequenceNumber start{0xffff'f000};  // the numbers wrap inside
    SequenceNumber next = start;
    std::string got;
    while (got.size() < stream.size()) {
      const std::size_t at = random() % stream.size();
      const std::size_t bytes = std::min<std::size_t>(random() % 5'000, stream.size() - at);
      if (at < got.size()) continue;
      ASSERT_TRUE(pool.insert(cold, start + static_cast<u32>(at),
                              std::as_bytes(std::span(stream).subspan(at, bytes)))
                      .whole);
      if (random() % 4 == 0) {  // the missing piece itself
        const std::size_t n = std::min<std::size_t>(1 + random() % 700, stream.size() - got.size());
        got.append(stream, got.size(), n);
        next = start + static_cast<u32>(got.size());
      }
      for (auto run = pool.front(cold, next); !run.empty(); run = pool.front(cold, next)) {
        const std::size_t part = 1 + random() % run.size();
        got.append(reinterpret_cast<const char*>(run.data()), part);
        next += static_cast<u32>(part);
      }
    }
    EXPECT_TRUE(got == stream);
    EXPECT_EQ(pool.pieces_in_use(), 0u);
  }
}

TEST(Reassembly, AConnectionHoldsAnEighthOfWhatIsFree) {
  ReassemblyPool pool(900);
  TcbCold a{}, b{};
  a.reassembly_head = b.reassembly_head = no_slot;
  const std::byte x{1};
  u32 kept = 0;
  for (u32 i = 0; i < 600; ++i) kept += pool.insert(a, {i * 2}, {&x, 1}).whole;
  EXPECT_EQ(kept, 100u);
  EXPECT_EQ(pool.fair_share(), 100u);
  for (u32 i = 0; i < 600; ++i) kept += pool.insert(b, {i * 2}, {&x, 1}).whole;
  EXPECT_EQ(kept, 189u);
  EXPECT_EQ(pool.pieces_in_use(), 189u);
  pool.clear(a);
  pool.clear(b);
  EXPECT_EQ(pool.pieces_in_use(), 0u);
}

// RFC 2018 section 4: runs as SACK blocks, the one last touched first, whatever joined them.
TEST(Reassembly, Rfc2018_RunsGrowJoinAndAreTakenFromTheFront) {
  ReassemblyPool pool(16'384);
  TcbCold cold{};
  cold.reassembly_head = no_slot;
  const std::vector<std::byte> bytes(5'000, std::byte{7});
  const auto runs = [&] {
    SackBlock blocks[4];
    std::vector<std::pair<u32, u32>> all;
    const u32 count = pool.sack_blocks(cold, {0}, blocks);
    for (u32 i = 0; i < count; ++i) all.emplace_back(blocks[i].start.value, blocks[i].end.value);
    return all;
  };
  using Runs = std::vector<std::pair<u32, u32>>;
  const auto insert = [&](u32 from, u32 to) {
    return pool.insert(cold, {from}, std::span(bytes).first(to - from));
  };
  insert(10'000, 15'000);  // three pieces, one run
  insert(20'000, 21'000);
  insert(1'000, 2'000);
  EXPECT_EQ(runs(), (Runs{{1'000, 2'000}, {20'000, 21'000}, {10'000, 15'000}}));
  insert(15'000, 16'000);  // behind a run
  insert(9'000, 10'000);   // before it
  EXPECT_EQ(runs(), (Runs{{9'000, 16'000}, {1'000, 2'000}, {20'000, 21'000}}));
  EXPECT_TRUE(insert(16'000, 20'000).whole);  // between two
  EXPECT_EQ(runs(), (Runs{{9'000, 21'000}, {1'000, 2'000}}));
  EXPECT_TRUE(insert(1'500, 2'500).whole);
  EXPECT_TRUE(insert(1'000, 2'500).duplicate);
  EXPECT_EQ(runs(), (Runs{{1'000, 2'500}, {9'000, 21'000}}));
  // Over both, and what lies between.
  EXPECT_FALSE(insert(500, 5'500).duplicate);
  EXPECT_TRUE(insert(5'000, 9'500).whole);
  EXPECT_EQ(runs(), (Runs{{500, 21'000}}));
  SequenceNumber next{500};
  for (auto run = pool.front(cold, next); !run.empty() && next < SequenceNumber{12'345};
       run = pool.front(cold, next))
    next += static_cast<u32>(run.size());
  insert(30'000, 31'000);
  SackBlock blocks[4];
  ASSERT_EQ(pool.sack_blocks(cold, next, blocks), 1u);  // the first is at hand, not missing
  EXPECT_EQ(blocks[0].start.value, 30'000u);
  EXPECT_TRUE(insert(21'000, 25'000).whole);
  EXPECT_EQ(pool.front(cold, {25'000}).size(), 0u);
  EXPECT_EQ(runs(), (Runs{{30'000, 31'000}}));
  pool.clear(cold);
  EXPECT_EQ(pool.pieces_in_use(), 0u);
}

TEST(ArpCache, ParkedFramesAreBounded) {
  ArpCache cache;
  u32 parked = 0;
  for (u32 host = 1; host <= 20; ++host) {
    EXPECT_TRUE(cache.lookup({host}, 0).request);
    EXPECT_FALSE(cache.lookup({host}, 0).request);
    for (int i = 0; i < 6; ++i) parked += !cache.park({host}, 60, TcbId(host)).empty();
  }
  EXPECT_EQ(parked, ArpCache::parked_frames);
  u32 sent = 0;
  cache.learn({1}, {{2, 2, 2, 2, 2, 2}}, false, 0, [&](std::span<std::byte> f) {
    EXPECT_EQ(f[0], std::byte{2});
    ++sent;
  });
  EXPECT_EQ(sent, ArpCache::parked_per_entry);
  std::set<u32> failed;
  for (u32 now = 0; now < 5'000; now += 100)
    cache.poll(now, [](Ipv4Address) {}, [&](TcbId id) { failed.insert(id.value); });
  EXPECT_EQ(failed.size(), ArpCache::parked_frames / ArpCache::parked_per_entry - 1);
  EXPECT_FALSE(cache.waiting());
}

TEST(SipHash, Rfc6528_MatchesTheReferenceVector) {
  // Aumasson and Bernstein, appendix A, has 15 bytes; this is the published vector for 16:
  // vectors_sip64[16].
  EXPECT_EQ(
      siphash({0x0706050403020100, 0x0f0e0d0c0b0a0908}, 0x0706050403020100, 0x0f0e0d0c0b0a0908),
      0x3f2acc7f57c29bdbull);
}

}  // namespace
}  // namespace cob::net
