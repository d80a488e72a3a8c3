// close, close_range, closefrom, dup, dup2, dup3: what happens to numbers. close(2), dup(2),
// close_range(2). Model: an entry is cleared before the host closes the number and set after the
// host gave it; the shim's own descriptors look closed. Any thread.

#include <linux/close_range.h>

#include "shim/leave.h"
#include "shim/locks.h"
#include "shim/passage.h"
#include "shim/socket.h"

namespace cob::shim {

namespace {

// The number may wait for the next description instead of being closed: this was the description's
// only one, and as the shim made it.
bool park(int fd, Object* object) {
  if (object == nullptr || (object->kind != Kind::socket && object->kind != Kind::file))
    return false;
  auto* socket = reinterpret_cast<Socket*>(object);
  if (socket->first_number != fd) return false;
  if (load(object->references) == 1)
    return park_number(fd, socket->placeholder, socket->close_on_exec);
  socket->first_number = -1;  // what gets it next is no longer the shim's doing
  return false;
}

}  // namespace

// Where there are several islands nobody takes the number over meanwhile.
static int close_of_host(int fd) {
  if (!may_leave()) {
    const int result = real_close(fd);
    number_freed(fd);
    return result;
  }
  const Critical critical;
  const Passage passage(may_leave());
  const int result = raw::close(fd);
  number_freed(fd);
  return static_cast<int>(libc_result(result));
}

int cob_close(int fd) {
  if (!is_cob(fd)) {
    if (is_hidden(fd)) return fail(EBADF);
    return close_of_host(fd);
  }
  const Critical critical;
  const Passage passage(may_leave());
  drop_left_pins(__builtin_frame_address(0));
  Object* object = take_out(fd);
  LockClosing closing(object);
  int result = 0;
  if (!park(fd, object)) {
    result = raw::close(fd);
    number_freed(fd);
  }
  if (object != nullptr) drop(object);
  closing.settle();
  return result < 0 ? fail(-result) : 0;
}

int cob_close_range(unsigned first, unsigned last, int flags) {
  if (first > last) return fail(EINVAL);
  constexpr int known = static_cast<int>(CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE);
  if ((flags & ~known) != 0) return fail(EINVAL);
  const Critical critical;
  const Passage passage(may_leave());
  drop_left_pins(__builtin_frame_address(0));
  LockClosing closing(nullptr);
  if ((flags & static_cast<int>(CLOSE_RANGE_CLOEXEC)) == 0) {
    u32 high = table_high();
    for (u32 fd = first; fd < high && fd <= last; ++fd) {
      int number = static_cast<int>(fd);
      Object* object = take_out(number);
      if (object == nullptr) continue;
      closing.add(object);
      raw::close(number);
      drop(object);
    }
  }
  closing.settle();
  int result = close_range_around_hidden(first, last, static_cast<u32>(flags));
  if ((flags & static_cast<int>(CLOSE_RANGE_CLOEXEC)) == 0 && first < table_entries)
    number_freed(static_cast<int>(first));
  return result < 0 ? fail(-result) : 0;
}

void cob_closefrom(int low) {
  int saved = errno;
  cob_close_range(low < 0 ? 0 : static_cast<unsigned>(low), ~0U, 0);
  errno = saved;
}

int cob_dup(int fd) {
  if (is_hidden(fd)) return fail(EBADF);
  host_gives_number();
  const Critical critical;
  const Passage passage(may_leave());
  Object* object = hold(fd);
  int copy = raw::dup(fd);
  if (object == nullptr) return fresh(static_cast<int>(libc_result(copy)));
  if (copy < 0) {
    drop(object);
    return fail(-copy);
  }
  if (!install(copy, object)) {
    raw::close(copy);
    return fail(EMFILE);
  }
  return copy;
}

namespace {

int duplicate_onto(int from, int to, int flags) {
  if (is_hidden(from)) return fail(EBADF);
  if (is_hidden(to)) give_up_number(to);
  const Critical critical;
  const Passage passage(may_leave());
  if (!is_cob(from) && !is_cob(to)) {
    return static_cast<int>(libc_result(raw::dup3(from, to, flags)));
  }
  drop_left_pins(__builtin_frame_address(0));
  Object* object = hold(from);
  Object* replaced = take_out(to);
  int result = 0;
  do {
    result = raw::dup3(from, to, flags);
  } while (result == -EBUSY);
  if (result < 0) {
    if (replaced != nullptr) install(to, replaced);
    if (object != nullptr) drop(object);
    return fail(-result);
  }
  if (object != nullptr && !install(to, object)) {
    raw::close(to);
    return fail(EBADF);
  }
  LockClosing closing(replaced);
  if (replaced != nullptr) drop(replaced);
  closing.settle();
  return result;
}

}  // namespace

int cob_dup2(int from, int to) {
  if (from != to) return duplicate_onto(from, to, 0);
  if (is_hidden(from)) return fail(EBADF);
  return raw::fcntl(from, F_GETFD) < 0 ? fail(EBADF) : to;
}

int cob_dup3(int from, int to, int flags) {
  if (from == to || (flags & ~O_CLOEXEC) != 0) return fail(EINVAL);
  return duplicate_onto(from, to, flags);
}

}  // namespace cob::shim
