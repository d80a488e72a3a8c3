// Server and generator against each other and against servers that lie, over loopback.
// The server's workers are threads of the test; no figure is judged but by a bound that the
// server's own computing gives.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "bench/connections/cases.h"
#include "bench/connections/exchange.h"
#include "bench/connections/generator.h"
#include "bench/connections/server.h"
#include "bench/connections/side.h"
#include "bench/connections/worker.h"
#include "bench/server_case.h"

namespace cob::bench {
namespace {

class LoadTest : public ::testing::Test {
 protected:
  void start(Mode mode = Mode::shared, int workers = 1) {
    options_ = {.address = "127.0.0.1", .port = port_, .mode = mode, .workers = workers};
    auto opened = open_listeners(options_);
    ASSERT_TRUE(opened) << opened.why();
    listeners_.emplace(std::move(*opened));
    for (int i = 0; i < workers; ++i) {
      workers_.push_back(
          std::make_unique<Worker>(static_cast<std::size_t>(i), options_, *listeners_));
      threads_.emplace_back([worker = workers_.back().get()] { worker->run(); });
    }
  }
  void TearDown() override { stop(); }
  void stop() {
    for (const auto& worker : workers_) worker->stop();
    threads_.clear();
  }
  LoadOptions load() const { return {.address = "127.0.0.1", .port = port_, .seconds = 0.05}; }
  static Tally run(const LoadOptions& options) {
    auto tally = run_load(options);
    EXPECT_TRUE(tally) << tally.why();
    return tally ? *tally : Tally{};
  }
  static u64 count(const Tally& tally, Failure failure) {
    return tally.failed[static_cast<std::size_t>(failure)];
  }
  // Answers the first connection with what `answer` does to its socket.
  template <typename F>
  void lie(F answer) {
    options_ = {.address = "127.0.0.1", .port = port_};
    auto opened = open_listeners(options_);
    ASSERT_TRUE(opened) << opened.why();
    listeners_.emplace(std::move(*opened));
    const int flags = fcntl(listeners_->sockets[0].get(), F_GETFL);
    fcntl(listeners_->sockets[0].get(), F_SETFL, flags & ~O_NONBLOCK);
    threads_.emplace_back([this, answer] {
      const Fd connection(accept(listeners_->sockets[0].get(), nullptr, nullptr));
      Request request;
      const ssize_t got = recv(connection.get(), &request, sizeof request, MSG_WAITALL);
      listeners_->sockets.clear();
      if (got == sizeof request) answer(connection.get(), request);
    });
  }

  u16 port_ = static_cast<u16>(free_port());
  ServerOptions options_;
  std::optional<Listeners> listeners_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::jthread> threads_;
};

TEST_F(LoadTest, EveryConnectionStartedIsAccountedFor) {
  start(Mode::shared, 2);
  const Tally tally = run(load());
  EXPECT_GT(tally.completed, 0U);
  EXPECT_EQ(tally.failed_sum(), 0U);
  EXPECT_EQ(tally.started, tally.completed + tally.late);
  EXPECT_EQ(tally.latency.count(), tally.started);
  EXPECT_EQ(tally.bytes, tally.completed * 64);
  stop();
  EXPECT_EQ(workers_[0]->counts().accepted + workers_[1]->counts().accepted, tally.started);
}

TEST_F(LoadTest, LongResponsesKeepAliveAndTheClientsClosing) {
  start(Mode::reuseport, 2);
  LoadOptions options = load();
  options.in_flight = 3;
  options.response_bytes = 700'001;
  EXPECT_GT(run(options).completed, 0U);
  options.client_closes = true;
  EXPECT_EQ(run(options).failed_sum(), 0U);
  options.keep_alive = true;
  options.response_bytes = 64;
  const Tally tally = run(options);
  EXPECT_EQ(tally.failed_sum(), 0U);
  EXPECT_GT(tally.completed, 3U);
}

// From its own address and port, its own work waited for.
TEST_F(LoadTest, APlanIsKept) {
  start(Mode::reuseport);
  LoadOptions options = load();
  options.seconds = 1;
  options.blocks = true;
  options.timeout_seconds = 60;
  const u16 source = static_cast<u16>(free_port());
  options.plan = {
      {.at_ns = 0, .work_ns = 9'000'000},
      {.at_ns = 1'000'000, .work_ns = 0, .source_address = 0x7f00'0005, .source_port = source}};
  const Tally tally = run(options);
  EXPECT_EQ(tally.failed_sum(), 0U);
  ASSERT_EQ(tally.answered_ns.size(), 2U);
  EXPECT_GE(tally.answered_ns[0], 9'000'000);
  EXPECT_GE(tally.answered_ns[1], 0);
}

// One slot, ten arrivals far faster than the server's 5 ms each: the last one waits for all
// before it. Counted from its own start each would take 5 ms.
TEST_F(LoadTest, LatencyCountsFromTheIntendedStart) {
  start();
  LoadOptions options = load();
  options.seconds = 0.01;
  options.rate = 1'000;
  options.in_flight = 1;
  options.work_ns = 5'000'000;
  options.timeout_seconds = 60;
  const Tally tally = run(options);
  ASSERT_GT(tally.started, 3U);
  EXPECT_EQ(tally.failed_sum(), 0U);
  EXPECT_GE(tally.latency.max(), (tally.started - 1) * 5'000'000 - 10'000'000);
  EXPECT_GT(tally.lag.max(), 0U);
}

// Open loop with one arrival or a few in one slot: the first connection is answered, by a liar;
// the listener is closed behind it, so that the others end at once.
TEST_F(LoadTest, AWrongByteIsSeen) {
  lie([](int connection, const Request& request) {
    const Pattern pattern;
    const auto right = pattern.piece(request.offset, 0, 64);
    std::vector<std::byte> wrong(right.begin(), right.end());
    wrong[63] ^= std::byte{1};
    send(connection, wrong.data(), wrong.size(), MSG_NOSIGNAL);
  });
  LoadOptions options = load();
  options.in_flight = 1;
  options.rate = 200;
  EXPECT_EQ(count(run(options), Failure::wrong_bytes), 1U);
}

TEST_F(LoadTest, AResponseCutShortIsSeen) {
  lie([](int connection, const Request& request) {
    const Pattern pattern;
    const auto right = pattern.piece(request.offset, 0, 63);
    send(connection, right.data(), right.size(), MSG_NOSIGNAL);
  });
  LoadOptions options = load();
  options.in_flight = 1;
  options.rate = 200;
  EXPECT_EQ(count(run(options), Failure::cut_short), 1U);
}

TEST_F(LoadTest, NobodyListeningIsRefused) {
  LoadOptions options = load();
  options.rate = 200;
  const Tally tally = run(options);
  EXPECT_GT(tally.started, 0U);
  EXPECT_EQ(count(tally, Failure::refused), tally.started);
}

TEST(Arrivals, TheSameSeedGivesTheSameTimes) {
  Arrivals one(1'000, 7, 0), same(1'000, 7, 0), other(1'000, 8, 0);
  EXPECT_NE(one.next_ns(), other.next_ns());
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(one.next_ns(), same.next_ns());
    one.advance();
    same.advance();
  }
}

// Of an exponential distribution the mean is the deviation; 20,000 of them know it to 3 %.
TEST(Arrivals, GapsAreExponential) {
  Arrivals arrivals(1'000, 1, 0);
  double sum = 0, squares = 0;
  constexpr int count = 20'000;
  i64 before = arrivals.next_ns();
  for (int i = 0; i < count; ++i) {
    arrivals.advance();
    const double gap = static_cast<double>(arrivals.next_ns() - before);
    before = arrivals.next_ns();
    sum += gap;
    squares += gap * gap;
  }
  const double mean = sum / count;
  EXPECT_NEAR(mean, 1e6, 3e4);
  EXPECT_NEAR(squares / count - mean * mean, 1e12, 1e11);
}

TEST(Cases, UnknownNamesAreRefused) {
  Options options;
  options.only = {"conn_c8", "conn"};
  const auto chosen = chosen_connection_cases(options);
  ASSERT_TRUE(chosen);
  ASSERT_EQ(chosen->size(), 2U);
  EXPECT_EQ((*chosen)[0].name, "conn");
  options.only = {"conn_c9"};
  EXPECT_FALSE(chosen_connection_cases(options));
}

TEST(ParseLoad, FiguresAreNeededAndWrongBytesFail) {
  const std::string good =
      R"({"seconds":1,"completed":5,"late":0,"bytes":320,"failed":0,"p50_us":1,"p99_us":2,"p999_us":3,"lag_p99_us":0})";
  EXPECT_TRUE(parse_load(good));
  EXPECT_FALSE(parse_load("cob-bench-connections: no"));
  EXPECT_FALSE(parse_load(good.substr(0, good.size() - 1) + R"(,"failed_wrong_bytes":1})"));
}

}  // namespace
}  // namespace cob::bench
