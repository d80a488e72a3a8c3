// Topic: what a loan itself costs, by size: allocating, lending with a request, receiving, giving
// back, the reply. Model: 4 KiB and 1 GiB in turns on one link; all pages have been touched on the
// lending side, the first and the last word are written and read each time.
// One thread a process.
#include <cstring>

#include "bench/messages/kernels.h"
#include "bench/messages/timing.h"
#include "bench/messages/topics.h"

namespace cob::bench {

namespace {

using namespace message;

constexpr i64 turns = 4;
constexpr std::size_t small = 4'096;
constexpr std::size_t large = std::size_t{1} << 30;
// Room for a large one beside one that is on its way back; pages are only taken when touched.
constexpr KernelOptions link{.bulk_bytes = 3 * large};

u64 first_and_last(std::span<const std::byte> bytes) {
  u64 first = 0, end = 0;
  std::memcpy(&first, bytes.data(), sizeof first);
  std::memcpy(&end, bytes.data() + bytes.size() - sizeof end, sizeof end);
  return first + end;
}

void prepare(Messenger& messenger) {
  messenger.on<Lend, Took>([](Incoming& incoming, const Lend&) -> Result<Took> {
    return Took{first_and_last(incoming.loan.bytes())};
  });
}

Result<void> answer(Seat& seat) {
  const auto messenger = TRY(connect_kernel(seat, link, prepare));
  while (true) {
    if (messenger->poll({}, 64) > 0) messenger->flush();
  }
}

void lend(Messenger& messenger, std::size_t bytes, u64 number) {
  Buffer buffer;
  while (!buffer.valid()) {
    auto allocated = messenger.allocate(answerer_kernel, bytes);
    if (allocated) buffer = allocated.release_value();
  }
  const auto room = buffer.bytes();
  std::memcpy(room.data(), &number, sizeof number);
  std::memcpy(room.data() + room.size() - sizeof number, &number, sizeof number);
  u64 sum = 0;
  bool answered = false;
  const auto sent = messenger.request<Lend, Took>(
      answerer_kernel, Lend{number}, With{.lend = &buffer}, Time::never(), [&](Result<Took> took) {
        sum = took.value().sum;
        answered = true;
      });
  VERIFY(sent);
  messenger.flush();
  while (!answered) messenger.poll({}, 64);
  VERIFY(sum == 2 * number);
}

Result<void> drive(Seat& seat) {
  const auto messenger = TRY(connect_kernel(seat, link, prepare));
  {
    Buffer all = TRY(messenger->allocate(answerer_kernel, large));
    for (std::size_t at = 0; at < large; at += 4'096) all.bytes()[at] = std::byte{1};
  }
  RoundTrips of_small(seat.sheet, "loan_4k"), of_large(seat.sheet, "loan_1g");
  const Duration slice = seat.time / (2 * turns);
  u64 number = 0;
  for (i64 i = 0; i < turns; ++i) {
    of_small.slice(slice, [&] { lend(*messenger, small, ++number); });
    of_large.slice(slice, [&] { lend(*messenger, large, ++number); });
  }
  of_small.report(seat.sheet, "loan_4k");
  of_large.report(seat.sheet, "loan_1g");
  seat.sheet.figure("loan_1g_over_4k", of_large.p50_ns() / of_small.p50_ns());
  return {};
}

}  // namespace

Outcome<Findings> measure_loans(const TopicRun& run) {
  return run_pair({.cores = run.cores, .seconds = run.seconds}, drive, answer, run.interrupts);
}

}  // namespace cob::bench
