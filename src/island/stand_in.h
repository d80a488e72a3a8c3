// The stand-in: to the supervisor a kernel as any other (message/control.h), whose process runs on
// another machine. It boots that machine, hands the kernel's configuration on to the agent there,
// and carries what the two say. Model: one poll loop over {supervisor, channel, machine, streams};
// sockets that the supervisor gives a kernel become streams; when the machine or its kernel ends so
// does this process, and the supervisor begins the next life. One thread.
#pragma once

#include <map>
#include <vector>

#include "base/fd.h"
#include "base/memory.h"
#include "base/result.h"
#include "island/channel.h"
#include "island/machine.h"
#include "message/control.h"

namespace cob::island {

class StandIn {
 public:
  // Reads its configuration from `supervisor`, and boots.
  static Result<StandIn> create(Fd supervisor, const MachinePlan& plan);
  StandIn(StandIn&&) noexcept = default;
  ~StandIn();  // the machine ends too

  // Until it is told to end, or the island has ended: the error says how.
  Result<void> run();

 private:
  StandIn(Fd supervisor, Machine machine)
      : supervisor_(std::move(supervisor)),
        process_(machine.process),
        pidfd_(std::move(machine.pidfd)),
        port_(machine.port),
        channel_(std::move(machine.channel)) {}

  Result<void> turn();
  Result<void> on_frame(const FrameHead& head, std::span<const std::byte> body);
  Result<void> on_hello(std::span<const std::byte> body);
  Result<void> on_control(std::span<const std::byte> body);
  Result<void> on_board(std::span<const std::byte> body);
  Result<void> on_supervisor();
  Result<void> begin_stream(StreamKind kind, std::vector<Fd> descriptors);
  void on_stream(u32 number);

  Fd supervisor_;
  pid_t process_ = 0;
  Fd pidfd_;
  u16 port_ = 0;
  Channel channel_;
  message::Config config_{};
  std::vector<std::vector<std::byte>> shares_;
  SharedMemory board_;
  std::map<u32, Fd> streams_;
  u32 next_stream_ = 1;
  bool heard_ = false;  // the agent's hello
  bool stopping_ = false;
};

}  // namespace cob::island
