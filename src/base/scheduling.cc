// Scheduling wishes; see scheduling.h.
#include "base/scheduling.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/types.h"

namespace cob {

namespace {
// As in sched_setattr(2); glibc 2.36 has no declaration of it.
struct SchedAttributes {
  u32 size;
  u32 policy;
  u64 flags;
  i32 nice;
  u32 priority;
  u64 runtime_ns, deadline_ns, period_ns;
};
}  // namespace

void ask_for_short_slices() {
  SchedAttributes attributes{};
  attributes.size = sizeof attributes;
  attributes.nice = ::getpriority(PRIO_PROCESS, 0);
  attributes.runtime_ns = u64{short_slice_us} * 1'000;
  if (::sched_getscheduler(0) != SCHED_OTHER) return;
  // A host that does not know slices ignores or refuses it: nothing depends on it.
  (void)::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace cob
