// Moving a program; see program_mover.h. One thread.
#include "cli/program_mover.h"

#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/passing.h"
#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr int answer_ms = 15'000;

kernel::MoveReport wait_for_report(FdRef socket, u32 pid) {
  pollfd waits{socket.get(), POLLIN, 0};
  if (::poll(&waits, 1, answer_ms) != 1)
    fail(exit_state, "the kernel of program {} does not answer; it may still move (see: cob ps)",
         pid);
  kernel::MoveReport report;
  const auto received = receive_datagram(socket, std::as_writable_bytes(std::span(&report, 1)));
  if (received.is_error() || received.value().bytes != sizeof report)
    fail(exit_state, "the kernel of program {} ended while it moved", pid);
  report.text[sizeof report.text - 1] = '\0';
  return report;
}

// Its threads, and what they start, run on the kernel's core from now on. A thread that has just
// begun inherits its maker's core: looked at again until there is none left.
int move_threads(u32 pid, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(core), &set);
  int problem = 0;
  for (int round = 0; round < 2; ++round) {
    std::error_code ignored;
    for (const auto& task :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), ignored)) {
      const int thread = std::atoi(task.path().filename().c_str());
      if (::sched_setaffinity(thread, sizeof set, &set) != 0 && errno != ESRCH) problem = errno;
    }
  }
  return problem;
}

// The programs that moved, and what they have started that is no program of the cob, or of another
// kernel: those who have made no call yet, images that cannot be attached.
std::vector<u32> processes_of(const kernel::MoveReport& report, ControlClient& client, int kernel) {
  std::vector<u32> all;
  for (u32 i = 0; i < std::min(report.programs, kernel::max_moved_programs); ++i)
    if (report.pid[i] != 0) all.push_back(report.pid[i]);
  std::set<u32> seen(all.begin(), all.end());
  const CobView view = view_cob(client);
  for (const KernelView& one : view.kernels) {
    const auto board = one.read();
    if (!board || one.info.value("kernel", 0) == kernel) continue;
    for (const kernel::BoardProgram& program : board->program) seen.insert(program.pid);
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::error_code ignored;
    for (const auto& task :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/task", all[i]), ignored)) {
      std::ifstream children(task.path() / "children");
      for (u32 child = 0; children >> child;)
        if (seen.insert(child).second) all.push_back(child);
    }
  }
  return all;
}

}  // namespace

MoveOutcome move_program(ControlClient& client, const MoveOrder& order) {
  ControlReply reply = client.ask({{"do", "migrate"},
                                   {"pid", order.pid},
                                   {"from", order.from},
                                   {"to", order.to},
                                   {"tree", order.tree}});
  if (reply.descriptors.size() != 1) fail(exit_state, "the supervisor sent no socket");
  MoveOutcome outcome{.report = wait_for_report(reply.descriptors[0].ref(), order.pid)};
  if (outcome.report.error != 0) return outcome;
  const int core = reply.body.value("core", 0);
  outcome.core_problem = move_threads(order.pid, core);
  if (!order.tree) return outcome;
  for (const u32 pid : processes_of(outcome.report, client, order.to))
    if (const int failed = move_threads(pid, core); failed != 0) outcome.core_problem = failed;
  return outcome;
}

}  // namespace cob::cli
