// Locks on files of other islands. Model: locks.h. What cannot be had at once is asked for again as
// a wait, which the kernel numbers: the thread sleeps on the file's line, and a signal cancels it;
// a wait that was had before it could be cancelled is had.
#include "shim/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "shim/file.h"
#include "shim/leave.h"
#include "shim/passage.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

enum LockKind : u32 { by_flock = 0, posix = 1, ofd = 2 };
enum LockMode : u32 { none = 0, shared = 1, exclusive = 2 };
constexpr u64 last_offset = INT64_MAX;

u32 posix_locks;  // atomic; 1: there may be some

struct Wish {
  u32 kind, mode;
  u64 first = 0, last = last_offset;
};

Reply lock_call(Socket* file, FileLock what, const Wish& wish, u64 number = 0) {
  const Critical critical;
  Call c{.op = Op::file_lock};
  c.a[0] = static_cast<u64>(what) | wish.kind << 8 | wish.mode << 16;
  c.a[1] = wish.first;
  c.a[2] = wish.last;
  c.a[3] = number;
  return file_call(file, c);
}

struct Line {
  Socket* file;
  u32 seen;
};

// 0 or -errno; -ERESTART: the program has gone to another kernel, where the number is another
// description: it is asked for there.
int wait_for_lock(Socket* file, const Wish& wish, u32 seen, u32 breaking) {
  if (!is_live(file)) return -ESTALE;
  Line line{file, acquire(file->kernel->change)};
  Condition condition{};
  condition.context = &line;
  condition.check = [](void* context) {
    const auto* l = static_cast<Line*>(context);
    return acquire(l->file->kernel->change) != l->seen;
  };
  condition.arm = [](void* context, Thread* thread) {
    set_waiter(static_cast<Line*>(context)->file->program->read_waiter, thread);
  };
  condition.disarm = [](void* context, Thread* thread) {
    clear_waiter(static_cast<Line*>(context)->file->program->read_waiter, thread);
  };
  const Reply begun = lock_call(file, FileLock::wait, wish);
  if (begun.result < 0) return begun.result;
  const u64 wait = begun.value[0];
  for (;;) {
    const Woken woken = wait_for(file->arena, condition, {}, seen, breaking);
    if (woken == Woken::dead) return -ESTALE;
    line.seen = acquire(file->kernel->change);
    const int result = lock_call(file, FileLock::look, wish, wait).result;
    if (result != 1) return result;
    if (woken == Woken::signal) return lock_call(file, FileLock::cancel, wish, wait).result;
  }
}

// 0 or -errno; -ERESTART: again.
int lock_once(int number, const Wish& wish, bool waits, u32 seen, u32 breaking) {
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
  if (wish.kind == posix) note_posix_locks();
  if (wish.kind != posix) store(file->locked, true);
  int result = lock_call(file, FileLock::set, wish).result;
  passage.leave();
  critical_leave();
  if (result != -EAGAIN || !waits) return result;
  const u32 before = acquire(leaves);
  result = wait_for_lock(file, wish, seen, breaking);
  return result == -ESTALE && acquire(leaves) != before ? -ERESTART : result;
}

// 0 or -errno.
int lock(int number, const Wish& wish, bool waits) {
  const u32 seen = signals_seen();
  const u32 breaking = signals_breaking();
  int result = 0;
  do {
    result = lock_once(number, wish, waits, seen, breaking);
  } while (result == -ERESTART);
  return result;
}

// The host's own locks are those of what is the host's own beneath.
bool is_twin(int number) {
  const Socket* file = lookup_file(number);
  return file != nullptr && file->twin;
}

// Where it begins, or -errno.
i64 base_of(int number, int whence) {
  if (whence == SEEK_SET) return 0;
  if (whence == SEEK_CUR) {
    const off_t at = file_seek(number, 0, SEEK_CUR);
    return at < 0 ? -errno : at;
  }
  if (whence != SEEK_END) return -EINVAL;
  struct stat status{};
  return file_stat(number, &status) < 0 ? -errno : status.st_size;
}

// 0 or -errno. fcntl_lock(2): a negative length is what lies before.
int read_range(int number, const struct flock& lock, Wish& wish) {
  const i64 base = base_of(number, lock.l_whence);
  if (base < 0) return static_cast<int>(base);
  i64 first = 0;
  i64 last = static_cast<i64>(last_offset);
  if (__builtin_add_overflow(base, lock.l_start, &first)) return -EOVERFLOW;
  if (lock.l_len > 0 && __builtin_add_overflow(first, lock.l_len - 1, &last)) return -EOVERFLOW;
  if (lock.l_len < 0) {
    last = first - 1;
    if (__builtin_add_overflow(first, lock.l_len, &first)) return -EINVAL;
  }
  if (first < 0 || last < first) return -EINVAL;
  wish.first = static_cast<u64>(first);
  wish.last = static_cast<u64>(last);
  return 0;
}

// 0 or -errno.
int test(int number, const Wish& wish, struct flock* found) {
  const HeldFile held(number);
  if (!held.is_file()) return -EBADF;
  const Reply reply = lock_call(held.get(), FileLock::test, wish);
  if (reply.result < 0) return reply.result;
  if (reply.value[0] == none) {
    found->l_type = F_UNLCK;
    return 0;
  }
  const u64 first = reply.value[1];
  const u64 last = reply.value[2];
  found->l_type = reply.value[0] == exclusive ? F_WRLCK : F_RDLCK;
  found->l_whence = SEEK_SET;
  found->l_start = static_cast<off_t>(first);
  found->l_len = last >= last_offset ? 0 : static_cast<off_t>(last - first + 1);
  found->l_pid = static_cast<pid_t>(static_cast<u32>(reply.value[3]));
  return 0;
}

bool may(int number, int access) {
  const Socket* file = lookup_file(number);
  const int mode = file == nullptr ? 0 : file->status_flags & O_ACCMODE;
  return file == nullptr || mode == O_RDWR || mode == access;
}

// 0 or -errno.
int record_lock(int number, int command, struct flock* lock_asked) {
  const bool tests = command == F_GETLK || command == F_OFD_GETLK;
  const bool waits = command == F_SETLKW || command == F_OFD_SETLKW;
  const bool own = command == F_OFD_GETLK || command == F_OFD_SETLK || command == F_OFD_SETLKW;
  if (lock_asked == nullptr) return -EFAULT;
  Wish wish{own ? u32{ofd} : u32{posix}, none};
  switch (lock_asked->l_type) {
    case F_RDLCK:
      wish.mode = shared;
      if (!tests && !may(number, O_RDONLY)) return -EBADF;
      break;
    case F_WRLCK:
      wish.mode = exclusive;
      if (!tests && !may(number, O_WRONLY)) return -EBADF;
      break;
    case F_UNLCK:
      if (tests) return -EINVAL;
      break;
    default:
      return -EINVAL;
  }
  if (own && lock_asked->l_pid != 0) return -EINVAL;
  const int error = read_range(number, *lock_asked, wish);
  if (error < 0) return error;
  return tests ? test(number, wish, lock_asked) : lock(number, wish, waits);
}

}  // namespace

int file_lock(int number, int command, struct flock* lock_asked) {
  if (is_twin(number))
    return static_cast<int>(libc_result(raw::fcntl(number, command, raw::at(lock_asked))));
  const int saved = errno;
  const int result = record_lock(number, command, lock_asked);
  errno = saved;
  return static_cast<int>(libc_result(result));
}

int file_flock(int fd, int operation) {
  if (is_twin(fd)) return static_cast<int>(libc_result(raw::call(SYS_flock, fd, operation)));
  Wish wish{by_flock, none};
  switch (operation & ~LOCK_NB) {
    case LOCK_SH:
      wish.mode = shared;
      break;
    case LOCK_EX:
      wish.mode = exclusive;
      break;
    case LOCK_UN:
      break;
    default:
      return fail(EINVAL);
  }
  return static_cast<int>(libc_result(lock(fd, wish, (operation & LOCK_NB) == 0)));
}

// lockf(3) is fcntl's from the offset on.
int file_lockf(int fd, int command, off_t bytes) {
  struct flock wanted{};
  wanted.l_type = F_WRLCK;
  wanted.l_whence = SEEK_CUR;
  wanted.l_len = bytes;
  switch (command) {
    case F_TEST:
      wanted.l_type = F_RDLCK;
      if (file_lock(fd, F_GETLK, &wanted) < 0) return -1;
      return wanted.l_type == F_UNLCK || wanted.l_pid == getpid() ? 0 : fail(EACCES);
    case F_ULOCK:
      wanted.l_type = F_UNLCK;
      return file_lock(fd, F_SETLK, &wanted);
    case F_LOCK:
      return file_lock(fd, F_SETLKW, &wanted);
    case F_TLOCK:
      return file_lock(fd, F_SETLK, &wanted);
    default:
      return fail(EINVAL);
  }
}

// ---- leaving

void abandon_lock_waits(Socket* file) {
  if (is_live(file)) lock_call(file, FileLock::abandon, {posix, none});
}

void note_posix_locks() { store(posix_locks, 1U); }
bool may_have_posix_locks() { return load(posix_locks) != 0; }
void forget_posix_locks() { store(posix_locks, 0U); }

// With the last reference the slot goes, and the kernel knows; with another the close is one all
// the same (fcntl_lock(2): any descriptor's).
void LockClosing::tell(Socket* file) {
  const bool any = load(posix_locks) != 0;
  if (!any && !load(file->locked)) return;
  unsettled_ = true;
  if (!any || load(file->references) == 1 || !is_live(file)) return;
  lock_call(file, FileLock::close, {posix, none});
}

void LockClosing::wait() {
  Arena* arena = current_arena();
  if (arena == nullptr || arena->is_dead()) return;
  Call c{.op = Op::file_lock};
  c.a[0] = static_cast<u64>(FileLock::settled);
  call_kernel(arena, c);
}

}  // namespace cob::shim
