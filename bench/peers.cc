// Running the peers; see peers.h. Each run has a mount and a process namespace of its own with an
// empty /tmp and /dev/shm, so that names that a system fixes (RouDi's) meet nobody else's, and so
// that nothing is left, in files or processes, whatever becomes of the run. unshare(1)
// Used by the measuring command's only thread.
#include "bench/peers.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sstream>

namespace cob::bench {
namespace {

struct Peer {
  const char* name;
  const char* packages;
  // It has files in /dev/shm, or fixed names in /tmp: it runs in a namespace or not at all.
  bool leaves_files;
};
constexpr std::array peers{
    Peer{"ucx", "libucx-dev", true},
    Peer{"libfabric", "libfabric-dev", true},
    Peer{"openmpi", "openmpi-bin libopenmpi-dev", true},
    Peer{"mpich", "mpich libmpich-dev", true},
    Peer{"iceoryx", "iceoryx libiceoryx-posh-dev", true},
    Peer{"boost_queue", "libboost-dev", true},
    Peer{"zeromq", "libzmq3-dev", false},
    Peer{"nng", "libnng-dev", false},
    Peer{"capnproto", "capnproto libcapnp-dev", false},
    Peer{"grpc", "libgrpc++-dev", false},
    Peer{"unix_socket", "", false},
};

// $1: the directory of the programs, which may be below /tmp; the rest: one of them, by name.
constexpr const char* enter =
    "mount -t tmpfs cob-peers /dev/shm && mkdir /dev/shm/bin && mount --bind \"$1\" /dev/shm/bin "
    "&& mount -t tmpfs cob-peers /tmp || exit 125; "
    "shift; name=$1; shift; TMPDIR=/tmp /dev/shm/bin/$name \"$@\"";

class Runner {
 public:
  Runner(const PeerOptions& options, Interrupts& interrupts)
      : options_(options),
        interrupts_(interrupts),
        directory_(options.directory.empty() ? peer_directory() : options.directory) {
    namespaces_ = try_namespaces();
  }

  bool built(const Peer& peer) const {
    return ::access(fmt::format("{}/cob-peer-{}", directory_, peer.name).c_str(), X_OK) == 0;
  }

  Outcome<PeerFigures> run_once(const Peer& peer, std::size_t size) {
    if (!namespaces_.empty() && peer.leaves_files) {
      return Outcome<PeerFigures>::failed("it needs a private /dev/shm: " + namespaces_);
    }
    const std::string program = fmt::format("cob-peer-{}", peer.name);
    std::vector<std::string> argv;
    if (namespaces_.empty()) {
      argv = enter_namespaces();
      argv.push_back(program);
    } else {
      argv = {"env", "TMPDIR=" + temporary_.path(), directory_ + "/" + program};
    }
    for (std::string word : {std::string("--size"), std::to_string(size), std::string("--cores"),
                             fmt::format("{},{}", options_.cores[0], options_.cores[1]),
                             std::string("--seconds"), fmt::format("{}", options_.seconds)}) {
      argv.push_back(std::move(word));
    }
    const std::string output = temporary_.path() + "/output";
    const auto status =
        run_to_end(std::move(argv), output, options_.patience_seconds + 4 * options_.seconds);
    const std::string text = read_text(output);
    if (!status) return Outcome<PeerFigures>::failed(status.why());
    auto figures = parse_peer_output(text);
    if (figures && *status != 0)
      return Outcome<PeerFigures>::failed(fmt::format("it ended with status {}", *status));
    return figures;
  }

 private:
  std::vector<std::string> enter_namespaces() const {
    std::vector<std::string> argv{"unshare", "--mount",      "--pid",
                                  "--fork",  "--kill-child", "--mount-proc"};
    if (::geteuid() != 0) argv.insert(argv.begin() + 1, "--map-root-user");
    for (const char* word : {"sh", "-c", enter, "sh"}) argv.emplace_back(word);
    argv.push_back(directory_);
    return argv;
  }

  // "" or why there are none.
  std::string try_namespaces() {
    std::vector<std::string> argv = enter_namespaces();
    // No program but the directory itself: found, not executable.
    argv.emplace_back(".");
    const std::string output = temporary_.path() + "/output";
    const auto status = run_to_end(std::move(argv), output, 10);
    if (!status) return status.why();
    if (*status == 126) return "";
    const std::string text = read_text(output);
    return text.substr(0, text.find('\n'));
  }

  Outcome<int> run_to_end(std::vector<std::string> argv, const std::string& output,
                          double seconds) {
    auto child = Child::spawn({.argv = std::move(argv), .output = output});
    if (!child) return Outcome<int>::failed(child.why());
    auto status = child->wait(seconds, interrupts_);
    // Nothing in the namespaces outlives unshare(1), which is deaf to SIGTERM.
    child->end(0.1);
    return status;
  }

  const PeerOptions& options_;
  Interrupts& interrupts_;
  std::string directory_;
  TemporaryDirectory temporary_;
  std::string namespaces_;  // "" or why there are none
};

struct Row {
  const Peer* peer;
  PeerResult result;
  std::vector<double> p50, p99, rate;

  void add(const Outcome<PeerFigures>& figures) {
    if (!figures) {
      result.why = figures.why();
    } else if (figures->unsupported) {
      result.state = PeerState::unsupported;
      result.why = figures->why;
    } else {
      p50.push_back(figures->rtt_p50_ns);
      p99.push_back(figures->rtt_p99_ns);
      rate.push_back(figures->per_s);
    }
  }
  PeerResult finish(int rounds) {
    result.runs = rate.size();
    if (rate.empty()) return result;
    result.state = PeerState::measured;
    result.rtt_p50_ns = median(p50);
    result.rtt_p99_ns = median(p99);
    result.per_s = median(rate);
    const auto failed = static_cast<std::size_t>(rounds) - rate.size();
    if (!result.why.empty())
      result.why = fmt::format("{} of {} rounds failed: {}", failed, rounds, result.why);
    return result;
  }
};

std::optional<double> number(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value > 0)) return {};
  return value;
}

}  // namespace

std::vector<std::string> peer_names() {
  std::vector<std::string> names;
  names.reserve(peers.size());
  for (const Peer& peer : peers) names.emplace_back(peer.name);
  return names;
}

std::string peer_directory() {
  const char* set = std::getenv("COB_PEERS");
  if (set != nullptr && *set != 0) return set;
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path().string();
}

std::vector<PeerResult> measure_peers(const PeerOptions& options, Interrupts& interrupts) {
  Runner runner(options, interrupts);
  std::vector<Row> rows;
  for (const Peer& peer : peers) {
    if (!options.only.empty() && std::ranges::find(options.only, peer.name) == options.only.end())
      continue;
    for (const std::size_t size : options.sizes) {
      Row row{.peer = &peer, .result = {.name = peer.name, .size = size}, .p50{}, .p99{}, .rate{}};
      if (runner.built(peer)) {
        row.result.state = PeerState::failed;
        row.result.why = "interrupted";
      } else {
        const std::string install =
            *peer.packages == 0 ? "" : fmt::format("apt-get install {}, then ", peer.packages);
        row.result.why = fmt::format("not installed: {}make bench-peers", install);
      }
      rows.push_back(std::move(row));
    }
  }
  for (int round = 0; round < options.rounds; ++round) {
    for (Row& row : rows) {
      if (interrupts.seen()) break;
      if (row.result.state != PeerState::failed) continue;
      if (round == 0) row.result.why.clear();
      row.add(runner.run_once(*row.peer, row.result.size));
    }
  }
  std::vector<PeerResult> results;
  results.reserve(rows.size());
  for (Row& row : rows) results.push_back(row.finish(options.rounds));
  return results;
}

Outcome<PeerFigures> parse_peer_output(const std::string& text) {
  PeerFigures figures;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("error=")) return Outcome<PeerFigures>::failed(line.substr(6));
    if (line.starts_with("unsupported=")) {
      figures.unsupported = true;
      figures.why = line.substr(12);
      return figures;
    }
    if (!line.starts_with("rtt_p50_ns=") && !line.starts_with("per_s=")) continue;
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      const std::size_t equals = word.find('=');
      const std::string key = word.substr(0, equals);
      const auto value =
          equals == std::string::npos ? std::nullopt : number(word.substr(equals + 1));
      if (!value) return Outcome<PeerFigures>::failed("it printed: " + line);
      if (key == "rtt_p50_ns") figures.rtt_p50_ns = *value;
      if (key == "rtt_p99_ns") figures.rtt_p99_ns = *value;
      if (key == "per_s") figures.per_s = *value;
    }
  }
  if (figures.rtt_p50_ns > 0 && figures.rtt_p99_ns > 0 && figures.per_s > 0) return figures;
  // The library's own last words.
  const std::size_t end = text.find_last_not_of("\n ");
  if (end == std::string::npos) return Outcome<PeerFigures>::failed("it printed nothing");
  const std::size_t begin = text.rfind('\n', end);
  return Outcome<PeerFigures>::failed(
      "it printed no figures, but: " +
      text.substr(begin == std::string::npos ? 0 : begin + 1, end - begin));
}

}  // namespace cob::bench
