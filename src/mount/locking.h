// The signal by which waits for locks are interrupted; see locking.cc. Values.
#pragma once

#include <csignal>

namespace cob::mount {

inline constexpr int wake_signal = SIGUSR1;

}  // namespace cob::mount
