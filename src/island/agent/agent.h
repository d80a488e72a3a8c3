// The agent: on an added island what the supervisor is on the cob's host. It starts the kernel with
// the configuration that comes through the channel, introduces programs and viewers to it, shows
// its board, and tells its end. Model: one poll loop over {channel, kernel, kernel's end, attach
// right, streams}; whatever ends, ends the island: a new life begins with a new agent. One thread,
// the first process of a guest.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/memory.h"
#include "base/result.h"
#include "island/agent/program_start.h"
#include "island/channel.h"
#include "message/control.h"

namespace cob::island {

class Agent {
 public:
  static constexpr Duration board_interval = Duration::milliseconds(250);
  static constexpr std::size_t most_streams = 1'024;

  // `port`: the channel's stream.
  static Result<Agent> create(Fd port);
  // Until the island is to end. What it says is why.
  Result<void> run();

 private:
  explicit Agent(Fd port) : channel_(std::move(port)) {}

  struct Stream {
    Fd viewer;  // our end of its socket pair with the kernel
    std::optional<ProgramStart> program;
  };

  Result<void> turn();
  Result<void> on_frame(const FrameHead& head, std::span<const std::byte> body);
  Result<void> on_config(std::span<const std::byte> body);
  Result<void> on_share(std::span<const std::byte> body);
  Result<void> start_kernel();
  Result<void> open_stream(u32 stream, StreamKind kind);
  void on_data(u32 stream, std::span<const std::byte> body);
  void close_stream(u32 stream, bool tell);
  Result<void> on_kernel();
  Result<void> introduce(pid_t process, Fd kernels_end);
  void on_attach_again();
  void on_viewer(u32 stream);
  Result<void> on_children();
  void show_board(bool all);

  Channel channel_;
  Fd children_;  // signalfd of SIGCHLD
  message::Config config_{};
  bool configured_ = false;
  std::vector<std::vector<std::byte>> shares_;
  ProgramSetting setting_;
  Fd listener_, kernel_, attach_right_, attach_inlet_;
  pid_t kernel_process_ = 0;
  Mapping board_;
  std::vector<std::byte> shown_;  // of the board
  Time next_board_ = Time::never();
  std::map<u32, Stream> streams_;
};

}  // namespace cob::island
