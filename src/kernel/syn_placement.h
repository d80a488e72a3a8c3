// SynPlacement: which kernel opens a connection, by load. Model: asked for each SYN and each
// connect that would be opened by this kernel's own listener; told what came of those that went
// elsewhere. docs/angel.md, "SYN redirect". Kernel's loop only.
#pragma once

#include <optional>

#include "net/stack/stack.h"

namespace cob::kernel {

class SynPlacement {
 public:
  virtual ~SynPlacement() = default;
  // A kernel that listens there and shall have it; nullopt: this one. `group`: of the flow, if that
  // is this kernel's.
  virtual std::optional<KernelId> place(net::Endpoint local, std::optional<u16> group) = 0;
  // It gets nothing new just now.
  virtual bool shuns(KernelId kernel) const = 0;
  // What came of one that place() sent there: its client has got an answer, or it ended without.
  virtual void settled(KernelId by, bool served) = 0;
};

}  // namespace cob::kernel
