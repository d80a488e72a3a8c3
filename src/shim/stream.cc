// Readiness of files that may have to be waited for. Model: stream.h. poll(2).
#include "shim/stream.h"

#include <errno.h>
#include <poll.h>

#include "shim/file.h"
#include "shim/leave.h"
#include "shim/passage.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u32 lost_bits =
    POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLERR | POLLHUP | ready_read_hangup;

// What the home knows of them.
u32 narrow(u32 interest) {
  u32 events = interest & (ready_in | ready_urgent | ready_out | ready_read_hangup);
  if ((interest & POLLRDNORM) != 0) events |= ready_in;
  if ((interest & POLLWRNORM) != 0) events |= ready_out;
  return events;
}

u32 widen(u32 events) {
  return events | ((events & POLLIN) != 0 ? POLLRDNORM : 0) |
         ((events & POLLOUT) != 0 ? POLLWRNORM : 0);
}

struct Wait {
  Socket* file;
  u32 events;
};

}  // namespace

bool stream_may_be_ready(const Socket* file, u32 interest) {
  if (!is_live(file) || !file->watched) return true;
  return (narrow(interest) & ~file->watched_events) != 0 ||
         acquire(file->kernel->change) != file->watched_change;
}

u32 stream_readiness(Socket* file, u32 interest) {
  if (!is_live(file)) return lost_bits;
  if (!stream_may_be_ready(file, interest)) return 0;
  const u32 change = acquire(file->kernel->change);
  Call c{.op = Op::file_control};
  c.a[0] = static_cast<u64>(FileControl::watch);
  c.a[1] = narrow(interest);
  const Reply reply = file_call(file, c);
  file->watched = false;
  if (reply.result == -EAGAIN || reply.result == -ENOBUFS) return widen(narrow(interest));
  if (reply.result < 0) return lost_bits;
  if (reply.result > 0) return widen(static_cast<u32>(reply.result));
  file->watched_events = narrow(interest);
  file->watched_change = change;
  file->watched = true;
  return 0;
}

int wait_for_stream(int number, u32 events, u32 seen, u32 breaking) {
  critical_enter();
  Passage passage;
  Object* object = hold(number);
  if (object == nullptr || object->kind != Kind::file) {
    if (object != nullptr) drop(object);
    critical_leave();
    return -EBADF;
  }
  auto* file = reinterpret_cast<Socket*>(object);
  settle(file);
  const Pin pin(object);
  drop(object);
  const u32 ready = stream_readiness(file, events);
  const u32 before = acquire(leaves);
  passage.leave();
  critical_leave();
  if (ready != 0) return 0;
  Wait wait{file, events};
  Condition condition{};
  condition.context = &wait;
  condition.check = [](void* context) {
    const auto* w = static_cast<Wait*>(context);
    return stream_may_be_ready(w->file, w->events);
  };
  condition.arm = [](void* context, Thread* thread) {
    set_waiter(static_cast<Wait*>(context)->file->program->read_waiter, thread);
  };
  condition.disarm = [](void* context, Thread* thread) {
    clear_waiter(static_cast<Wait*>(context)->file->program->read_waiter, thread);
  };
  const Woken woken = wait_for(file->arena, condition, {}, seen, breaking);
  if (woken == Woken::dead) return acquire(leaves) != before ? 0 : -ESTALE;
  return woken == Woken::signal ? -EINTR : 0;
}

}  // namespace cob::shim
