// Topic: cob at the sizes at which the packaged systems are measured (bench/peers/), by their
// rules: the sender writes the message's number into each 64-byte line, the receiver checks each.
// Model: round trips are typed requests and replies of the size, one-way messages come in order;
// 1 MiB travels as a loan each way, read in place, at most 4 MiB in flight. One thread a process.
#include <fmt/format.h>

#include "bench/messages/kernels.h"
#include "bench/messages/timing.h"
#include "bench/messages/topics.h"

namespace cob::bench {

namespace {

using namespace message;

enum Phase : u32 { phase_serve = 1 };
constexpr std::size_t loan_bytes = std::size_t{1} << 20;
constexpr KernelOptions link{.bulk_bytes = 4 * loan_bytes};
constexpr u64 row = 64;  // messages between two looks at the clock

// By the message's bytes; three types each.
constexpr u16 type_of(std::size_t bytes) { return bytes == 8 ? 20 : bytes == 64 ? 23 : 26; }

template <std::size_t bytes>
struct Echo {
  static constexpr MessageType type{type_of(bytes)};
  std::array<le<u64>, bytes / 8> words;
};
template <std::size_t bytes>
struct Echoed {
  static constexpr MessageType type{type_of(bytes) + 1};
  std::array<le<u64>, bytes / 8> words;
};
template <std::size_t bytes>
struct Numbered {
  static constexpr MessageType type{type_of(bytes) + 2};
  std::array<le<u64>, bytes / 8> words;
};
// A loan, one way.
struct Given {
  static constexpr MessageType type{29};
  static constexpr bool may_lend = true;
  le<u64> number;
};

void stamp(std::span<std::byte> bytes, u64 number) {
  for (std::size_t at = 0; at < bytes.size(); at += cache_line_bytes)
    std::memcpy(bytes.data() + at, &number, sizeof number);
}
u64 check_stamp(std::span<const std::byte> bytes) {
  u64 number = 0, wrong = 0;
  std::memcpy(&number, bytes.data(), sizeof number);
  for (std::size_t at = 0; at < bytes.size(); at += cache_line_bytes) {
    u64 here = 0;
    std::memcpy(&here, bytes.data() + at, sizeof here);
    wrong |= here ^ number;
  }
  VERIFY(wrong == 0);
  return number;
}
template <typename M>
std::span<std::byte> bytes_of(M& message) {
  return std::as_writable_bytes(std::span<M, 1>(&message, 1));
}
template <typename M>
u64 number_of(const M& message) {
  return check_stamp(std::as_bytes(std::span<const M, 1>(&message, 1)));
}

class Answerer {
 public:
  template <std::size_t bytes>
  void serve_size(Messenger& messenger) {
    messenger.on<Echo<bytes>, Echoed<bytes>>(
        [](KernelId, const Echo<bytes>& echo, ReplyToken<Echoed<bytes>> token) {
          Echoed<bytes> reply;  // answered from here: a result by value would be one copy more
          stamp(bytes_of(reply), number_of(echo));
          token.answer(reply);
        });
    messenger.on<Numbered<bytes>>(
        [this](KernelId, const Numbered<bytes>& message) { count(number_of(message)); });
  }
  void serve(Messenger& messenger) {
    serve_size<8>(messenger);
    serve_size<64>(messenger);
    serve_size<4'096>(messenger);
    messenger.on<Lend, LendBack>(
        [&messenger](Incoming& incoming, const Lend&, ReplyToken<LendBack> token) {
          const u64 number = check_stamp(incoming.loan.bytes());
          incoming.loan.reset();
          Buffer buffer = messenger.allocate(driver_kernel, loan_bytes).release_value();
          stamp(buffer.bytes(), number);
          VERIFY(token.answer(LendBack{number}, With{.lend = &buffer}));
        });
    messenger.on<Given>(
        [this](Incoming& incoming, const Given&) { count(check_stamp(incoming.loan.bytes())); });
  }
  u64 received() const { return received_; }

 private:
  void count(u64 number) {
    VERIFY(number == received_);
    ++received_;
  }
  u64 received_ = 0;
};

Result<void> answer(Seat& seat) {
  Answerer answerer;
  const auto messenger = TRY(connect_kernel(seat, link, [&](Messenger& m) { answerer.serve(m); }));
  seat.stage.reach(seat.stage.next());
  while (true) {
    if (messenger->poll({}, 256) == 0) continue;
    messenger->flush();
    seat.stage.say_received(answerer.received());
  }
}

class Driver {
 public:
  Driver(Seat& seat, Messenger& messenger) : seat_(seat), messenger_(messenger) {}

  static void prepare(Messenger& messenger) {
    know<8>(messenger);
    know<64>(messenger);
    know<4'096>(messenger);
    messenger.know<Lend>();
    messenger.know<LendBack>();
    messenger.know<Given>();
  }
  template <std::size_t bytes>
  void measure() {
    Echo<bytes> echo{};
    Numbered<bytes> note{};
    report(
        bytes,
        [&] {
          stamp(bytes_of(echo), ++asked_);
          ask<Echo<bytes>, Echoed<bytes>>(
              messenger_, echo, {}, Time::never(),
              [&](const Echoed<bytes>& reply) { VERIFY(number_of(reply) == asked_); });
        },
        [&] {
          for (u64 i = 0; i < row; ++i) {
            stamp(bytes_of(note), sent_++);
            while (!messenger_.send(answerer_kernel, note)) messenger_.flush();
          }
          messenger_.flush();
          return row;
        });
  }
  void measure_loans() {
    report(
        loan_bytes, [&] { lend_and_take(); },
        [&] {
          Buffer buffer = allocate();
          stamp(buffer.bytes(), sent_++);
          while (!messenger_.send(answerer_kernel, Given{}, With{.lend = &buffer}))
            messenger_.flush();
          messenger_.flush();
          return u64{1};
        });
  }

 private:
  template <std::size_t bytes>
  static void know(Messenger& messenger) {
    messenger.know<Echo<bytes>>();
    messenger.know<Echoed<bytes>>();
    messenger.know<Numbered<bytes>>();
  }
  void report(std::size_t bytes, auto&& round_trip, auto&& send) {
    const std::string key = fmt::format("cob_{}", bytes);
    const Duration half = seat_.time / 8;
    RoundTrips times(seat_.sheet, key);
    times.slice(half, round_trip);
    seat_.sheet.figure(key + "_rtt_p50_ns", times.p50_ns());
    seat_.sheet.figure(key + "_rtt_p99_ns", times.p99_ns());
    seat_.sheet.figure(key + "_per_s", one_way_rate(seat_.stage, half, send));
  }
  Buffer allocate() {
    while (true) {
      if (auto buffer = messenger_.allocate(answerer_kernel, loan_bytes); buffer)
        return buffer.release_value();
      messenger_.poll({}, 64);
    }
  }
  void lend_and_take() {
    Buffer buffer = allocate();
    stamp(buffer.bytes(), ++asked_);
    bool answered = false;
    const auto sent = messenger_.request<Lend, LendBack>(
        answerer_kernel, Lend{asked_}, With{.lend = &buffer}, Time::never(),
        [&](Result<LendBack> reply, Incoming& incoming) {
          VERIFY(reply && check_stamp(incoming.loan.bytes()) == asked_);
          answered = true;
        });
    VERIFY(sent);
    messenger_.flush();
    while (!answered) messenger_.poll({}, 64);
    messenger_.flush();
  }

  Seat& seat_;
  Messenger& messenger_;
  u64 asked_ = 0;
  u64 sent_ = 0;
};

Result<void> drive(Seat& seat) {
  const auto messenger = TRY(connect_kernel(seat, link, Driver::prepare));
  seat.stage.enter(phase_serve);
  Driver driver(seat, *messenger);
  driver.measure<8>();
  driver.measure<64>();
  driver.measure<4'096>();
  driver.measure_loans();
  return {};
}

}  // namespace

Outcome<Findings> measure_sizes(const TopicRun& run) {
  return run_pair({.cores = run.cores, .seconds = run.seconds}, drive, answer, run.interrupts);
}

}  // namespace cob::bench
