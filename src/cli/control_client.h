// The CLI's side of the control socket: one request, one reply; and the kernels' boards as the
// supervisor hands them out. Model: requests.cc. Throws Failure{exit_state} when the cob is not up
// or refuses. Waits at most 10 s for a reply. The command's thread.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "kernel/board.h"

namespace cob::cli {

struct ControlReply {
  nlohmann::json body;
  std::vector<Fd> descriptors;
};

class ControlClient {
 public:
  static ControlClient connect(const std::string& name);
  // A reply with ok = false becomes a Failure, unless it says "retry": then it is asked again for
  // two seconds. `descriptor`, if it is one, goes with it.
  ControlReply ask(const nlohmann::json& request, FdRef descriptor = {});
  // Until the supervisor closes the connection, which is the last thing it does.
  bool wait_for_end(int timeout_ms);

  // Kernels that do not answer a view, over all that this command asks (view_client.h).
  bool a_kernel_was_silent = false;

 private:
  explicit ControlClient(Fd socket) : socket_(std::move(socket)) {}
  ControlReply ask_once(const nlohmann::json& request, FdRef descriptor);
  Fd socket_;
};

// A consistent copy of a kernel's board.
struct KernelView {
  nlohmann::json info;  // the supervisor's words: kernel, state, pid, core, epoch, uptime_ms
  Fd board_memory;      // invalid: the kernel is not running
  std::unique_ptr<kernel::Board> read() const;  // null when there is none
};

struct CobView {
  nlohmann::json info;  // without the kernels
  std::vector<KernelView> kernels;
};
CobView view_cob(ControlClient& client);

}  // namespace cob::cli
