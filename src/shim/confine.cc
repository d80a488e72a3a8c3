// Programs that put a system call filter before themselves: seccomp(2), prctl(2) PR_SET_SECCOMP.
// Model: what the shim may need is had before the filter is there, and before the program leaves
// itself no descriptors (setrlimit(2)): it attaches, registers the thread and one for all later
// ones, and takes over what was inherited. From then on (`confined()`)
// it makes those system calls alone that usual sandboxes allow: read, write, close, ppoll,
// nanosleep, futex, clock_gettime, getpid, rt_sigprocmask, mmap and munmap of its own memory.
// docs/calls.md, "Behind a filter". The thread that asks for the filter.
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "glue.h"
#include "shim/process.h"
#include "shim/ring.h"
#include "shim/socket.h"

namespace cob::shim {

namespace {

constexpr rlim_t sandbox_numbers = 64;  // a hard limit of open files below it is a sandbox's

// Whatever takes a descriptor or a message to the kernel, if there are sockets that may need it.
Arena* make_ready() {
  if (!g.inherited && current_arena() == nullptr) return nullptr;
  Arena* arena = attach();
  if (arena == nullptr || thread_for(arena) == nullptr || !register_last_thread(arena))
    return nullptr;
  int ends[2] = {-1, -1};
  if (g.broken_pipe < 0 && raw::call(SYS_pipe2, raw::at(ends), O_CLOEXEC | O_NONBLOCK) == 0) {
    drop_stale(ends[0]);
    drop_stale(ends[1]);
    raw::close(ends[0]);
    g.broken_pipe = make_hidden(ends[1]);
  }
  return arena;
}

// What others who share a socket set is known from now on as it was.
void learn_flags() {
  for (u32 fd = 0; fd < table_high(); ++fd) {
    Object* object = lookup(static_cast<int>(fd));
    if (object == nullptr || object->kind != Kind::socket) continue;
    auto* socket = reinterpret_cast<Socket*>(object);
    const int flags = raw::fcntl(static_cast<int>(fd), F_GETFL);
    if (socket->inherited_flags && flags >= 0)
      socket->status_flags = flags & (O_NONBLOCK | O_ASYNC);
  }
}

// The readiness of a process for a filter; undone when the filter was not installed.
class Confinement {
 public:
  explicit Confinement(bool filters) {
    if (!filters || !attached() || confined()) return;
    const Critical critical;
    began_ = true;
    arena_ = make_ready();
    learn_flags();
    if (arena_ != nullptr) {
      note(1);
      // A move that had begun is over with the answer, and the kernel refuses the next.
      call_kernel(arena_, {.op = call::Op::nothing});
      look_for_move(arena_);
    }
    store(g.confined, true);
  }
  // `result` of installing it.
  void settle(long result) {
    if (!began_ || result >= 0) return;
    store(g.confined, false);
    if (arena_ != nullptr) note(0);
  }

 private:
  void note(u32 value) { store(arena_->program->armed[0].confined, value); }

  bool began_ = false;
  Arena* arena_ = nullptr;
};

}  // namespace

long own_prctl(long option, long a, long b, long c, long d) {
  Confinement confinement(option == PR_SET_SECCOMP && a == SECCOMP_MODE_FILTER);
  const long result = raw::call(SYS_prctl, option, a, b, c, d);
  confinement.settle(result);
  return libc_result(result);
}

long own_seccomp(long operation, long flags, long argument) {
  Confinement confinement(operation == SECCOMP_SET_MODE_FILTER);
  const long result = raw::call(SYS_seccomp, operation, flags, argument);
  confinement.settle(result);
  return libc_result(result);
}

// Sandboxes leave themselves no descriptor first: then is the last time to be ready.
int own_setrlimit(int resource, const rlimit* limit) {
  if (attached() && resource == RLIMIT_NOFILE && limit != nullptr &&
      limit->rlim_max < sandbox_numbers) {
    const Critical critical;
    make_ready();
  }
  return real_setrlimit(resource, limit);
}

}  // namespace cob::shim
