// The pool of placeholder originals. Model: placeholder.h.

#include "shim/placeholder.h"

#include <sys/eventfd.h>

namespace cob::shim {

Lock pool_lock;

namespace {

struct Pool {
  int original[pool_entries];
  u64 token[pool_entries];
  bool burned[pool_entries];
  bool in_use[pool_entries];
  u16 free[pool_entries];
  u32 free_count;
  u32 size;
};
Pool pool;
u64 random_state[2];

u64 new_token() { return call::token_mark | (random_u64() & ~call::token_mark_mask); }

// Numbers are fresh() only without pool_lock: what it drops returns its placeholder.
int new_eventfd(u64 token, int flags) {
  int fd = raw::eventfd(flags & O_CLOEXEC ? EFD_CLOEXEC : 0);
  if (fd >= 0) raw::write(fd, &token, sizeof token);
  return fd;
}

// REQUIRES: pool_lock. The index of a free original, or no_pool_entry.
i32 take_original() {
  if (pool.free_count > 0) return pool.free[--pool.free_count];
  if (pool.size == pool_entries) return no_pool_entry;
  u64 token = new_token();
  int original = make_hidden(new_eventfd(token, O_CLOEXEC));
  if (original < 0) return no_pool_entry;
  u32 index = pool.size++;
  pool.original[index] = original;
  pool.token[index] = token;
  return static_cast<i32>(index);
}

int duplicate_original(Placeholder& placeholder, int flags) {
  Guard guard(pool_lock);
  i32 index = take_original();
  if (index == no_pool_entry) {
    placeholder = {new_token(), no_pool_entry};
    return new_eventfd(placeholder.token, flags);
  }
  int fd = raw::fcntl(pool.original[index], flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
  if (fd < 0) {
    pool.free[pool.free_count++] = static_cast<u16>(index);
    return fd;
  }
  pool.in_use[index] = true;
  placeholder = {pool.token[index], index};
  return fd;
}

}  // namespace

u64 random_u64() {
  if (random_state[0] == 0 && random_state[1] == 0) {
    raw::call(SYS_getrandom, raw::at(random_state), sizeof random_state, 0);
    random_state[0] |= 1;
  }
  u64 a = random_state[0];  // xorshift128+
  u64 b = random_state[1];
  random_state[0] = b;
  a ^= a << 23;
  random_state[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
  return random_state[1] + b;
}

int take_placeholder(Placeholder& placeholder, int flags) {
  return fresh(duplicate_original(placeholder, flags));
}

void return_placeholder(const Placeholder& placeholder) {
  if (placeholder.pool_index == no_pool_entry) return;
  Guard guard(pool_lock);
  auto index = static_cast<u32>(placeholder.pool_index);
  if (index >= pool.size || pool.token[index] != placeholder.token) return;
  pool.in_use[index] = false;
  if (pool.burned[index]) {  // a fresh eventfd takes its place
    close_hidden(pool.original[index]);
    u64 token = new_token();
    int original = make_hidden(new_eventfd(token, O_CLOEXEC));
    pool.original[index] = original;
    pool.token[index] = token;
    pool.burned[index] = false;
    if (original < 0) return;  // the entry is lost, sockets get eventfds of their own
  }
  pool.free[pool.free_count++] = static_cast<u16>(index);
}

void burn_placeholder(Placeholder& placeholder) {
  if (placeholder.pool_index == no_pool_entry) return;
  Guard guard(pool_lock);
  pool.burned[placeholder.pool_index] = true;
}

void burn_all_placeholders_in_use() {
  for (u32 i = 0; i < pool.size; ++i) pool.burned[i] = pool.burned[i] || pool.in_use[i];
}

void rename_originals(int from, int to) {
  Guard guard(pool_lock);
  for (u32 i = 0; i < pool.size; ++i) {
    if (pool.original[i] == from) pool.original[i] = to;
  }
}

void forget_pool() {
  pool.size = 0;
  pool.free_count = 0;
  for (u32 i = 0; i < pool_entries; ++i) pool.in_use[i] = pool.burned[i] = false;
  random_state[0] = random_state[1] = 0;
}

u64 read_token(int fd) {
  char path[48] = "/proc/self/fdinfo/";
  u32 at = 18;
  char digits[12];
  u32 n = 0;
  for (u32 rest = static_cast<u32>(fd); n == 0 || rest != 0; rest /= 10) {
    digits[n++] = static_cast<char>('0' + rest % 10);
  }
  while (n > 0) path[at++] = digits[--n];
  path[at] = 0;
  int file = static_cast<int>(raw::call(SYS_openat, AT_FDCWD, raw::at(path), O_RDONLY | O_CLOEXEC));
  if (file < 0) return 0;
  char text[512];
  long bytes = raw::read(file, text, sizeof text - 1);
  raw::close(file);
  if (bytes <= 0) return 0;
  text[bytes] = 0;
  const char* found = __builtin_strstr(text, "eventfd-count:");
  if (found == nullptr) return 0;
  u64 token = 0;
  for (found += 14; *found == ' ' || *found == '\t';) ++found;
  for (;; ++found) {
    if (*found >= '0' && *found <= '9') {
      token = token * 16 + static_cast<u64>(*found - '0');
    } else if (*found >= 'a' && *found <= 'f') {
      token = token * 16 + static_cast<u64>(*found - 'a' + 10);
    } else {
      break;
    }
  }
  return (token & call::token_mark_mask) == call::token_mark ? token : 0;
}

}  // namespace cob::shim
