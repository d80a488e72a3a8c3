// For tests: two kernels of one thread with Streams, polled by hand, and bytes that can be told
// apart. Test code only.
#pragma once

#include <random>

#include "message/streams/stream.h"
#include "message/test_pair.h"

namespace cob::message::test {

inline constexpr u32 service = 7;
inline constexpr u32 kib = 1'024;

// `bytes` of flow `seed` from `position`.
inline std::vector<std::byte> piece(u32 seed, u64 position, std::size_t bytes) {
  static const std::vector<std::byte> noise = [] {
    std::vector<std::byte> made(65'521);
    std::mt19937 random(1);
    for (std::byte& byte : made) byte = static_cast<std::byte>(random());
    return made;
  }();
  std::vector<std::byte> made;
  made.reserve(bytes);
  for (u64 at = (position + seed * u64{7'919}) % noise.size(); made.size() < bytes; at = 0) {
    const std::size_t n = std::min<std::size_t>(bytes - made.size(), noise.size() - at);
    made.insert(made.end(), noise.begin() + static_cast<i64>(at),
                noise.begin() + static_cast<i64>(at + n));
  }
  return made;
}

// A kernel with Streams; keeps what its service has accepted.
struct Side {
  End end;
  Streams streams;
  std::vector<StreamId> accepted;

  Side(u16 number, const StreamOptions& options, u32 epoch = 1)
      : end(number, 2, epoch), streams(*end.messenger, options) {
    streams.on_open(service, [this](KernelId, StreamId stream) -> Result<void> {
      accepted.push_back(stream);
      return {};
    });
  }
  void poll(Time now = {}) {
    end->poll(now, 10'000);
    streams.poll();
    end->flush();
  }
  // -errno, or how many.
  i64 write(StreamId stream, std::span<const std::byte> bytes) {
    const auto n = streams.write(stream, bytes);
    return n ? static_cast<i64>(n.value()) : -n.error().code;
  }
  i64 read(StreamId stream, std::span<std::byte> to) {
    const auto n = streams.read(stream, to);
    return n ? static_cast<i64>(n.value()) : -n.error().code;
  }
  std::vector<std::byte> read_all(StreamId stream) {
    std::vector<std::byte> all, some(64 * kib);
    for (i64 n = 0; (n = read(stream, some)) > 0;)
      all.insert(all.end(), some.begin(), some.begin() + n);
    return all;
  }
  i64 error_of(StreamId stream) {
    std::byte one{};
    return -read(stream, {&one, 1});
  }
};

// One direction of one stream in a random transfer.
struct Flow {
  Side* writer;
  Side* reader;
  StreamId out, in;
  u32 seed;
  u64 total;
  u64 written = 0, read = 0;
  bool shut = false, ended = false;

  void write_some(std::mt19937& random, std::size_t most) {
    if (shut) return;
    const auto bytes = piece(seed, written, std::min<u64>(random() % most, total - written));
    const i64 n = writer->write(out, bytes);
    if (n > 0) written += static_cast<u64>(n);
    EXPECT_TRUE(n >= 0 || n == -EAGAIN) << n;
    if (written < total) return;
    EXPECT_TRUE(writer->streams.shutdown_write(out));
    EXPECT_EQ(writer->write(out, piece(seed, 0, 1)), -EPIPE);
    shut = true;
  }
  void read_some(std::mt19937& random, std::size_t most) {
    if (ended) return;
    std::vector<std::byte> got(1 + random() % most);
    const i64 n = reader->read(in, got);
    if (n < 0) {
      EXPECT_EQ(n, -EAGAIN);
      return;
    }
    got.resize(static_cast<std::size_t>(n));
    ASSERT_EQ(got, piece(seed, read, got.size())) << "at " << read;
    read += got.size();
    ended = n == 0;
  }
};

struct StreamsTest : testing::Test {
  StreamOptions options{.window_bytes = 64 * kib};
  std::unique_ptr<Side> a, b;

  void start() {
    a = std::make_unique<Side>(u16{0}, options);
    b = std::make_unique<Side>(u16{1}, options);
    connect(a->end, b->end);
  }
  void SetUp() override { start(); }
  void settle(int rounds = 4) {
    for (int i = 0; i < rounds; ++i) {
      a->poll();
      b->poll();
    }
  }
  // Both ends of a new stream from `a`.
  std::pair<StreamId, StreamId> join() {
    StreamId ours;
    EXPECT_TRUE(a->streams.open(b->end.id, service, Time::never(),
                                [&](Result<StreamId> r) { ours = r.release_value(); }));
    settle();
    EXPECT_NE(ours.value, 0u);
    return {ours, b->accepted.back()};
  }
  Result<StreamId> open(u32 wanted, Time deadline, int& code) {
    return a->streams.open(b->end.id, wanted, deadline,
                           [&code](Result<StreamId> r) { code = r ? -1 : r.error().code; });
  }
  void expect_nothing_left() {
    settle();
    EXPECT_EQ(a->streams.size(), 0u);
    EXPECT_EQ(b->streams.size(), 0u);
    EXPECT_EQ(a->streams.counters().breaches, 0u);
    EXPECT_EQ(b->streams.counters().breaches, 0u);
    EXPECT_TRUE(a->end->connected(b->end.id));
    // Every loan has come back.
    EXPECT_TRUE(a->end->allocate(b->end.id, Links::default_bulk_bytes));
    EXPECT_TRUE(b->end->allocate(a->end.id, Links::default_bulk_bytes));
  }
};

}  // namespace cob::message::test
