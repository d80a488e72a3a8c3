// The runs of `cob bench migrate`: a server with files and connections is moved to and fro between
// two kernels by `cob migrate` while its peers ask; sizes take turns.
// Used by the measuring command's only thread.
#include "bench/migrate.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/child.h"
#include "bench/core_watch.h"
#include "bench/place.h"
#include "bench/report.h"
#include "bench/server_case.h"
#include "bench/turns.h"

namespace cob::bench {

namespace {

constexpr int first_moves = 4;   // not counted: memory that is touched first
constexpr double patience = 20;  // seconds: starting, ending, one move
constexpr int between_ms = 10;

// So many connections, and files beside them.
struct Size {
  std::string key;  // of its figures
  int connections;
  int files;
};
const std::vector<Size> sizes{{"0", 0, 0},
                              {"1", 1, 1},
                              {"10", 10, 10},
                              {"100", 100, 100},
                              {"1000", 1'000, 1'000},
                              {"bare_1000", 1'000, 0}};

struct Pauses {
  std::vector<double> kernel, peers;  // us; peers: of moves during which an answer was slow
  double moves = 0;
};

class Migrate {
 public:
  Migrate(const Options& options, Interrupts& interrupts, std::string helper, const PrivateCob& cob)
      : options_(options), interrupts_(interrupts), helper_(std::move(helper)), cob_(cob) {}

  Outcome<Verdict> measure(std::size_t side) {
    const Size& size = sizes[side];
    const std::string port = std::to_string(20'000 + runs_++ % 20'000);
    auto server = start({"server", address(), port, std::to_string(size.files)}, 1, "listening");
    if (!server) return failed("the server: " + server.why());
    std::optional<Child> peer;
    if (size.connections > 0) {
      auto started =
          start({"peer", address(), port, std::to_string(size.connections)}, 0, "connected");
      if (!started) return failed("the peer: " + started.why());
      peer = std::move(*started);
    }
    CoreWatch watch(options_.cores);
    watch.add(getpid(), options_.cores[0], false);
    for (std::size_t i = 0; i < 2; ++i)
      watch.add(cob_.place().kernels[i], options_.cores[i], false);
    watch.start();
    const std::string wrong = move_to_and_fro(server->pid(), watch, newest_[side]);
    watch.sample();
    watch.stop();
    if (!wrong.empty()) return failed(wrong);
    if (peer) {
      peer->end();
      take_peers(newest_[side]);
    }
    if (!server->running()) return failed("the server has ended");
    server->end();
    return watch.verdict();
  }

  // The last round of every size counts.
  void accept() {
    for (auto& [side, newest] : newest_) {
      Pauses& all = pauses_[side];
      all.kernel.insert(all.kernel.end(), newest.kernel.begin(), newest.kernel.end());
      all.peers.insert(all.peers.end(), newest.peers.begin(), newest.peers.end());
      all.moves += newest.moves;
    }
  }

  bool finish(const Turns& turns) const;

 private:
  struct Window {
    double from_us, until_us;
  };

  const std::string& address() const { return cob_.place().addresses.front(); }
  std::string output_of(const std::string& what) const { return folder_.path() + "/" + what; }
  static Outcome<Verdict> failed(const std::string& why) { return Outcome<Verdict>::failed(why); }

  Outcome<Child> start(std::vector<std::string> words, int kernel, const std::string& says) {
    SpawnOptions options{.argv = cob_.run_on(kernel), .output = output_of(words[0])};
    std::filesystem::remove(options.output);  // what the one before said
    options.argv.push_back(helper_);
    options.argv.insert(options.argv.end(), words.begin(), words.end());
    auto child = Child::spawn(options);
    if (!child) return child;
    const double until = now_seconds() + patience;
    while (read_text(options.output).find(says) == std::string::npos) {
      if (now_seconds() > until || interrupts_.seen() || !child->running())
        return Outcome<Child>::failed(last_line(read_text(options.output)));
      sleep_ms(2);
    }
    return child;
  }

  // "" or why not.
  std::string move_to_and_fro(pid_t pid, CoreWatch& watch, Pauses& pauses) {
    pauses = {};
    windows_.clear();
    const double until = now_seconds() + options_.seconds / options_.rounds;
    for (int moves = 0; moves < first_moves + 2 || now_seconds() < until; ++moves) {
      const auto done = run({.argv = {options_.cob, "migrate", "--json", "--name", cob_.name(),
                                      std::to_string(pid), std::to_string(moves % 2)},
                             .output = output_of("move")},
                            patience, interrupts_);
      if (!done) return "cob migrate: " + done.why();
      const auto said = nlohmann::json::parse(done->output, nullptr, false);
      if (done->status != 0 || !said.is_object() || !said.contains("pause_us"))
        return "cob migrate: " + last_line(done->output);
      sleep_ms(between_ms);
      if (moves < first_moves) continue;
      const double from_us = said.value("paused_at_us", 0.0), took_us = said.value("pause_us", 0.0);
      windows_.push_back({from_us, from_us + took_us});
      pauses.kernel.push_back(took_us);
      ++pauses.moves;
      watch.sample();
    }
    return "";
  }

  void take_peers(Pauses& pauses) {
    const auto answers = parse_slow_answers(read_text(output_of("peer")));
    for (const Window& window : windows_)
      if (const auto took = slowest_in(answers, window.from_us, window.until_us))
        pauses.peers.push_back(*took);
  }

  const Options& options_;
  Interrupts& interrupts_;
  std::string helper_;
  const PrivateCob& cob_;
  TemporaryDirectory folder_;
  std::vector<Window> windows_;
  int runs_ = 0;
  std::map<std::size_t, Pauses> newest_, pauses_;
};

bool Migrate::finish(const Turns& turns) const {
  Report report;
  Table table({"a move (us)", "pause", "p99", "seen by peers", "p99", "moves"});
  for (std::size_t side = 0; side < sizes.size(); ++side) {
    const auto found = pauses_.find(side);
    if (found == pauses_.end()) continue;
    const auto& [key, connections, files] = sizes[side];
    const Summary kernel = summarize(found->second.kernel), peers = summarize(found->second.peers);
    report.number(fmt::format("pause_{}_us_p50", key), kernel.median);
    report.number(fmt::format("pause_{}_us_p99", key), kernel.p99);
    report.number(fmt::format("pause_{}_runs", key), found->second.moves);
    if (peers.runs > 0) {
      report.number(fmt::format("seen_{}_us_p50", key), peers.median);
      report.number(fmt::format("seen_{}_us_p99", key), peers.p99);
    }
    table.row({fmt::format("{} connections, {} files", connections, files), human(kernel.median),
               human(kernel.p99), peers.runs > 0 ? human(peers.median) : "-",
               peers.runs > 0 ? human(peers.p99) : "-", human(found->second.moves)});
  }
  fmt::print("{}", table.to_string());
  if (report.has("pause_bare_1000_us_p50") && report.has("pause_0_us_p50")) {
    const double each =
        (report.get("pause_bare_1000_us_p50") - report.get("pause_0_us_p50")) / 1'000;
    report.number("connection_move_us_p50", each);
    fmt::print("each connection: {:.2f} us\n", each);
  }
  report.number("rounds", turns.rounds);
  report.number("voided_rounds", turns.voided);
  report.number("disturbed", turns.disturbed ? 1 : 0);
  return report.write(options_.json) && turns.failed.empty();
}

}  // namespace

std::vector<SlowAnswer> parse_slow_answers(const std::string& output) {
  std::vector<SlowAnswer> answers;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    double end_ns = 0, took_ns = 0;
    if (words >> end_ns >> took_ns) answers.push_back({end_ns / 1e3, took_ns / 1e3});
  }
  return answers;
}

std::optional<double> slowest_in(const std::vector<SlowAnswer>& answers, double from_us,
                                 double until_us) {
  std::optional<double> slowest;
  for (const SlowAnswer& answer : answers)
    if (answer.end_us >= from_us && answer.end_us - answer.took_us <= until_us)
      slowest = std::max(slowest.value_or(0), answer.took_us);
  return slowest;
}

int migrate_main(const Options& options) {
  const std::string helper = helper_program(options, "cob-bench-migrate");
  if (helper.empty())
    return fail(options.json, 1,
                fmt::format("cob-bench-migrate is missing beside {}", options.cob));
  Interrupts interrupts;
  int status = 0;
  {
    auto cob = PrivateCob::bring_up(options, interrupts);
    if (!cob) return fail(options.json, interrupts.seen() ? 130 : 1, cob.why());
    Migrate migrate(options, interrupts, helper, *cob);
    std::vector<std::string> sides;
    sides.reserve(sizes.size());
    for (const Size& size : sizes) sides.push_back(size.key);
    const Turns turns = take_turns(
        options.rounds, sides, [&](std::size_t side, int) { return migrate.measure(side); },
        [&] { migrate.accept(); });
    if (!turns.failed.empty() && !interrupts.seen())
      fmt::print(stderr, "cob bench migrate: {}\n", turns.failed);
    status = migrate.finish(turns) ? 0 : 1;
  }
  const bool interrupted = interrupts.seen();
  end_all_children();
  return interrupted ? 130 : status;
}

}  // namespace cob::bench
