// CoreWatch: did the processes of a round get their cores? A process may wait for those that share
// its core on purpose (kernel and program, a hog): their running time explains its waiting. What is
// left over it waited for strangers. Every other task of the machine is watched too: what it ran is
// counted on the core where it was last. Figures: /proc/PID/task/TID/schedstat (run and wait, ns)
// and /proc/stat (ticks; softirq included); proc(5). Used by the measuring command's only thread.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace cob::bench {

struct TaskTimes {
  int core = -1;
  double run_us = 0;
  double wait_us = 0;
  bool judged = true;  // false: only explains the others' waiting (a hog, ksoftirqd)
};

// The longest time that a judged task waited beyond what its core mates ran.
double unexplained_wait_us(const std::vector<TaskTimes>& tasks);

struct Verdict {
  bool voided = false;
  double unexplained_us = 0;
  double strangers_us = 0;  // they ran on the worst core
  std::string stranger;     // the one that ran longest there
  double steal_us = 0;      // taken by the hypervisor, the worst core
  double wall_us = 0;
  std::map<int, double>
      busy_us;  // core -> user + system + irq + softirq, without idle, iowait, steal
  // What voided the round, with its share of the round; "" if nothing did.
  std::string reason;
};

class CoreWatch {
 public:
  explicit CoreWatch(std::vector<int> cores);
  // `pid` and what is below it now or later runs on `core`.
  void add(pid_t pid, int core, bool judged = true);
  // The round begins. What was added before counts from here, what is added later from its birth.
  void start();
  // Reads all; call from time to time during the round and while its processes can still be read.
  void sample();
  // The round is over: judges it. REQUIRES: sample() just before.
  void stop();
  const Verdict& verdict() const { return verdict_; }

  // A round is void beyond these shares of its wall time.
  static constexpr double allowed_unexplained = 0.03;
  static constexpr double allowed_strangers = 0.03;
  static constexpr double allowed_steal = 0.03;

 private:
  struct Root {
    int core;
    bool judged;
  };
  struct Task {
    TaskTimes first, last;
  };
  struct CoreTimes {
    double busy_us = 0;
    double steal_us = 0;
  };
  struct Other {
    int core = -1;
    double run_us = 0;
    std::string command;
  };
  void sample_process(pid_t pid, const Root& root);
  std::map<pid_t, Other> read_others() const;
  void judge_others(Verdict& verdict, double own_us) const;
  std::map<int, CoreTimes> read_cores() const;

  std::vector<int> cores_;
  std::map<pid_t, Root> roots_;
  std::map<pid_t, Task> tasks_;
  std::map<int, CoreTimes> cores_at_start_;
  std::map<pid_t, Other> others_at_start_;
  double started_s_ = 0;
  double own_at_start_us_ = 0;
  bool started_ = false;
  Verdict verdict_;
};

}  // namespace cob::bench
