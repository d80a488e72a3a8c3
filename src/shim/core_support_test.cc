// The shim's core without its glue: the real functions are libc's, signals are played. Model:
// core_test.h.

#include <sys/socket.h>
#include <unistd.h>

#include "shim/core_test.h"

extern "C" {
#define REAL(name) decltype(&::name) real_##name = ::name
namespace cob::shim {
REAL(socket);
REAL(bind);
REAL(listen);
REAL(accept);
REAL(accept4);
REAL(connect);
REAL(send);
REAL(sendto);
REAL(sendmsg);
REAL(recv);
REAL(recvfrom);
REAL(recvmsg);
REAL(read);
REAL(readv);
REAL(write);
REAL(writev);
REAL(close);
REAL(poll);
REAL(ppoll);
REAL(select);
REAL(pselect);
REAL(epoll_wait);
REAL(epoll_pwait);
REAL(epoll_pwait2);
}  // namespace cob::shim
#undef REAL
}

// A send chunk passes from thread to thread through the kernel's mapping of it, which the sanitizer
// takes for other memory.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() { return "race:cob::shim::Pieces"; }

namespace cob::shim {

thread_local ThreadSignals thread_signals;
void critical_deliver() {}

namespace testing {

FakeKernel& kernel() {
  static FakeKernel* one = [] {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) abort();
    if (!sockets_start() || !epoll_start()) abort();
    threads_start();
    if (!table_start()) abort();
    g.liveness = make_hidden(pair[0]);
    return new FakeKernel(pair[1]);
  }();
  return *one;
}

}  // namespace testing
}  // namespace cob::shim
