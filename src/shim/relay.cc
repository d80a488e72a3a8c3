// Host sockets in the place of cob sockets, for an image that cannot be attached. Model: relay.h.
#include "shim/relay.h"

#include "shim/inherit.h"
#include "shim/socket.h"
#include "shim/spawn_actions.h"

namespace cob::shim {

using namespace call;

namespace {

struct Gathering {
  const posix_spawn_file_actions_t* actions;
  u32 count, most;
  RelayedNumber* numbers;  // null: only counted
  bool others;             // epoll sets
};

bool gather(int fd, Object* object, void* context) {
  auto* g = static_cast<Gathering*>(context);
  const bool close_on_exec = (raw::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
  if (close_on_exec && !duplicates(g->actions, fd)) return true;
  if (object->kind != Kind::socket) {  // nor can it be given a file of another island
    g->others |= !close_on_exec;
    return true;
  }
  if (g->numbers != nullptr) {
    Object* held = g->count < g->most ? hold(fd) : nullptr;
    if (held != object) {  // another thread's doing
      if (held != nullptr) drop(held);
      return true;
    }
    g->numbers[g->count] = {fd, reinterpret_cast<Socket*>(object), -1, -1, close_on_exec};
  }
  ++g->count;
  return true;
}

u32 count_numbers(Relay which, const posix_spawn_file_actions_t* actions) {
  if (which == Relay::nothing) return 0;
  Gathering counted{actions, 0, 0, nullptr, false};
  for_each(~0U, gather, &counted);
  return counted.count;
}

// A socket whose peer is gone: reading gives the end, writing EPIPE, accept EINVAL.
int shut_socket() {
  int pair[2] = {-1, -1};
  const RaisedLimit raised;
  if (raw::call(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, raw::at(pair)) < 0)
    return -1;
  drop_stale(pair[0]);
  drop_stale(pair[1]);
  raw::close(pair[1]);
  return make_hidden(pair[0]);
}

bool is_bound(const Socket* socket) {
  if (socket->bound) return true;
  return socket->arena != nullptr && is_live(socket) && begun(socket) &&
         load(socket->arena->kernel->names[socket->slot].local_port) != 0;
}

}  // namespace

RelayedNumbers::RelayedNumbers(Relay which, const posix_spawn_file_actions_t* actions)
    : scratch_(sizeof(RelayedNumber) * (count_numbers(which, actions) + 1)) {
  numbers_ = reinterpret_cast<RelayedNumber*>(scratch_.data());
  if (which == Relay::nothing) return;
  if (numbers_ == nullptr) {
    incomplete_ = true;
    return;
  }
  const u32 most = static_cast<u32>(scratch_.bytes() / sizeof(RelayedNumber));
  Gathering gathered{actions, 0, most, numbers_, false};
  for_each(~0U, gather, &gathered);
  count_ = gathered.count;
  incomplete_ = gathered.others;
  for (u32 i = 0; i < count_; ++i) {
    RelayedNumber& number = numbers_[i];
    number.end = end_for(i, number.socket, number.fd);
  }
}

RelayedNumbers::~RelayedNumbers() {
  const int saved = errno;
  for (u32 i = 0; i < count_; ++i) {
    const RelayedNumber& number = numbers_[i];
    // A number that another thread closed meanwhile may be anything's.
    if (put_ && number.placeholder >= 0 && lookup_socket(number.fd) == number.socket)
      raw::dup3(number.placeholder, number.fd, 0);
  }
  for (u32 i = 0; i < count_; ++i) {
    const RelayedNumber& number = numbers_[i];
    if (number.placeholder >= 0) close_hidden(number.placeholder);
    bool shared = false;
    for (u32 j = 0; j < i && !shared; ++j) shared = numbers_[j].end == number.end;
    if (number.end >= 0 && !shared) close_hidden(number.end);
  }
  for (u32 i = 0; i < count_; ++i) drop(object_of(numbers_[i].socket));
  // Last: when the kernel sees it nobody has the host sockets any more.
  if (liveness_ >= 0) close_hidden(liveness_);
  errno = saved;
}

void RelayedNumbers::put() {
  for (u32 i = 0; i < count_; ++i) {
    RelayedNumber& number = numbers_[i];
    if (number.end < 0) continue;
    number.placeholder = make_hidden_copy(number.fd);
    if (number.placeholder < 0) {
      incomplete_ = true;
      continue;
    }
    raw::dup3(number.end, number.fd, 0);
  }
  if (liveness_ >= 0) raw::fcntl(liveness_, F_SETFD, 0);
  put_ = true;
}

// What stands for the socket; dups of one description share it. -1: the placeholder stays.
int RelayedNumbers::end_for(u32 index, Socket* socket, int fd) {
  for (u32 i = 0; i < index; ++i) {
    if (numbers_[i].socket == socket) return numbers_[i].end;
  }
  settle(socket);
  int end = -1;
  if (socket->stage == Stage::stream && is_live(socket)) {
    end = relayed(socket);
  } else if (socket->stage == Stage::undecided && !is_bound(socket)) {
    if (socket->inherited_flags) recall_for_host(socket);
    end = make_hidden(host_socket(socket));
  }
  if (end < 0) {
    incomplete_ |= socket->stage != Stage::dead && !is_dead(socket);
    end = shut_socket();
  }
  if (end >= 0) raw::fcntl(end, F_SETFL, nonblocking_at(socket, fd) ? O_NONBLOCK : 0);
  return end;
}

// The kernel's relay of a connection: the hidden number of our end, or -1.
int RelayedNumbers::relayed(Socket* socket) {
  const Guard guard(child_lock);
  if (liveness_ < 0) liveness_ = offer_liveness(socket->arena);
  if (liveness_ < 0) return -1;
  Call c{.op = Op::relay};
  c.a[0] = child_;
  const Reply reply = call_on(socket, c);
  if (reply.value[0] != 0) child_ = static_cast<u32>(reply.value[0]);
  if (reply.result < 0) return -1;
  AttachReply hello{};
  int end = -1;
  u32 count = 0;
  const RaisedLimit raised;
  receive_with_fds(liveness_, &hello, sizeof hello, &end, 1, count);
  return count == 1 ? make_hidden(end) : -1;
}

}  // namespace cob::shim
