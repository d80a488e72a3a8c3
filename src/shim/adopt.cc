// Adopting: descriptions that the kernel has under a token become this program's. Model: inherit.h.
#include "shim/file.h"
#include "shim/inherit.h"
#include "shim/locks.h"
#include "shim/revive.h"
#include "shim/socket.h"

namespace cob::shim {

using namespace call;

namespace {

Stage stage_of(const KernelSocket& kernel) {
  switch (acquire(kernel.state)) {
    case SocketState::undecided:
      return Stage::undecided;
    case SocketState::listening:
      return Stage::listener;
    case SocketState::datagram:
      return Stage::datagram;
    case SocketState::file:
      return Stage::file;
    default:
      return Stage::stream;
  }
}

Socket* with_token(u64 token) {
  struct Search {
    u64 token;
    Socket* found;
  } search{token, nullptr};
  for_each_socket(
      [](Socket* socket, void* context) {
        auto* s = static_cast<Search*>(context);
        if (socket->placeholder.token == s->token) s->found = socket;
      },
      &search);
  return search.found;
}

}  // namespace

void take_place(Socket* socket, Arena* arena, u64 slot) {
  if (slot < first_kernel_socket || slot >= max_sockets) {
    publish_word(socket->stage, Stage::dead);
    return;
  }
  const KernelSocket& kernel = arena->kernel->socket[slot];
  occupy_slot(socket, arena, static_cast<u32>(slot));
  socket->handle = load(kernel.handle);
  socket->connect_reported = true;
  socket->was_connected = load(kernel.state) != SocketState::connecting;
  publish_word(socket->stage, stage_of(kernel));
  if (socket->stage == Stage::file) socket->kind = Kind::file;
  socket->watched = false;  // by the line of another slot
  if (socket->stage == Stage::datagram) socket->datagram = true;
  if (socket->stage == Stage::listener || socket->stage == Stage::datagram) note_listener(socket);
}

// 0 or an errno.
int adopt_token(Arena* arena, int fd, u64 token) {
  if (Socket* known = with_token(token)) {
    __atomic_add_fetch(&known->references, 1, __ATOMIC_RELAXED);
    install(fd, object_of(known));
    return 0;
  }
  Call c{.op = Op::adopt};
  c.flags = adopt_from_others;
  c.a[0] = token;
  c.a[1] = g.placed_from;
  Reply reply = call_kernel(arena, c);
  if (reply.result < 0) return -reply.result;
  Socket* socket = new_socket();
  if (socket == nullptr) return ENFILE;
  socket->placeholder = {token, no_pool_entry};
  socket->inherited_flags = true;
  int flags = raw::fcntl(fd, F_GETFL);
  socket->status_flags = flags > 0 ? flags & O_NONBLOCK : 0;
  take_place(socket, arena, reply.value[0]);
  if (socket->kind == Kind::file) {
    recall_file(socket);
    socket->locked = true;  // by whoever had it before, perhaps this program's last image
    note_posix_locks();
  } else {
    recall_for_host(socket);
  }
  install(fd, object_of(socket));
  return 0;
}

int adopt_elsewhere(Arena* arena, u64 token, Socket*& made) {
  Call c{.op = Op::adopt};
  c.a[0] = token;
  const Reply reply = call_kernel(arena, c);
  if (reply.result < 0) return -reply.result;
  Socket* socket = new_socket();
  if (socket == nullptr) return ENFILE;
  socket->placeholder = {token, no_pool_entry};
  take_place(socket, arena, reply.value[0]);
  made = socket;
  if (socket->kind != Kind::file) return EPROTO;
  socket->home_is_near = reply.value[1] != 0;
  return 0;
}

}  // namespace cob::shim
