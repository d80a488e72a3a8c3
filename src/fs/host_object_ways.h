// For host_object.cc and host_control.cc alone: what both do with the host's answers, and the ring.
#pragma once

#include <liburing.h>

#include "fs/host_object.h"

namespace cob::fs {

// Of a call that says -1 and errno.
template <typename T>
Result<u64> moved(T result) {
  if (result < 0) return Error::from_errno("the host");
  return static_cast<u64>(result);
}

template <typename Prepare>
void HostObject::by_ring(Prepare prepare, u64 before, Done done) {
  settle();
  ++under_way_;
  Ring::Done ended = [this, before, then = std::move(done)](i32 r) mutable {
    end(r < 0 ? Result<u64>(Error::of(-r, "the host")) : Result<u64>(static_cast<u64>(r)), before,
        then);
  };
  const auto started = ring_.start(who_, prepare, std::move(ended));
  // NOLINTNEXTLINE(bugprone-use-after-move): left as it was
  if (started.is_error()) ended(-started.error().code);
}

}  // namespace cob::fs
