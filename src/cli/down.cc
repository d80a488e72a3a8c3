// `cob down`: ends a cob in order, and returns when nothing of it is left.
// One thread.
#include <poll.h>

#include <memory>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/mounts.h"
#include "cli/run_directory.h"

namespace cob::cli {
namespace {

constexpr int end_timeout_ms = 15'000;

u64 programs_attached(ControlClient& client) {
  u64 programs = 0;
  for (const KernelView& kernel : view_cob(client).kernels) {
    if (const auto board = kernel.read()) programs += board->programs_attached;
  }
  return programs;
}

void down(bool wait, const Context& context) {
  const std::string name = checked_name(context.name);
  RunDirectory::remove_stale(name);
  ControlClient client = ControlClient::connect(name);
  while (wait && programs_attached(client) > 0) ::poll(nullptr, 0, 50);
  // Before the kernels go, while what is under way there is still answered.
  for (const Mounted& mounted : mounts_of(name)) unmount(mounted);
  const ControlReply reply = client.ask({{"do", "down"}});
  if (!client.wait_for_end(end_timeout_ms)) {
    fail(exit_state, "cob '{}' (supervisor pid {}) is still going down after {} s", name,
         reply.body.value("pid", 0), end_timeout_ms / 1'000);
  }
  if (context.json) return print_json({{"name", name}, {"down", true}});
  fmt::print("cob '{}' is down\n", name);
}

}  // namespace

void add_down(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("down", "End a cob");
  auto wait = std::make_shared<bool>(false);
  command->add_flag("--wait", *wait, "First wait until no program is attached");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(*command,
               "  cob down                end the cob 'default'\n"
               "  cob down --name web --wait\n"
               "\n"
               "Programs that still run go on as plain Linux processes: their files stay open, "
               "their cob sockets are reset. What `cob mount` mounted is unmounted.");
  command->callback([wait, &context] { down(*wait, context); });
}

}  // namespace cob::cli
