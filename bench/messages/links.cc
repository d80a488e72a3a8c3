// Topics: the window and the socket transport beside their floors: a coherent link, and a bare TCP
// ping-pong. Model: measure_window() and measure_socket() take turns within themselves and bring
// their own second process, which ends with the first. One thread a process.
#include "bench/messages/topics.h"
#include "bench/messages_socket.h"
#include "bench/messages_window.h"

namespace cob::bench {

namespace {

double seconds_of(const Seat& seat) { return static_cast<double>(seat.time.ns) * 1e-9; }

Result<void> drive_window(Seat& seat) {
  const WindowResult result = TRY(measure_window(seconds_of(seat)));
  seat.sheet.figure("coherent_rtt_ns", result.coherent.round_trip_p50_ns);
  seat.sheet.figure("coherent_rtt_p99_ns", result.coherent.round_trip_p99_ns);
  seat.sheet.figure("coherent_per_s", result.coherent.one_way_per_s);
  seat.sheet.figure("window_rtt_ns", result.window.round_trip_p50_ns);
  seat.sheet.figure("window_rtt_p99_ns", result.window.round_trip_p99_ns);
  seat.sheet.figure("window_per_s", result.window.one_way_per_s);
  seat.sheet.figure("window_over_coherent_rtt", result.round_trip_ratio);
  seat.sheet.figure("window_over_coherent_rate", 1 / result.one_way_ratio);
  seat.sheet.figure("window_over_coherent_page_rate", 1 / result.page_ratio);
  return {};
}

Result<void> drive_socket(Seat& seat) {
  const SocketResult result = TRY(measure_socket(seconds_of(seat)));
  seat.sheet.figure("tcp_rtt_ns", result.bare.p50_ns);
  seat.sheet.figure("tcp_rtt_p99_ns", result.bare.p99_ns);
  seat.sheet.figure("tcp_sleeping_rtt_ns", result.sleeping.p50_ns);
  seat.sheet.figure("tcp_sleeping_rtt_p99_ns", result.sleeping.p99_ns);
  seat.sheet.figure("socket_rtt_ns", result.typed.p50_ns);
  seat.sheet.figure("socket_rtt_p99_ns", result.typed.p99_ns);
  seat.sheet.figure("socket_over_tcp_rtt", result.typed_ratio);
  seat.sheet.figure("socket_over_sleeping_tcp_rtt", result.typed_sleeping_ratio);
  seat.sheet.figure("socket_per_s", result.one_way_batched_per_s);
  seat.sheet.figure("socket_full_per_s", result.one_way_full_per_s);
  seat.sheet.figure("socket_lent_gb_per_s", result.lent_bytes_per_s * 1e-9);
  return {};
}

}  // namespace

Outcome<Findings> measure_window_link(const TopicRun& run) {
  return run_alone({.cores = run.cores, .seconds = run.seconds}, drive_window, run.interrupts);
}

Outcome<Findings> measure_socket_link(const TopicRun& run) {
  return run_alone({.cores = run.cores, .seconds = run.seconds}, drive_socket, run.interrupts);
}

}  // namespace cob::bench
