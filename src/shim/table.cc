// The descriptor table and the shim's hidden numbers. Model and rules: table.h.

#include "shim/table.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "shim/arena.h"
#include "shim/epoll.h"
#include "shim/paths.h"
#include "shim/placeholder.h"
#include "shim/socket.h"
#include "shim/thread.h"

namespace cob::shim {

TableView table_view{nullptr, 0, ~0U, 0};

namespace {

u32 high;          // one past the highest number installed
u64* hidden_bits;  // one a number
u32 hidden_base;   // where hidden numbers begin
u32 hidden_high;   // one past the highest hidden

struct Limit {
  u64 now, most;
};

Limit read_limit() {
  Limit limit{1024, 1024};
  raw::call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, raw::at(&limit));
  return limit;
}

void choose_hidden_base() {
  const Limit limit = read_limit();
  if (limit.now >= 4096) {
    hidden_base = 3584;
  } else if (limit.most >= limit.now + 512) {
    hidden_base = static_cast<u32>(limit.now);
  } else {
    hidden_base = static_cast<u32>(limit.now > 512 ? limit.now - 320 : limit.now / 2);
  }
}

}  // namespace

void* reserve(size_t bytes) {
  long at = raw::call(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at < 0 && at >= -4095 ? nullptr : reinterpret_cast<void*>(at);
}

bool names_file(int fd, const char* name) {
  char path[32];
  char target[40];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const long n = raw::call(SYS_readlinkat, AT_FDCWD, raw::at(path), raw::at(target), sizeof target);
  return n == static_cast<long>(strlen(name)) && memcmp(target, name, strlen(name)) == 0;
}

u32 limit_of_numbers() {
  const u64 limit = read_limit().now;
  return limit < table_entries ? static_cast<u32>(limit) : table_entries;
}

bool table_start() {
  auto** entry = static_cast<Object**>(reserve(table_entries * sizeof(Object*)));
  hidden_bits = static_cast<u64*>(reserve(table_entries / 8));
  if (entry == nullptr || hidden_bits == nullptr) return false;
  choose_hidden_base();
  table_view.entry = entry;
  table_view.size = table_entries;
  return true;
}

u32 table_high() { return load(high); }

bool install(int fd, Object* object) {
  if (static_cast<u32>(fd) >= table_view.size) {
    drop(object);
    return false;
  }
  u32 seen = load(high);
  while (seen <= static_cast<u32>(fd) && !change_if(high, seen, static_cast<u32>(fd) + 1)) {
    seen = load(high);
  }
  Object* stale = __atomic_exchange_n(&table_view.entry[fd], object, __ATOMIC_ACQ_REL);
  if (stale != nullptr) drop(stale);
  return true;
}

void install_in_all(Object* before, Object* after) {
  const u32 end = table_high();
  for (u32 fd = 0; fd < end; ++fd) {
    if (lookup(static_cast<int>(fd)) != before) continue;
    if (after != nullptr) __atomic_add_fetch(&after->references, 1, __ATOMIC_RELAXED);
    Object* expected = before;
    if (__atomic_compare_exchange_n(&table_view.entry[fd], &expected, after, false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
      drop(before);
    } else if (after != nullptr) {
      drop(after);
    }
  }
}

Object* take_out(int fd) {
  if (!is_cob(fd)) return nullptr;
  return __atomic_exchange_n(&table_view.entry[fd], static_cast<Object*>(nullptr),
                             __ATOMIC_ACQ_REL);
}

Object* hold(int fd) {
  for (;;) {
    Object* object = lookup(fd);
    if (object == nullptr) return nullptr;
    u32 references = load(object->references);
    if (references == 0) continue;  // being closed: the entry is about to go
    if (!change_if(object->references, references, references + 1)) continue;
    if (lookup(fd) == object) return object;
    drop(object);
  }
}

void drop(Object* object) {
  if (__atomic_sub_fetch(&object->references, 1, __ATOMIC_ACQ_REL) != 0) return;
  if (is_description(object)) {
    end_socket(reinterpret_cast<Socket*>(object));
  } else {
    end_epoll_set(reinterpret_cast<EpollSet*>(object));
  }
}

void drop_stale(int fd) {
  int saved = errno;
  if (Object* object = take_out(fd)) drop(object);
  errno = saved;
}

void forget(int fd) {
  drop_stale(fd);
  number_freed(fd);
}

void install_duplicate(int from, int to) {
  if (from == to) return;
  if (Object* object = hold(from)) {
    install(to, object);
  } else {
    drop_stale(to);
  }
}

void for_each(u32 limit, bool (*visit)(int fd, Object* object, void* context), void* context) {
  u32 end = limit < table_high() ? limit : table_high();
  for (u32 fd = 0; fd < end; ++fd) {
    Object* object = lookup(static_cast<int>(fd));
    if (object != nullptr && !visit(static_cast<int>(fd), object, context)) return;
  }
}

// ---- hidden numbers
// --------------------------------------------------------------------------------------------------

bool is_hidden_slow(int fd) {
  if (static_cast<u32>(fd) >= table_entries || hidden_bits == nullptr) return false;
  return (load(hidden_bits[fd / 64]) >> (fd % 64) & 1) != 0;
}

RaisedLimit::RaisedLimit() {
  raw::call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, raw::at(before_));
  const u64 raised[2] = {before_[1], before_[1]};
  raised_ = before_[0] < before_[1] && before_[0] < hidden_base + 1'024 &&
            raw::call(SYS_prlimit64, 0, RLIMIT_NOFILE, raw::at(raised), 0) == 0;
}

RaisedLimit::~RaisedLimit() {
  if (raised_) raw::call(SYS_prlimit64, 0, RLIMIT_NOFILE, raw::at(before_), 0);
}

int make_hidden_copy(int fd) {
  int copy = -EMFILE;
  for (int i = 0; i < 3 && copy < 0; ++i) {  // again: another thread put the limit back meanwhile
    const RaisedLimit raised;
    copy = raw::fcntl(fd, F_DUPFD_CLOEXEC, hidden_base);
  }
  if (copy < 0) copy = raw::fcntl(fd, F_DUPFD_CLOEXEC, 3);  // even the hard limit is lower now
  if (copy < 0) return copy;
  if (static_cast<u32>(copy) >= table_entries) {
    raw::close(copy);
    return -EMFILE;
  }
  hide(copy);
  return copy;
}

void hide(int fd) {
  const auto number = static_cast<u32>(fd);
  __atomic_or_fetch(&hidden_bits[number / 64], 1ULL << (number % 64), __ATOMIC_RELAXED);
  if (number < load(table_view.hidden_low)) store(table_view.hidden_low, number);
  if (number >= load(hidden_high)) store(hidden_high, number + 1);
}

void unhide(int fd) {
  __atomic_and_fetch(&hidden_bits[fd / 64], ~(1ULL << (fd % 64)), __ATOMIC_RELAXED);
}

void give_up_number(int fd) {
  if (!is_hidden(fd) || unpark_number(fd)) return;
  const int copy = make_hidden_copy(fd);
  if (copy < 0) return;
  rename_in_arenas(fd, copy);
  rename_bells(fd, copy);
  rename_originals(fd, copy);
  rename_kicks(fd, copy);
  rename_virtual_directory(fd, copy);
  unhide(fd);
}

int make_hidden(int fd) {
  if (fd < 0) return fd;
  int copy = make_hidden_copy(fd);
  raw::close(fd);
  return copy;
}

void close_hidden(int fd) {
  if (!is_hidden(fd)) return;
  unhide(fd);
  raw::close(fd);
}

int close_range_around_hidden(u32 first, u32 last, u32 flags) {
  u32 from = first;
  for (u32 fd = load(table_view.hidden_low); fd < load(hidden_high) && fd <= last; ++fd) {
    if (fd < from || !is_hidden_slow(static_cast<int>(fd))) continue;
    if (fd > from) {
      long result = raw::call(SYS_close_range, from, fd - 1, flags);
      if (result < 0) return static_cast<int>(result);
    }
    from = fd + 1;
  }
  if (from > last || from < first) return 0;
  return static_cast<int>(raw::call(SYS_close_range, from, last, flags));
}

void close_all_hidden_but(int keep_a, int keep_b) {
  for (u32 fd = load(table_view.hidden_low); fd < load(hidden_high); ++fd) {
    if (static_cast<int>(fd) == keep_a || static_cast<int>(fd) == keep_b) continue;
    if (is_hidden_slow(static_cast<int>(fd))) close_hidden(static_cast<int>(fd));
  }
}

}  // namespace cob::shim
