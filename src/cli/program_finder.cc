// See program_finder.h.
#include "cli/program_finder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "base/clock.h"
#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr Duration look_for = Duration::seconds(1);

// Nothing if no kernel has it.
std::optional<ProgramPlace> look(ControlClient& client, u32 pid, bool& all_seen) {
  const CobView view = view_cob(client);
  all_seen = true;
  for (const KernelView& kernel : view.kernels) {
    if (kernel.info.contains("machine")) continue;  // another machine's numbers
    const auto board = kernel.read();
    if (!board) continue;
    for (const kernel::BoardProgram& program : board->program)
      if (program.pid == pid)
        return ProgramPlace{.kernel = kernel.info.value("kernel", 0),
                            .island = kernel.info.value("island", ""),
                            .command = program.command};
    if (board->programs_attached > kernel::board_programs) all_seen = false;
  }
  return std::nullopt;
}

}  // namespace

ProgramPlace find_running(ControlClient& client, u32 pid, const std::string& name) {
  bool all_seen = true;
  const Time until = HostClock::read() + look_for;
  do {
    if (auto found = look(client, pid, all_seen)) return *found;
    ::usleep(20'000);
  } while (HostClock::read() < until);
  if (!std::filesystem::exists(fmt::format("/proc/{}", pid)))
    fail(exit_state, "there is no process {}", pid);
  fail(exit_state, "process {} is not a program of cob '{}'{} (see: cob ps)", pid, name,
       all_seen ? "" : ", or one of too many to be listed");
}

}  // namespace cob::cli
