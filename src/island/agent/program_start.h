// One program that `cob run` starts on this island (start_protocol.h): from its description to its
// end. Model: the process is made first and waits, so that its number is known when its descriptors
// are passed; then it takes their places, becomes the caller's user, and executes. Owned by the
// agent, its one thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "island/start_protocol.h"

namespace cob::island {

// What programs of this island are given.
struct ProgramSetting {
  u16 kernel = 0;
  u32 address = 0;     // the cob's, host byte order
  u32 reach_bits = 0;  // docs/calls.md: prefix of what is reached by the cob
  bool ipv6 = false;
  FdRef attach_right;
  std::vector<std::string> shares;  // of other islands: directories that programs see by messages
};

class ProgramStart {
 public:
  using Tell = std::function<void(std::span<const std::byte>)>;
  // Gives the kernel its end of the program's liveness socket.
  using Introduce = std::function<Result<void>(pid_t, Fd)>;

  explicit ProgramStart(Tell tell) : tell_(std::move(tell)) {}
  ProgramStart(ProgramStart&&) = default;

  // A datagram of the command's. EPROTO: it breaks the protocol; the program ends.
  Result<void> on_command(std::span<const std::byte> bytes, const ProgramSetting& setting,
                          const Introduce& introduce);
  // The process has ended.
  void on_end(int status);
  // The command has gone.
  void hang_up() const;
  pid_t process() const { return process_; }
  // The process's words while it starts; invalid: there are none.
  FdRef gate() const { return gate_.ref(); }
  void on_gate();

 private:
  void say(RunKind kind, u32 value) const;
  Result<void> start(const RunStart& asked, const ProgramSetting& setting,
                     const Introduce& introduce);

  Tell tell_;
  std::string text_;
  pid_t process_ = 0;
  bool ended_ = false;
  Fd gate_;  // a seqpacket pair with the process, until it executes
};

}  // namespace cob::island
