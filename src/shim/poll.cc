// poll, ppoll, select, pselect over cob and host descriptors. poll(2), select(2).
// Model: without a cob descriptor the host's own call; else cob readiness comes from the lines, the
// host's from a ppoll that does not wait, and the sleep is one ppoll on the host descriptors and
// the bell. select is poll. Any thread.

#include <sys/mman.h>
#include <sys/select.h>

#include "shim/epoll.h"
#include "shim/leave.h"
#include "shim/passage.h"
#include "shim/places.h"
#include "shim/revive.h"
#include "shim/stream.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u32 small_count = 64;

struct PollWait {
  pollfd* fds;
  nfds_t count;
  Object** object;  // beside fds; null: host
  pollfd* host;     // the host's, two spare entries at the end
  u32 hosts;
  i64 next_host_check_ns;
  u32 leaves;  // as the objects were held (leave.h)
};

u32 ready_of(Object* object, u32 interest) {
  if (is_description(object)) {
    const bool place = object->kind == Kind::file &&
                       (reinterpret_cast<Socket*>(object)->status_flags & O_PATH) != 0;
    if (place) return u32{POLLNVAL};
    return readiness(reinterpret_cast<Socket*>(object), interest);
  }
  MembersGuard guard;
  return set_ready(reinterpret_cast<EpollSet*>(object)) ? u32{POLLIN | POLLRDNORM} : 0;
}

// Fills revents of the cob descriptors; how many are not 0.
// `asks`: also homes on other islands; else those that may have something are ready.
int look_at_cob(PollWait* w, bool asks) {
  int ready = 0;
  for (nfds_t i = 0; i < w->count; ++i) {
    if (w->object[i] == nullptr) continue;
    pollfd& p = w->fds[i];
    u32 wanted = static_cast<u16>(p.events) | u32{POLLERR} | u32{POLLHUP} | u32{POLLNVAL};
    const auto* file = reinterpret_cast<const Socket*>(w->object[i]);
    if (!asks && w->object[i]->kind == Kind::file && file->stream) {
      if (stream_may_be_ready(file, wanted)) ++ready;
      continue;
    }
    u32 events = ready_of(w->object[i], wanted) & wanted;
    p.revents = static_cast<short>(events);
    if (events != 0) ++ready;
  }
  return ready;
}

int look_at_host(PollWait* w) {
  if (w->hosts == 0) return 0;
  timespec none{0, 0};
  int n = raw::ppoll(w->host, w->hosts, &none);
  return n < 0 ? 0 : n;
}

bool check(void* context) {
  auto* w = static_cast<PollWait*>(context);
  if (look_at_cob(w, false) > 0) return true;
  if (w->hosts == 0) return false;
  i64 now = now_ns();
  if (now < w->next_host_check_ns) return false;
  w->next_host_check_ns = now + 20'000;
  return look_at_host(w) > 0;
}

void arm(void* context, Thread* thread) {
  auto* w = static_cast<PollWait*>(context);
  for (nfds_t i = 0; i < w->count; ++i) {
    if (w->object[i] == nullptr) continue;
    if (w->object[i]->kind == Kind::epoll) {
      arm_set(reinterpret_cast<EpollSet*>(w->object[i]), thread);
      continue;
    }
    auto* socket = reinterpret_cast<Socket*>(w->object[i]);
    if (is_live(socket)) set_waiter(socket->program->write_waiter, thread);
    for (Socket* part = acquire(socket->parts); part != nullptr; part = part->next_part)
      if (is_live(part)) set_waiter(part->program->write_waiter, thread);
  }
}

void disarm(void* context, Thread* thread) {
  auto* w = static_cast<PollWait*>(context);
  for (nfds_t i = 0; i < w->count; ++i) {
    if (w->object[i] == nullptr) continue;
    if (w->object[i]->kind == Kind::epoll) {
      disarm_set(reinterpret_cast<EpollSet*>(w->object[i]), thread);
      continue;
    }
    auto* socket = reinterpret_cast<Socket*>(w->object[i]);
    if (is_live(socket)) clear_waiter(socket->program->write_waiter, thread);
    for (Socket* part = acquire(socket->parts); part != nullptr; part = part->next_part)
      if (is_live(part)) clear_waiter(part->program->write_waiter, thread);
  }
}

// Puts the host's answers beside the cob's; how many numbers have events.
int gather(PollWait* w) {
  int total = look_at_cob(w, true);
  look_at_host(w);
  u32 at = 0;
  for (nfds_t i = 0; i < w->count; ++i) {
    if (w->object[i] == nullptr) {
      w->fds[i].revents = w->host[at++].revents;
      if (w->fds[i].revents != 0) ++total;
    } else if (w->object[i]->kind == Kind::epoll) {  // has members on both sides
      short host = w->host[at++].revents;
      if (host != 0 && w->fds[i].revents == 0) ++total;
      w->fds[i].revents = static_cast<short>(w->fds[i].revents | host);
    }
  }
  return total;
}

void hold_all(PollWait& w) {
  w.hosts = 0;
  w.leaves = acquire(leaves);
  for (nfds_t i = 0; i < w.count; ++i) {
    pollfd& p = w.fds[i];
    p.revents = 0;
    w.object[i] = p.fd >= 0 ? hold(p.fd) : nullptr;
    if (w.object[i] == nullptr || w.object[i]->kind == Kind::epoll) {
      w.host[w.hosts] = p;
      if (is_hidden(p.fd)) w.host[w.hosts].fd = 1 << 30;  // POLLNVAL
      ++w.hosts;
    }
  }
}

void drop_all(PollWait& w) {
  for (nfds_t i = 0; i < w.count; ++i)
    if (w.object[i] != nullptr) drop(w.object[i]);
}

// The program may have gone to another kernel, where the numbers are other descriptions.
int gather_anew(PollWait& w) {
  const Passage passage(may_leave());
  if (acquire(leaves) != w.leaves) {
    const Critical critical;
    drop_all(w);
    hold_all(w);
  }
  return gather(&w);
}

// What is held over the sleep is the thread's for that time: a handler may leave it by longjmp.
class PinAll {
 public:
  explicit PinAll(const PollWait& w) : thread_(own_thread()) {
    drop_left_pins(this);
    for (nfds_t i = 0; i < w.count; ++i)
      if (w.object[i] != nullptr && pin(thread_, w.object[i], this)) ++pins_;
  }
  ~PinAll() { unpin(thread_, this, pins_); }
  PinAll(const PinAll&) = delete;
  PinAll& operator=(const PinAll&) = delete;

 private:
  Thread* thread_;
  u32 pins_ = 0;
};

int mixed_poll(PollWait& w, i64 deadline_ns, const sigset_t* mask) {
  u32 seen = signals_seen();
  u32 breaking = signals_breaking();
  for (;;) {
    const i64 retry_ns = revive_listeners();
    settle_here();
    int n = gather_anew(w);
    if (n > 0) {
      found_something();
      return n;
    }
    if (deadline_ns == 0) {
      timed_yield();
      return gather(&w);
    }
    Condition condition{check, arm, disarm, &w, w.host, w.hosts, mask};
    if (w.hosts == 0) condition.host = nullptr;
    Arena* arena = current_arena();
    if (arena != nullptr && arena->is_dead()) arena = g.spread_threads ? live_home() : nullptr;
    if (arena == nullptr) condition.host = w.host;
    const PinAll pinned(w);
    const bool tries_again = retry_ns < deadline_ns;
    const i64 until_ns = tries_again ? retry_ns : deadline_ns;
    switch (wait_for(arena_to_sleep_in(arena), condition, {until_ns, true}, seen, breaking)) {
      case Woken::timeout:
        if (tries_again) break;
        return gather(&w);
      case Woken::signal:
        return fail(EINTR);
      default:
        break;
    }
  }
}

// Memory for a long list; 0 bytes: none.
struct Space {
  explicit Space(size_t bytes) : bytes_(bytes), at(bytes == 0 ? nullptr : reserve(bytes)) {}
  ~Space() {
    if (at != nullptr) raw::call(SYS_munmap, raw::at(at), static_cast<long>(bytes_));
  }
  Space(const Space&) = delete;
  Space& operator=(const Space&) = delete;
  size_t bytes_;
  void* at;
};

int poll_list(pollfd* fds, nfds_t count, i64 deadline_ns, const sigset_t* mask) {
  pollfd small_host[small_count + 2];
  Object* small_object[small_count];
  PollWait w{fds, count, small_object, small_host, 0, 0, 0};
  size_t bytes = count * (sizeof(pollfd) + sizeof(Object*)) + 2 * sizeof(pollfd);
  Space space(count > small_count ? bytes : 0);
  if (count > small_count) {
    if (space.at == nullptr) return fail(ENOMEM);
    w.object = static_cast<Object**>(space.at);
    w.host = reinterpret_cast<pollfd*>(w.object + count);
  }
  if (g.inherited) attach();
  {
    Critical critical;
    hold_all(w);
  }
  int result = mixed_poll(w, deadline_ns, mask);
  int saved = errno;
  {
    Critical critical;
    drop_all(w);
  }
  errno = saved;
  return result;
}

bool any_cob(const pollfd* fds, nfds_t count) {
  for (nfds_t i = 0; i < count; ++i) {
    if (is_hidden(fds[i].fd)) return true;  // it must look closed
    if (is_cob(fds[i].fd)) {
      Object* object = lookup(fds[i].fd);
      if (object != nullptr && (is_description(object) ||
                                load(reinterpret_cast<EpollSet*>(object)->members) != nullptr)) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace

int cob_poll(pollfd* fds, nfds_t count, int timeout_ms) {
  if (!any_cob(fds, count)) return real_poll(fds, count, timeout_ms);
  return poll_list(fds, count, timeout_ms == 0 ? 0 : deadline_after_ms(timeout_ms), nullptr);
}

int cob_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  if (!any_cob(fds, count)) return real_ppoll(fds, count, timeout, mask);
  bool none = timeout != nullptr && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
  return poll_list(fds, count, none ? 0 : deadline_after(timeout), mask);
}

namespace {

using Word = unsigned long;
constexpr int word_bits = 8 * sizeof(Word);

bool has(const fd_set* set, int fd) {
  if (set == nullptr) return false;
  return (reinterpret_cast<const Word*>(set)[fd / word_bits] >> (fd % word_bits) & 1) != 0;
}

void clear_all(fd_set* set, int count) {
  if (set == nullptr) return;
  for (int i = 0; i < (count + word_bits - 1) / word_bits; ++i) reinterpret_cast<Word*>(set)[i] = 0;
}

int put(fd_set* set, int fd, bool on) {
  if (set == nullptr || !on) return 0;
  reinterpret_cast<Word*>(set)[fd / word_bits] |= Word{1} << (fd % word_bits);
  return 1;
}

bool any_cob_in(int count, const fd_set* in, const fd_set* out, const fd_set* except) {
  u32 end = table_high() < static_cast<u32>(count) ? table_high() : static_cast<u32>(count);
  for (int fd = 0; fd < static_cast<int>(end); ++fd) {
    if (!is_cob(fd) && !is_hidden(fd)) continue;
    if (has(in, fd) || has(out, fd) || has(except, fd)) return true;
  }
  return false;
}

struct DirectoryEntry {  // linux_dirent64
  u64 inode;
  i64 offset;
  u16 bytes;
  u8 type;
  char name[1];
};

// The highest number that the program has open.
int highest_number() {
  int highest = static_cast<int>(table_high()) - 1;
  const int directory = static_cast<int>(raw::call(SYS_openat, AT_FDCWD, raw::at("/proc/self/fd"),
                                                   O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory < 0) return highest;
  alignas(8) char buffer[4'096];
  for (;;) {
    const long n = raw::call(SYS_getdents64, directory, raw::at(buffer), sizeof buffer);
    if (n <= 0) break;
    for (long at = 0; at < n;) {
      const auto* entry = reinterpret_cast<const DirectoryEntry*>(buffer + at);
      at += entry->bytes;
      int fd = 0;
      for (const char* digit = entry->name; *digit >= '0' && *digit <= '9'; ++digit)
        fd = fd * 10 + (*digit - '0');
      if (fd > highest && fd != directory && !is_hidden(fd)) highest = fd;
    }
  }
  raw::close(directory);
  return highest;
}

// select(getdtablesize(), ...) is usual, and sets are often smaller: Linux cuts the count to what
// the table of descriptors has room for. The hidden numbers make the host's table large, so the
// room is that which the program's own numbers need.
int cut_to_table(int count) {
  if (count <= FD_SETSIZE) return count;
  const int highest = highest_number();
  int room = FD_SETSIZE;
  while (room <= highest && room < count) room *= 2;
  return room < count ? room : count;
}

int select_list(int count, fd_set* in, fd_set* out, fd_set* except, i64 deadline_ns,
                const sigset_t* mask) {
  Space space(static_cast<size_t>(count) * sizeof(pollfd) + 1);
  if (space.at == nullptr) return fail(ENOMEM);
  auto* fds = static_cast<pollfd*>(space.at);
  nfds_t n = 0;
  for (int fd = 0; fd < count; ++fd) {
    bool r = has(in, fd);
    bool w = has(out, fd);
    bool x = has(except, fd);
    if (!r && !w && !x) continue;
    fds[n++] = {fd, static_cast<short>((r ? POLLIN : 0) | (w ? POLLOUT : 0) | (x ? POLLPRI : 0)),
                0};
  }
  int result = poll_list(fds, n, deadline_ns, mask);
  if (result < 0) return -1;
  for (nfds_t i = 0; i < n; ++i) {
    if ((fds[i].revents & POLLNVAL) != 0) return fail(EBADF);
  }
  int bits = 0;
  clear_all(in, count);
  clear_all(out, count);
  clear_all(except, count);
  for (nfds_t i = 0; i < n; ++i) {
    int events = fds[i].revents;
    int asked = fds[i].events;
    bool failed = (events & POLLERR) != 0;
    bool hung_up = (events & POLLHUP) != 0;
    bits +=
        put(in, fds[i].fd, (asked & POLLIN) != 0 && ((events & POLLIN) != 0 || hung_up || failed));
    bits += put(out, fds[i].fd, (asked & POLLOUT) != 0 && ((events & POLLOUT) != 0 || failed));
    bits += put(except, fds[i].fd, (asked & POLLPRI) != 0 && (events & POLLPRI) != 0);
  }
  return bits;
}

}  // namespace

int cob_select(int count, fd_set* in, fd_set* out, fd_set* except, timeval* timeout) {
  if (count < 0) return fail(EINVAL);
  count = cut_to_table(count);
  if (!any_cob_in(count, in, out, except)) return real_select(count, in, out, except, timeout);
  i64 deadline = forever;
  if (timeout != nullptr) {
    if (timeout->tv_sec < 0 || timeout->tv_usec < 0) return fail(EINVAL);
    timespec t{timeout->tv_sec + timeout->tv_usec / 1'000'000,
               timeout->tv_usec % 1'000'000 * 1'000};
    deadline = t.tv_sec == 0 && t.tv_nsec == 0 ? 0 : deadline_after(&t);
  }
  int result = select_list(count, in, out, except, deadline, nullptr);
  if (timeout != nullptr && deadline != 0 && deadline != forever) {  // Linux tells the time left
    i64 left = deadline - now_ns();
    if (left < 0) left = 0;
    *timeout = {left / 1'000'000'000, left % 1'000'000'000 / 1'000};
  }
  return result;
}

int cob_pselect(int count, fd_set* in, fd_set* out, fd_set* except, const timespec* timeout,
                const sigset_t* mask) {
  if (count < 0) return fail(EINVAL);
  count = cut_to_table(count);
  if (!any_cob_in(count, in, out, except)) {
    return real_pselect(count, in, out, except, timeout, mask);
  }
  bool none = timeout != nullptr && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
  return select_list(count, in, out, except, none ? 0 : deadline_after(timeout), mask);
}

}  // namespace cob::shim
