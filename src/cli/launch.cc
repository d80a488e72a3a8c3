// See launch.h.
#include "cli/launch.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "call/layout.h"
#include "cli/failure.h"

namespace cob::cli {
namespace {

// A number that programs do not pick themselves: high, but below select's 1024 and the soft limit.
// Stays open across exec.
int settle(Fd fd) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  const auto limit = std::min<rlim_t>(files.rlim_cur, 1'024);
  for (rlim_t from = limit > 64 ? limit - 16 : 3; from >= 3; from = from > 64  ? 64
                                                                    : from > 3 ? 3
                                                                               : 0) {
    const int settled = ::fcntl(fd.get(), F_DUPFD, static_cast<int>(from));
    if (settled >= 0) return settled;
  }
  fail(exit_state, "no free descriptor below the limit of {} (see: ulimit -n)", files.rlim_cur);
}

void set_preload(const std::string& shim) {
  if (shim.find_first_of(" :") != std::string::npos) {
    fail(exit_state,
         "{}: the dynamic linker cannot preload from a path with spaces or colons; move cob or set "
         "COB_SHIM_PATH",
         shim);
  }
  const char* existing = std::getenv("LD_PRELOAD");
  std::string value = shim;
  if (existing != nullptr && *existing != '\0' && std::string_view(existing) != shim) {
    value += std::string_view(existing).starts_with(shim + ":") ? existing + shim.size()
                                                                : fmt::format(":{}", existing);
  }
  ::setenv("LD_PRELOAD", value.c_str(), 1);
}

}  // namespace

void move_to_core(const ControlReply& attached) {
  const int core = attached.body.value("core", -1);
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(core), &set);
  if (::sched_setaffinity(0, sizeof(set), &set) != 0) {
    fail(exit_state, "cannot move to core {}: {}", core, std::strerror(errno));
  }
}

void enter_cob(ControlReply& reply, const std::string& shim, bool adopts, Spreading spread) {
  if (reply.descriptors.size() != 2)
    fail(exit_state, "the supervisor sent {} descriptors, not 2", reply.descriptors.size());
  const int liveness = settle(std::move(reply.descriptors[0]));
  const int right = settle(std::move(reply.descriptors[1]));
  set_preload(shim);
  const std::string reach =
      reply.body.contains("reach") ? fmt::format("/{}", reply.body["reach"].get<u32>()) : "";
  ::setenv(call::environment_name,
           fmt::format("{}:{}:{}:{}{}{}{}{}{}", right, liveness, reply.body.value("kernel", 0),
                       reply.body.value("address", 0u), reach,
                       reply.body.value("ipv6", false) ? "+6" : "", spread.children ? "+s" : "",
                       spread.threads ? "+t" : "",
                       adopts || reply.body.value("islands", 1) > 1 ? ":1" : "")
               .c_str(),
           1);
}

int host_execve(const char* path, char* const* arguments) {
  using Execve = int (*)(const char*, char* const*, char* const*);
  void* libc = ::dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  const auto found = libc != nullptr ? reinterpret_cast<Execve>(::dlsym(libc, "execve")) : nullptr;
  return (found != nullptr ? found : &::execve)(path, arguments, environ);
}

}  // namespace cob::cli
