// The shim's start: the one constructor, COB_SHIM, the global tables. Model: contract.h, "start".
// Runs once, before main, on the only thread.

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim/check.h"
#include "shim/epoll.h"
#include "shim/inherit.h"
#include "shim/process.h"
#include "shim/socket.h"
#include "shim/stdio.h"

namespace cob::shim {

namespace {

const char* command_name = "";

// "<attach right>:<liveness>:<kernel>:<address>[/<reach>][+6][+s|+p][+t][:1]"
struct Entry {
  int attach_right = -1;
  int liveness = -1;
  u32 kernel = 0;
  u32 cob_address = 0;
  u32 reach_bits = no_uplink;
  bool ipv6 = false;
  bool spread = false;
  bool place = false;
  bool spread_threads = false;
  bool attached_before = false;
};

bool parse(const char* text, Entry& entry) {
  char* end = nullptr;
  entry.attach_right = static_cast<int>(strtol(text, &end, 10));
  if (*end != ':') return false;
  entry.liveness = static_cast<int>(strtol(end + 1, &end, 10));
  if (*end != ':') return false;
  entry.kernel = static_cast<u32>(strtoul(end + 1, &end, 10));
  if (*end != ':') return false;
  entry.cob_address = static_cast<u32>(strtoul(end + 1, &end, 10));
  if (*end == '/') entry.reach_bits = static_cast<u32>(strtoul(end + 1, &end, 10));
  entry.ipv6 = strncmp(end, "+6", 2) == 0;
  if (entry.ipv6) end += 2;
  entry.place = strncmp(end, "+p", 2) == 0;
  entry.spread = entry.place || strncmp(end, "+s", 2) == 0;
  if (entry.spread) end += 2;
  entry.spread_threads = strncmp(end, "+t", 2) == 0;
  if (entry.spread_threads) end += 2;
  entry.attached_before = strcmp(end, ":1") == 0;
  return *end == 0 || entry.attached_before;
}

bool is_unix_socket(int fd) {
  int domain = 0;
  socklen_t length = sizeof domain;
  return fd >= 0 &&
         raw::call(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, raw::at(&domain), raw::at(&length)) ==
             0 &&
         domain == AF_UNIX;
}

}  // namespace

void shim_start() {
  const char* text = getenv(call::environment_name);
  Entry entry;
  if (text == nullptr || !parse(text, entry) || !is_unix_socket(entry.attach_right)) return;
  bool room = sockets_start() && epoll_start();
  if (room) threads_start();
  if (!room || !table_start()) {
    constexpr char why[] =
        "cob: too little address space (ulimit -v): this program runs without the cob\n";
    raw::write(STDERR_FILENO, why, sizeof why - 1);
    return;
  }
  g.attach_right = make_hidden(entry.attach_right);
  raw::fcntl(g.attach_right, F_SETFD, 0);
  if (is_unix_socket(entry.liveness)) g.liveness = make_hidden(entry.liveness);
  g.kernel = entry.kernel;
  g.cob_address = entry.cob_address;
  g.reach_bits = entry.reach_bits;
  g.ipv6 = entry.ipv6;
  g.spread = entry.spread;
  g.place = entry.place;
  g.spread_threads = entry.spread_threads;
  strncpy(g.command, command_name, sizeof g.command - 1);
  adopt_at_start(entry.attached_before);
}

}  // namespace cob::shim

namespace {

__attribute__((constructor(101))) void start(int count, char** arguments, char** environment) {
  using namespace cob::shim;
  int saved = errno;
  // This library is initialised before libc itself (-z initfirst): what libc has not set yet it
  // will set to the same.
  if (environ == nullptr) environ = environment;
  if (count > 0 && arguments[0] != nullptr) {
    const char* slash = strrchr(arguments[0], '/');
    command_name = slash != nullptr ? slash + 1 : arguments[0];
  }
  resolve_real_functions();
  check_start(environment);
  shim_start();
  if (attached()) {
    signals_start();
    process_start();
    follow_standard_streams();  // 0 to 2 may be a cob's already
  }
  errno = saved;
}

}  // namespace
