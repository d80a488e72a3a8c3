// Processes that a benchmark starts: each is this process's child, pinned, its output in a file,
// and ended by its pid. Interrupts: SIGINT and SIGTERM as a descriptor, so that every wait can be
// cut short and cleaning up is ordinary code. Used by the measuring command's only thread. fork(2),
// signalfd(2), pidfd_open(2), prctl(2).
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/fd.h"
#include "bench/network.h"
#include "bench/samples.h"

namespace cob::bench {

// While it lives SIGINT, SIGTERM and SIGHUP are blocked and seen by poll(); orphaned grandchildren
// become our children.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  // Non-blocking; stays true once it was.
  bool seen();
  FdRef descriptor() const { return fd_.ref(); }

 private:
  Fd fd_;
  bool seen_ = false;
};

struct SpawnOptions {
  std::vector<std::string> argv = {};
  int core = -1;                        // -1: as the parent
  std::string output = {};              // file that takes stdout and stderr; "": /dev/null
  bool keep_errors = false;             // stderr goes where ours goes
  const OwnNetwork* network = nullptr;  // it is started in that; nullptr: in ours
};

class Child {
 public:
  Child() = default;
  Child(Child&& other) noexcept;
  Child& operator=(Child&& other) noexcept;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() { end(); }

  static Outcome<Child> spawn(const SpawnOptions& options);
  // A copy of this process, on any of `cores`, that ends with what `run` returns; it is killed
  // should this process die.
  static Outcome<Child> start(const std::vector<int>& cores, const std::function<int()>& run);
  // A busy loop on `core`, until ended.
  static Outcome<Child> hog(int core);

  pid_t pid() const { return pid_; }
  bool running() const { return pid_ > 0; }
  // Waits at most `seconds`, calling `tick` every 250 ms and once when the child is dead but not
  // yet reaped. The exit status (128 + n for signal n); fails if time is up or an interrupt came:
  // the child then still runs.
  Outcome<int> wait(double seconds, Interrupts& interrupts, const std::function<void()>& tick = {});
  // Waits at most `seconds`, deaf to interrupts, then ends it.
  void finish(double seconds);
  // SIGTERM, and SIGKILL after `seconds`, to the child; what it leaves behind of descendants
  // likewise.
  void end(double seconds = 3);

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_ = -1;
};

// Runs to the end: the exit status, and what it printed.
struct Finished {
  int status = 0;
  std::string output = {};
};
Outcome<Finished> run(SpawnOptions options, double seconds, Interrupts& interrupts);

// Parent -> child, of every living process. Reads all of /proc.
using ProcessTree = std::multimap<pid_t, pid_t>;
ProcessTree process_tree();
// Every process of the tree below `pid`, not `pid` itself.
std::vector<pid_t> descendants(pid_t pid, const ProcessTree& tree);

// Ends what is left of our children, adopted ones included; by pid.
void end_all_children();

// A directory of its own below $TMPDIR or /tmp, removed with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string read_text(const std::string& path);
bool write_text(const std::string& path, const std::string& text);
void sleep_ms(int milliseconds);
double now_seconds();
// Full path of a program: $PATH, then /usr/sbin and /sbin. "" if there is none.
std::string find_program(const std::string& name);

}  // namespace cob::bench
