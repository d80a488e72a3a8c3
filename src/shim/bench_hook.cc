// cob_nothing: a call that does nothing, exported for `cob bench calls` (bench/program/call.cc).
// Model: one synchronous call, as any other. Attaches the program if it has not been.
// Any thread.

#include "shim/ring.h"

extern "C" __attribute__((visibility("default"))) int cob_nothing();

// 0 or -errno; does not touch errno.
int cob_nothing() {
  using namespace cob::shim;
  Critical critical;
  Arena* arena = attach();
  if (arena == nullptr) return -ENETDOWN;
  return call_kernel(arena, Call{.op = cob::call::Op::nothing}).result;
}
