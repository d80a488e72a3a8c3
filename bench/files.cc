// The runs of `cob bench files`: one small program, git and SQLite at the same directory by each
// way, in turns; a figure is the median over the rounds of the program's own medians. Used by the
// measuring command's only thread.
#include "bench/files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include "bench/calls.h"
#include "bench/child.h"
#include "bench/mounts.h"
#include "bench/place.h"
#include "bench/report.h"
#include "bench/server_case.h"

namespace cob::bench {

namespace {

const std::vector<std::string> operations{
    "open_close", "stat",      "create_unlink", "pread_4k",  "pread_4k_cached",
    "read_4k",    "pwrite_4k", "pread_1m",      "pwrite_1m", "lock_unlock"};
// What is more than an operation of one program.
const std::vector<std::string> jobs{"appends_64b", "appends_4k", "git", "sqlite"};
struct Appends {
  const char* what;
  int bytes;
};
constexpr Appends both_appends[] = {{"appends_64b", 64}, {"appends_4k", 4'096}};
constexpr double patience = 60;  // seconds, beside what was asked for

// Runs at argv[1]; prints as cob-bench-files does: an insert in a transaction of its own.
constexpr const char* sqlite_inserts = R"python(
import sqlite3, sys, time
base = sqlite3.connect(sys.argv[1] + "/base.sqlite", isolation_level=None)
base.execute("create table if not exists t (k integer primary key, v text)")
took, end = [], time.monotonic() + float(sys.argv[2])
while time.monotonic() < end or len(took) < 5:
    start = time.perf_counter_ns()
    base.execute("insert into t (v) values (?)", ("x" * 100,))
    took.append(time.perf_counter_ns() - start)
assert base.execute("pragma integrity_check").fetchone() == ("ok",)
took.sort()
print("sqlite", took[len(took) // 2], took[len(took) * 99 // 100], len(took))
)python";

// One way to the directory.
struct Way {
  std::string label;  // host | local | remote | mount | fuse | sshfs
  std::vector<std::string> prefix = {};
  int core = -1;
  std::string directory = {};

  SpawnOptions run(std::vector<std::string> argv) const {
    argv.insert(argv.begin(), prefix.begin(), prefix.end());
    return {.argv = std::move(argv), .core = core};
  }
};

class Files {
 public:
  Files(const Options& options, Interrupts& interrupts, std::string helper)
      : options_(options), interrupts_(interrupts), helper_(std::move(helper)) {}

  bool wants(const std::string& what) const {
    return options_.only.empty() || std::ranges::find(options_.only, what) != options_.only.end();
  }

  void measure(const Way& way) {
    std::vector<std::string> argv{helper_, "run", way.directory, share()}, asked;
    std::ranges::copy_if(operations, std::back_inserter(asked),
                         [this](const std::string& one) { return wants(one); });
    argv.insert(argv.end(), asked.begin(), asked.end());
    if (!asked.empty()) take(way, argv, asked);
    if (wants("sqlite")) {
      take(way, {find_program("python3"), "-c", sqlite_inserts, way.directory, share()},
           {"sqlite"});
      remove(way.directory + "/base.sqlite");
    }
    if (wants("git")) git(way);
  }

  // Two programs, each by its way, at one file.
  void append(const std::string& label, const Way& one, const Way& other, const Appends& asked) {
    const auto& [what, bytes] = asked;
    if (!wants(what)) return;
    const std::string file = "/appended";
    std::vector<Child> children;
    std::vector<std::string> outputs;
    for (const Way* way : {&one, &other}) {
      const std::string number = std::to_string(children.size());
      SpawnOptions start = way->run(
          {helper_, "append", way->directory + file, share(), std::to_string(bytes), number});
      outputs.push_back(start.output = folder_.path() + "/append" + number);
      auto child = Child::spawn(start);
      if (!child) return fail(label, what, child.why());
      children.push_back(std::move(*child));
    }
    double per_s = 0;
    double records = 0;
    for (std::size_t i = 0; i < children.size(); ++i) {
      const auto status = children[i].wait(options_.seconds + patience, interrupts_);
      if (!status || *status != 0)
        return fail(label, what, status ? read_text(outputs[i]) : status.why());
      std::istringstream words(read_text(outputs[i]));
      std::string name;
      double did = 0, seconds = 1;
      words >> name >> did >> seconds;
      records += did;
      per_s += did / seconds;
    }
    const auto checked =
        run({.argv = {helper_, "check", one.directory + file, std::to_string(bytes)},
             .output = folder_.path() + "/check"},
            patience, interrupts_);
    remove(one.directory + file);
    if (!checked || checked->status != 0 ||
        checked->output != fmt::format("check 2 {:.0f}\n", records))
      return fail(label, what, checked ? "the file is wrong: " + checked->output : checked.why());
    figures_[label + "_" + what + "_per_s"].push_back(per_s);
  }

  void fail(const std::string& label, const std::string& what, const std::string& why) {
    if (!interrupts_.seen())
      fmt::print(stderr, "cob bench files: {}, {}: {}\n", label, what, last_line(why));
    failed_ = true;
  }
  bool failed() const { return failed_; }
  double runs(const std::string& key) const { return runs_.contains(key) ? runs_.at(key) : 0; }
  bool has(const std::string& key) const { return figures_.contains(key); }
  double get(const std::string& key) const { return bench::median(figures_.at(key)); }

 private:
  std::string share() const { return fmt::format("{}", options_.seconds / options_.rounds); }
  static void remove(const std::string& path) {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }

  // The program's lines, one for each of `figures`.
  void take(const Way& way, std::vector<std::string> argv,
            const std::vector<std::string>& figures) {
    SpawnOptions start = way.run(std::move(argv));
    start.output = folder_.path() + "/output";
    const auto done =
        run(start, options_.seconds * static_cast<double>(figures.size()) + patience, interrupts_);
    const std::string all = fmt::format("{}", fmt::join(figures, ", "));
    if (!done || done->status != 0) return fail(way.label, all, done ? done->output : done.why());
    for (const std::string& figure : figures) {
      const auto summary = parse_call_line(done->output, figure);
      if (!summary) {
        fail(way.label, figure, "no figure in: " + done->output);
        continue;
      }
      const std::string key = way.label + "_" + figure;
      figures_[key + "_us_p50"].push_back(summary->median / 1'000);
      figures_[key + "_us_p99"].push_back(summary->p99 / 1'000);
      runs_[key] += static_cast<double>(summary->runs);
    }
  }

  // A clone of a repository on the directory to another place on it, and its status.
  void git(const Way& way) {
    const std::string program = find_program("git");
    const std::string clone = way.directory + "/clone";
    const double start = now_seconds();
    for (const std::vector<std::string>& argv :
         {std::vector<std::string>{program, "clone", "-q", "--no-hardlinks",
                                   way.directory + "/repository", clone},
          {program, "-C", clone, "status", "--short"}}) {
      SpawnOptions options = way.run(argv);
      options.output = folder_.path() + "/git";
      const auto done = run(options, patience, interrupts_);
      if (!done || done->status != 0 || !done->output.empty()) {
        fail(way.label, "git", done ? done->output : done.why());
        remove(clone);
        return;
      }
    }
    const double took = now_seconds() - start;
    remove(clone);
    figures_[way.label + "_git_us_p50"].push_back(took * 1e6);
    ++runs_[way.label + "_git"];
  }

  const Options& options_;
  Interrupts& interrupts_;
  std::string helper_;
  TemporaryDirectory folder_;
  std::map<std::string, std::vector<double>> figures_;
  std::map<std::string, double> runs_;
  bool failed_ = false;
};

// A repository of 200 files of 4 KiB in ten directories, one commit. "" or why not.
std::string make_repository(const std::string& path, Interrupts& interrupts) {
  for (int i = 0; i < 200; ++i) {
    const std::string folder = fmt::format("{}/{}", path, i % 10);
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    std::string text;
    for (int line = 0; text.size() < 4'096; ++line)
      text += fmt::format("line {} of file {}\n", line, i);
    if (failed || !write_text(fmt::format("{}/{}", folder, i), text))
      return "cannot write " + folder;
  }
  const std::string program = find_program("git");
  const TemporaryDirectory scratch;
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"init", "-q"},
        {"add", "."},
        {"-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m",
         "all"}}) {
    std::vector<std::string> argv{program, "-C", path};
    argv.insert(argv.end(), words.begin(), words.end());
    const auto done =
        run({.argv = std::move(argv), .output = scratch.path() + "/git"}, patience, interrupts);
    if (!done || done->status != 0) return done ? done->output : done.why();
  }
  return "";
}

const std::vector<std::string> labels{"host", "local", "remote", "mount", "fuse", "sshfs"};

bool finish(const Files& files, const std::map<std::string, bool>& missing,
            const Options& options) {
  Report report;
  Table table({"microseconds", "host", "local", "remote", "p99", "mount", "fuse", "sshfs",
               "local/host", "remote/host", "mount/fuse", "fuse/remote", "sshfs/remote"});
  std::vector<std::string> rows = operations;
  rows.insert(rows.end(), {"git", "sqlite"});
  for (const std::string& row : rows) {
    const auto key = [&](const std::string& label, const char* end = "_us_p50") {
      return fmt::format("{}_{}{}", label, row, end);
    };
    const auto cell = [&](const std::string& name) {
      return files.has(name) ? human(files.get(name)) : std::string("-");
    };
    const auto ratio = [&](const std::string& over, const std::string& under) {
      if (!files.has(key(over)) || !files.has(key(under))) return std::string("-");
      const double value = files.get(key(over)) / files.get(key(under));
      report.number(fmt::format("{}_{}_over_{}", over, row, under), value);
      if (under == "remote") report.number(fmt::format("{}_over_remote_{}", over, row), value);
      if (under == "fuse") report.number(fmt::format("mount_over_passthrough_{}", row), value);
      return fmt::format("{:.2f}", value);
    };
    if (!files.wants(row)) continue;
    for (const std::string& label : labels) {
      for (const char* end : {"_us_p50", "_us_p99"}) {
        if (files.has(key(label, end))) report.number(key(label, end), files.get(key(label, end)));
      }
      if (files.has(key(label))) report.number(key(label, "_runs"), files.runs(key(label, "")));
    }
    table.row({row, cell(key("host")), cell(key("local")), cell(key("remote")),
               cell(key("remote", "_us_p99")), cell(key("mount")), cell(key("fuse")),
               cell(key("sshfs")), ratio("local", "host"), ratio("remote", "host"),
               ratio("mount", "fuse"), ratio("fuse", "remote"), ratio("sshfs", "remote")});
  }
  for (const char* name : {"git", "sqlite"}) {  // as users ask: another island over the host
    const std::string key = fmt::format("remote_{}_over_host", name);
    if (report.has(key)) report.number(fmt::format("{}_over_host", name), report.get(key));
  }
  fmt::print("{}", table.to_string());
  for (const auto& [label, is] : missing) report.number(label + "_missing", is ? 1 : 0);
  for (const auto& [what, bytes] : both_appends) {
    for (const char* label : {"host", "islands"}) {
      const std::string key = fmt::format("{}_{}_per_s", label, what);
      if (!files.has(key)) continue;
      report.number(std::string_view(label) == "host" ? key : fmt::format("{}_per_s", what),
                    files.get(key));
      fmt::print("{} by two programs, {}: {}/s in total\n", what,
                 std::string_view(label) == "host" ? "both on the host" : "one on each island",
                 human(files.get(key)));
    }
  }
  return report.write(options.json);
}

// A mount, unless it cannot be had: said, and counted in the figures.
std::optional<Mount> had(Outcome<Mount> mount, const char* label,
                         std::map<std::string, bool>& missing) {
  missing[label] = !mount;
  if (mount) return std::move(*mount);
  fmt::print(stderr, "cob bench files: without {}: {}\n", label, mount.why());
  return std::nullopt;
}

int measure_all(const Options& options, Interrupts& interrupts, const std::string& helper) {
  const TemporaryDirectory store;
  const std::string& directory = store.path();
  const auto [asker, keeper] = std::pair(options.cores[1], options.cores[0]);
  if (const std::string wrong = make_repository(directory + "/repository", interrupts);
      !wrong.empty())
    return bench::fail(options.json, 1, "a repository to clone: " + wrong);
  auto cob = PrivateCob::bring_up(
      options,
      {.name = fmt::format("bench-{}", getpid()),
       .address = "10.99.3.1",
       .words = {"--island", fmt::format("store:1:{}", keeper), "--island",
                 fmt::format("other:1:{}", asker), "--link", options.link, "--share", directory}},
      interrupts);
  if (!cob) return bench::fail(options.json, interrupts.seen() ? 130 : 1, cob.why());
  std::map<std::string, bool> missing;
  const auto mount =
      had(Mount::of_cob(options, cob->name(), 1, asker, interrupts), "mount", missing);
  const auto passthrough =
      had(Mount::passthrough(options, directory, keeper, interrupts), "fuse", missing);
  const auto sshfs = had(Mount::sshfs(directory, keeper, interrupts), "sshfs", missing);
  std::vector<Way> ways{{.label = "host", .core = keeper, .directory = directory},
                        {.label = "local", .prefix = cob->run_on(0), .directory = directory},
                        {.label = "remote", .prefix = cob->run_on(1), .directory = directory}};
  if (mount) ways.push_back({.label = "mount", .core = asker, .directory = mount->path()});
  if (passthrough)
    ways.push_back({.label = "fuse", .core = asker, .directory = passthrough->path()});
  if (sshfs) ways.push_back({.label = "sshfs", .core = asker, .directory = sshfs->path()});
  Way host_too = ways[0];
  host_too.core = asker;
  Files files(options, interrupts, helper);
  for (int round = 0; round < options.rounds && !interrupts.seen(); ++round) {
    for (const Way& way : ways) files.measure(way);
    for (const Appends& appends : both_appends) {
      files.append("host", ways[0], host_too, appends);
      files.append("islands", ways[1], ways[2], appends);
    }
  }
  const bool good = finish(files, missing, options) && !files.failed();
  return interrupts.seen() ? 130 : good ? 0 : 1;
}

}  // namespace

int files_main(const Options& options) {
  for (const std::string& what : options.only) {
    if (std::ranges::find(operations, what) == operations.end() &&
        std::ranges::find(jobs, what) == jobs.end())
      return fail(options.json, 2,
                  fmt::format("there is no operation '{}'; there are {}, {}", what,
                              fmt::join(operations, ", "), fmt::join(jobs, ", ")));
  }
  const std::string helper = helper_program(options, "cob-bench-files");
  if (helper.empty())
    return fail(options.json, 1, fmt::format("cob-bench-files is missing beside {}", options.cob));
  Interrupts interrupts;
  const int status = measure_all(options, interrupts, helper);
  end_all_children();
  return status;
}

}  // namespace cob::bench
