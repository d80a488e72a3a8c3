// Credentials: as whom the host is asked, and how a thread becomes that. credentials(7),
// setresuid(2). Model: only the *effective* ids and groups of *one thread* change (raw system
// calls; glibc's would change all threads'), so no other user may signal the kernel meanwhile.
// Values.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace cob::fs {

struct Credentials {
  u32 uid = 0;
  u32 gid = 0;
  std::vector<u32> groups;  // supplementary; ascending, each once

  // This thread's effective ones.
  static Credentials own();
  void normalize();  // sorts the groups
  bool operator==(const Credentials&) const = default;
};

// On whose behalf; empty: the kernel's own.
using Who = std::shared_ptr<const Credentials>;

// A thread whose effective credentials change. Begins with, and at its end returns to, its own.
class ThreadCredentials {
 public:
  ThreadCredentials() : own_(Credentials::own()) {}
  ThreadCredentials(const ThreadCredentials&) = delete;
  ThreadCredentials& operator=(const ThreadCredentials&) = delete;
  ~ThreadCredentials() { restore(); }

  // EACCES: this process may not take them; the thread then has its own.
  Result<void> take(const Credentials& wanted);
  void restore();

 private:
  Credentials own_;
  Credentials now_ = own_;
};

}  // namespace cob::fs
