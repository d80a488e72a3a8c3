// What a new image is given: its sockets published, the liveness socket, COB_SHIM. Model:
// inherit.h, contract.h.

#include <stdio.h>

#include "shim/inherit.h"
#include "shim/paths.h"
#include "shim/socket.h"

namespace cob::shim {

using namespace call;

namespace {

struct Publishing {
  bool close_on_exec_too;
  int error;
};

int publish_socket(Socket* socket, int fd) {
  const int error = share_for_passing(socket, fd);
  return error != 0 ? error : call_publish(socket, 0);
}

}  // namespace

int publish_for_exec(bool close_on_exec_too) {
  if (!attached()) return 0;
  Publishing publishing{close_on_exec_too, 0};
  for_each(
      ~0U,
      [](int fd, Object* object, void* context) {
        auto* p = static_cast<Publishing*>(context);
        if (!is_description(object)) return true;
        if (reinterpret_cast<Socket*>(object)->twin) return true;  // the host's goes on
        if (!p->close_on_exec_too && (raw::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0) return true;
        int error = publish_socket(reinterpret_cast<Socket*>(object), fd);
        if (error != 0) p->error = error;
        return true;
      },
      &publishing);
  return publishing.error;
}

void keep_liveness_across_exec(bool keep) {
  if (g.liveness >= 0) raw::fcntl(g.liveness, F_SETFD, keep ? 0 : FD_CLOEXEC);
}

u32 environment_entry(char* buffer, u32 size, int liveness, bool place) {
  Arena* arena = current_arena();
  bool holds = liveness >= 0 ||
               (liveness == liveness_own && arena != nullptr && !arena->is_dead()) ||
               (liveness == liveness_own && g.inherited) || load(remote_shares) != 0;
  int number = liveness == liveness_own ? g.liveness : liveness;
  char reach[8] = "";
  if (g.reach_bits != no_uplink) snprintf(reach, sizeof reach, "/%u", g.reach_bits & 63);
  if (liveness == liveness_own) place = g.place;
  const char* spread = !g.spread ? "" : place ? "+p" : "+s";
  int n = snprintf(buffer, size, "%s=%d:%d:%u:%u%s%s%s%s%s", environment_name, g.attach_right,
                   number, g.kernel, g.cob_address, reach, g.ipv6 ? "+6" : "", spread,
                   g.spread_threads ? "+t" : "", holds ? ":1" : "");
  return n < 0 ? 0 : static_cast<u32>(n);
}

}  // namespace cob::shim
