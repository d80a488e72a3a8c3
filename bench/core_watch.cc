// Reading and judging of core_watch.h.
// A task first seen after the round's start counts from zero: it was born in the round.
// Used by the measuring command's only thread.
#include "bench/core_watch.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <sstream>

#include "bench/child.h"

namespace cob::bench {

namespace {
// What this thread has run.
double own_run_us() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}
}  // namespace

double unexplained_wait_us(const std::vector<TaskTimes>& tasks) {
  std::map<int, double> run_on_core;
  for (const TaskTimes& task : tasks) run_on_core[task.core] += task.run_us;
  double worst = 0;
  for (const TaskTimes& task : tasks) {
    if (!task.judged) continue;
    worst = std::max(worst, task.wait_us - (run_on_core[task.core] - task.run_us));
  }
  return worst;
}

CoreWatch::CoreWatch(std::vector<int> cores) : cores_(std::move(cores)) {
  // Packets may be handled by ksoftirqd on the benchmark's behalf: its time is no stranger's.
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size()) continue;
    const std::string command = read_text(entry.path() / "comm");
    for (int core : cores_) {
      if (command == fmt::format("ksoftirqd/{}\n", core)) add(pid, core, false);
    }
  }
}

void CoreWatch::start() {
  tasks_.clear();
  started_ = false;
  others_at_start_ = read_others();
  sample();
  started_ = true;
  started_s_ = now_seconds();
  cores_at_start_ = read_cores();
  own_at_start_us_ = own_run_us();
}

void CoreWatch::add(pid_t pid, int core, bool judged) {
  roots_[pid] = {.core = core, .judged = judged};
}

void CoreWatch::sample() {
  const ProcessTree tree = process_tree();  // once: this command's own work disturbs the round
  for (const auto& [pid, root] : roots_) {
    sample_process(pid, root);
    for (pid_t below : descendants(pid, tree)) sample_process(below, root);
  }
}

void CoreWatch::sample_process(pid_t pid, const Root& root) {
  std::error_code ignored;
  const std::string folder = fmt::format("/proc/{}/task", pid);
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    unsigned long long run = 0;
    unsigned long long wait = 0;
    const std::string text = read_text(entry.path() / "schedstat");
    if (std::sscanf(text.c_str(), "%llu %llu", &run, &wait) != 2) continue;
    const pid_t tid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
    const TaskTimes times{.core = root.core,
                          .run_us = static_cast<double>(run) * 1e-3,
                          .wait_us = static_cast<double>(wait) * 1e-3,
                          .judged = root.judged};
    const bool known = tasks_.contains(tid);
    Task& task = tasks_[tid];
    if (!known && !started_) task.first = times;
    task.last = times;
  }
}

std::map<int, CoreWatch::CoreTimes> CoreWatch::read_cores() const {
  std::map<int, CoreTimes> times;
  const double tick_us = 1e6 / static_cast<double>(sysconf(_SC_CLK_TCK));
  std::istringstream stat(read_text("/proc/stat"));
  for (std::string line; std::getline(stat, line);) {
    int core = -1;
    unsigned long long user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0,
                       steal = 0;
    if (std::sscanf(line.c_str(), "cpu%d %llu %llu %llu %llu %llu %llu %llu %llu", &core, &user,
                    &nice, &system, &idle, &iowait, &irq, &softirq, &steal) != 9) {
      continue;
    }
    times[core].busy_us = static_cast<double>(user + nice + system + irq + softirq) * tick_us;
    times[core].steal_us = static_cast<double>(steal) * tick_us;
  }
  return times;
}

// Every task of the machine, ours too.
std::map<pid_t, CoreWatch::Other> CoreWatch::read_others() const {
  std::map<pid_t, Other> others;
  std::error_code ignored;
  for (const auto& process : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = process.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::error_code gone;
    for (const auto& entry : std::filesystem::directory_iterator(process.path() / "task", gone)) {
      const std::string stat = read_text(entry.path() / "stat");
      const std::size_t open = stat.find('(');
      const std::size_t close = stat.rfind(')');
      if (open == std::string::npos || close == std::string::npos) continue;
      Other other{.command = stat.substr(open + 1, close - open - 1)};
      // Fields 3 to 39 stand behind the command; the last is the core: proc(5), "stat".
      std::istringstream fields(stat.substr(close + 1));
      std::string field;
      for (int i = 3; i <= 39; ++i) fields >> field;
      other.core = std::atoi(field.c_str());
      unsigned long long run = 0;
      if (std::sscanf(read_text(entry.path() / "schedstat").c_str(), "%llu", &run) != 1) continue;
      other.run_us = static_cast<double>(run) * 1e-3;
      others[static_cast<pid_t>(std::atoi(entry.path().filename().c_str()))] = other;
    }
  }
  return others;
}

// `own_us`: what this thread ran during the round; its walks before and after disturbed nobody.
void CoreWatch::judge_others(Verdict& verdict, double own_us) const {
  std::map<int, double> run_us;
  std::map<int, std::pair<double, std::string>> longest;
  for (const auto& [tid, other] : read_others()) {
    if (tasks_.contains(tid)) continue;
    const auto before = others_at_start_.find(tid);
    const double run =
        tid == ::gettid()
            ? own_us
            : other.run_us - (before == others_at_start_.end() ? 0 : before->second.run_us);
    run_us[other.core] += run;
    if (run > longest[other.core].first) longest[other.core] = {run, other.command};
  }
  for (int core : cores_) {
    if (run_us[core] <= verdict.strangers_us) continue;
    verdict.strangers_us = run_us[core];
    verdict.stranger = longest[core].second;
  }
}

void CoreWatch::stop() {
  const double own_us = own_run_us() - own_at_start_us_;
  Verdict verdict;
  std::vector<TaskTimes> tasks;
  for (const auto& [tid, task] : tasks_) {
    TaskTimes difference = task.last;
    difference.run_us -= task.first.run_us;
    difference.wait_us -= task.first.wait_us;
    tasks.push_back(difference);
  }
  verdict.wall_us = (now_seconds() - started_s_) * 1e6;
  verdict.unexplained_us = unexplained_wait_us(tasks);
  judge_others(verdict, own_us);
  const auto cores_now = read_cores();
  for (int core : cores_) {
    const auto before = cores_at_start_.find(core);
    const auto after = cores_now.find(core);
    if (before == cores_at_start_.end() || after == cores_now.end()) continue;
    verdict.busy_us[core] = after->second.busy_us - before->second.busy_us;
    verdict.steal_us = std::max(verdict.steal_us, after->second.steal_us - before->second.steal_us);
  }
  const double unexplained = verdict.unexplained_us / verdict.wall_us;
  const double strangers = verdict.strangers_us / verdict.wall_us;
  const double steal = verdict.steal_us / verdict.wall_us;
  if (unexplained > allowed_unexplained) {
    verdict.reason += fmt::format(" waited {:.1f} % for others than its mates;", unexplained * 100);
  }
  if (strangers > allowed_strangers) {
    verdict.reason +=
        fmt::format(" strangers ran {:.1f} % (most: {});", strangers * 100, verdict.stranger);
  }
  if (steal > allowed_steal) verdict.reason += fmt::format(" stolen {:.1f} %;", steal * 100);
  verdict.voided = !verdict.reason.empty();
  verdict_ = verdict;
}

}  // namespace cob::bench
