// `cob stats`: what each kernel counts about each of the others: messages, requests and how they
// ended, wake-ups, refusals, round trips. Model: copies of the pages behind the kernels' boards
// (message/stats.h); with --watch, differences of two copies. One thread.
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>

#include <cmath>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/net_counters.h"
#include "message/stats_page.h"

namespace cob::cli {
namespace {

using message::PeerStats;
using message::StatsSnapshot;

struct StatsOptions {
  int kernel = -1;  // -1: all
  int peer = -1;
  double watch_seconds = 0;  // 0: once
  bool net = false;          // the network's counters instead
  bool zeros = false;
};

struct Sample {
  nlohmann::json info;                 // of the kernel, in the supervisor's words
  std::optional<StatsSnapshot> stats;  // none: it does not run just now
  Time at;
};

Result<StatsSnapshot> read_behind_board(FdRef board) {
  struct stat status{};
  if (::fstat(board.get(), &status) != 0) return Error::from_errno("fstat of its board");
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (bytes <= kernel::stats_offset) return Error::of(EPROTO, "no statistics there");
  const Mapping mapping = TRY(Mapping::map(board, bytes, Access::read));
  return message::read_stats(mapping.bytes().subspan(kernel::stats_offset));
}

void check_number(int number, const CobView& view) {
  if (number < static_cast<int>(view.kernels.size())) return;
  fail(exit_state, "there is no kernel {}; '{}' has kernels 0 to {}", number,
       view.info.value("name", ""), view.kernels.size() - 1);
}

std::vector<Sample> take_samples(const CobView& view, const StatsOptions& options) {
  check_number(options.kernel, view);
  check_number(options.peer, view);
  std::vector<Sample> samples;
  for (const KernelView& kernel : view.kernels) {
    const int number = kernel.info.value("kernel", 0);
    if (options.kernel >= 0 && options.kernel != number) continue;
    Sample& sample = samples.emplace_back(Sample{kernel.info, {}, HostClock::read()});
    if (!kernel.board_memory.valid()) continue;
    auto stats = read_behind_board(kernel.board_memory.ref());
    if (stats.is_error()) fail(exit_state, "kernel {}: {}", number, stats.error().what);
    sample.stats = stats.release_value();
  }
  return samples;
}

bool of_interest(const PeerStats& peer, int number, const StatsOptions& options, int kernel) {
  if (options.peer >= 0) return number == options.peer;
  if (peer.connections_refused != 0) return true;
  return number == kernel ? peer.messages_out != 0 : peer.sessions_begun != 0;
}

template <typename Enum, std::size_t n>
nlohmann::json by_name(const message::CounterOf<Enum, n>& counters) {
  nlohmann::json json;
  for (std::size_t i = 0; i < n; ++i)
    json[name_of(static_cast<Enum>(i))] = counters.counter[i].get();
  return json;
}

nlohmann::json by_priority(const message::CounterOf<message::Priority, 2>& counters) {
  return {{"normal", counters[message::Priority::normal].get()},
          {"urgent", counters[message::Priority::urgent].get()}};
}

nlohmann::json describe(const message::RoundTrips& trips) {
  const u64 count = trips.count();
  const double of = count == 0 ? 1 : static_cast<double>(count);
  nlohmann::json buckets = nlohmann::json::array();
  for (std::size_t i = 0; i < message::RoundTrips::buckets; ++i) {
    if (trips.bucket[i] == 0) continue;
    nlohmann::json& bucket = buckets.emplace_back();
    bucket["up_to"] = nullptr;  // the last one: no limit
    if (i + 1 < message::RoundTrips::buckets)
      bucket["up_to"] = message::RoundTrips::Scale::highest_of(i);
    bucket["count"] = trips.bucket[i].get();
  }
  return {{"count", count},
          {"mean", std::round(static_cast<double>(trips.sum_ns) / of)},
          {"max", trips.max_ns.get()},
          {"p50", trips.percentile(50)},
          {"p99", trips.percentile(99)},
          {"p99_9", trips.percentile(99.9)},
          {"turn", std::round(static_cast<double>(trips.turns_ns) / of)},
          {"buckets", std::move(buckets)}};
}

nlohmann::json describe_counters(const PeerStats& peer) {
  nlohmann::json json;
  for (const message::StatsField& field : message::stats_fields)
    json[field.name] = (peer.*field.counter).get();
  json["messages_out"] = by_priority(peer.messages_out);
  json["messages_in"] = by_priority(peer.messages_in);
  json["failed"] = by_name(peer.failed);
  json["refused"] = by_name(peer.refused);
  json["connections_refused"] = by_name(peer.connections_refused);
  json["stream_breached"] = by_name(peer.stream_breached);
  json["round_trip_ns"] = describe(peer.round_trips);
  return json;
}

nlohmann::json describe_interval(const PeerStats& counted, double seconds) {
  nlohmann::json rates;
  const auto rate = [seconds](u64 n) { return std::round(static_cast<double>(n) / seconds); };
  for (const message::StatsField& field : message::stats_fields)
    rates[field.name] = rate(counted.*field.counter);
  rates["messages_out"] = rate(counted.messages_out);
  rates["messages_in"] = rate(counted.messages_in);
  rates["failed"] = rate(counted.failed);
  rates["refused"] = rate(counted.refused);
  rates["connections_refused"] = rate(counted.connections_refused);
  rates["stream_breached"] = rate(counted.stream_breached);
  nlohmann::json trips = describe(counted.round_trips);
  trips.erase("max");  // it is known since the start only
  return {
      {"seconds", seconds}, {"per_second", std::move(rates)}, {"round_trip_ns", std::move(trips)}};
}

// `before`: null, or the same kernel some time ago. `islands`: of each kernel.
nlohmann::json describe(const Sample* before, const Sample& now, const StatsOptions& options,
                        const std::vector<std::string>& islands) {
  nlohmann::json kernel = now.info;
  if (!now.stats) return kernel;
  const bool comparable =
      before != nullptr && before->stats && before->stats->header.epoch == now.stats->header.epoch;
  kernel["peers"] = nlohmann::json::array();
  for (std::size_t k = 0; k < now.stats->peer.size(); ++k) {
    const PeerStats& peer = now.stats->peer[k];
    const int number = static_cast<int>(k);
    if (k >= islands.size() || !of_interest(peer, number, options, kernel.value("kernel", 0)))
      continue;
    nlohmann::json& entry = kernel["peers"].emplace_back();
    entry = {{"peer", number},
             {"island", islands.at(k)},
             {"transport", name_of(static_cast<message::TransportKind>(peer.transport.get()))},
             {"connected", peer.connected != 0},
             {"epoch", peer.epoch.get()},
             {"since_start", describe_counters(peer)}};
    if (comparable)
      entry["interval"] = describe_interval(message::difference(before->stats->peer[k], peer),
                                            static_cast<double>((now.at - before->at).ns) / 1e9);
  }
  return kernel;
}

double total(const nlohmann::json& counter) {
  if (!counter.is_object()) return counter.get<double>();
  double sum = 0;
  for (const auto& part : counter) sum += part.get<double>();
  return sum;
}

std::string format_us(const nlohmann::json& trips, const char* percentile) {
  if (trips["count"] == 0) return "-";
  return fmt::format("{:.1f}", trips[percentile].get<double>() / 1e3);
}

// Of memories, messages, connections, and what broke a stream.
double refusals_in(const nlohmann::json& counters) {
  return total(counters["refused"]) + total(counters["connections_refused"]) +
         total(counters["stream_breached"]);
}

void print_text(const nlohmann::json& kernels, bool rates) {
  std::vector<std::string> headings{"KERNEL", "PEER", "ISLAND", "LINK", "EPOCH"};
  constexpr std::array counted{"messages_out",    "messages_in", "bytes_out",     "bytes_in",
                               "requests_out",    "failed",      "messages_full", "doorbells_rung",
                               "doorbells_heard", "frames_out",  "frames_in"};
  for (const char* heading : {"MSGS OUT", "IN", "BYTES OUT", "IN", "REQUESTS", "FAILED", "FULL",
                              "RUNG", "HEARD", "FRAMES OUT", "IN", "REFUSED"})
    headings.emplace_back(rates ? fmt::format("{}/S", heading) : heading);
  headings.insert(headings.end(), {"P50 US", "P99 US", "P99.9 US"});
  Table table(std::move(headings));
  for (const auto& kernel : kernels) {
    if (!kernel.contains("peers")) {
      table.add({kernel["kernel"].dump(), "-", "-", kernel.value("state", "")});
      continue;
    }
    for (const auto& peer : kernel["peers"]) {
      std::vector<std::string> row{
          kernel["kernel"].dump(), peer["peer"].dump(), peer.value("island", ""),
          peer["connected"].get<bool>() ? peer.value("transport", "")
                                        : peer.value("transport", "") + ", down",
          peer["epoch"].dump()};
      if (rates && !peer.contains("interval")) {  // the kernel has begun anew meanwhile
        table.add(std::move(row));
        continue;
      }
      const auto& shown = rates ? peer["interval"] : peer["since_start"];
      const auto& counters = rates ? shown["per_second"] : shown;
      for (const char* name : counted) row.push_back(format_count(total(counters[name])));
      row.push_back(format_count(refusals_in(counters)));
      for (const char* percentile : {"p50", "p99", "p99_9"})
        row.push_back(format_us(shown["round_trip_ns"], percentile));
      table.add(std::move(row));
    }
  }
  fmt::print("{}", table.text());
}

void stats(const Context& context, const StatsOptions& options) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const auto show = [&](const CobView& view, const std::vector<Sample>* before,
                        const std::vector<Sample>& now) {
    nlohmann::json all = view.info;
    all["kernels"] = nlohmann::json::array();
    std::vector<std::string> islands;
    islands.reserve(view.kernels.size());
    for (const KernelView& kernel : view.kernels)
      islands.push_back(kernel.info.value("island", ""));
    for (std::size_t i = 0; i < now.size(); ++i)
      all["kernels"].push_back(
          describe(before == nullptr ? nullptr : &(*before)[i], now[i], options, islands));
    if (!context.json) return print_text(all["kernels"], before != nullptr);
    if (before == nullptr) return print_json(all);
    fmt::print("{}\n", all.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  };
  const CobView view = view_cob(client);
  std::vector<Sample> before = take_samples(view, options);
  if (options.watch_seconds <= 0) return show(view, nullptr, before);
  for (bool first = true;; first = false) {
    ::poll(nullptr, 0, static_cast<int>(options.watch_seconds * 1'000));
    const CobView later = view_cob(client);
    std::vector<Sample> now = take_samples(later, options);
    if (!first && !context.json) fmt::print("\n");
    show(later, &before, now);
    if (std::fflush(stdout) != 0) fail(exit_state, "cannot write the output");
    before = std::move(now);
  }
}

}  // namespace

void add_stats(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("stats", "Show what the kernels count about their messages to each other");
  auto options = std::make_shared<StatsOptions>();
  const auto kernel_number = CLI::Range(0, static_cast<int>(max_kernels) - 1).description("");
  command->add_option("-k,--kernel", options->kernel, "Only what this kernel counts")
      ->type_name("K")
      ->check(kernel_number);
  command->add_option("-p,--peer", options->peer, "Only what is counted about this kernel")
      ->type_name("K")
      ->check(kernel_number);
  command
      ->add_option("-w,--watch", options->watch_seconds,
                   "Show rates, every so many seconds (0.1 to 3600), until interrupted")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 3'600.0).description(""));
  command->add_flag("--net", options->net,
                    "Show what the network stacks count instead, by the names of nstat(8)");
  command->add_flag("-z,--zeros", options->zeros, "With --net: counters that are 0 too")
      ->needs("--net");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob stats                       a line for each pair of kernels, since their start\n"
      "  cob stats --watch 1             the same a second, every second\n"
      "  cob stats -k 0 -p 1 --json      everything that kernel 0 counts about kernel 1\n"
      "  cob stats --watch 1 --json      one JSON value a line\n"
      "  cob stats --net                 segments, retransmissions, opens, drops: each kernel's "
      "and "
      "summed\n"
      "\n"
      "ISLAND      the peer's\n"
      "LINK        what carries the messages; down: not connected now\n"
      "EPOCH       which life of the peer the link is to\n"
      "MSGS        messages of all kinds and both priorities; BYTES: in them, without heads\n"
      "REQUESTS    of this kernel to the peer; FAILED: those that got no reply (deadline, error, "
      "death ...)\n"
      "FULL        times a message found the ring to the peer full and had to wait\n"
      "RUNG        times the peer slept and had to be woken; HEARD: times it woke this kernel\n"
      "REFUSED     what the peer sent or claimed and should not have; --json and the cob's log "
      "name the cause\n"
      "P50 ...     microseconds from a request to its answer, by the clock of this kernel's loop, "
      "which it reads\n"
      "            once a turn: each may be too long by the turn in which it was sent. --json: "
      "'turn' "
      "is the\n"
      "            average one before an answer; 'buckets' are four for every power of two");
  command->callback([options, &context] {
    if (!options->net) return stats(context, *options);
    if (options->peer >= 0 || options->watch_seconds > 0)
      fail(exit_usage, "--net goes with --kernel, --zeros and --json only (see: cob stats --help)");
    show_net_counters(context, options->kernel, options->zeros);
  });
}

}  // namespace cob::cli
