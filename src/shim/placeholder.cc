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
  u16 free[pool_entries];    // with an original that no description has
  u16 vacant[pool_entries];  // without one
  u32 free_count;
  u32 vacant_count;
  u32 size;
};
Pool pool;

constexpr u32 parked_numbers = 32'768;  // numbers that can be parked; 0 to 2 never are
constexpr u32 parked_most = 4'096;
constexpr u32 crowded_distance = 128;  // numbers, to the limit of open files
constexpr u32 dups_a_look = 64;        // so often the limit of open files is read

constexpr u16 no_original = 0xffff;

struct Parked {
  u64 some_here[parked_numbers / 64 / 64];  // a bit a word of `here`
  u64 here[parked_numbers / 64];
  u64 close_on_exec[parked_numbers / 64];
  u16 original[parked_numbers];  // index into the pool, or no_original
  u64 token[parked_numbers];     // of those without original
  u32 used_below;                // every lower number is open or parked
  u32 refused;                   // NothingParked that live
  u32 dups;
  u32 crowded_from;  // sockets with such numbers: the table is almost full, nothing is parked
  bool crowded;
};
Parked parked;

u64 random_state[2];

u64 new_token() { return call::token_mark | (random_u64() & ~call::token_mark_mask); }

// Numbers are fresh() only without pool_lock: what it drops returns its placeholder.
int new_eventfd(u64 token, int flags) {
  int fd = raw::eventfd(flags & O_CLOEXEC ? EFD_CLOEXEC : 0);
  if (fd >= 0) raw::write(fd, &token, sizeof token);
  return fd;
}

// REQUIRES: pool_lock. The host has no number left: some originals, free ones or not, are given up;
// who has one keeps his number and its eventfd. False: there are none.
bool give_up_originals() {
  constexpr u32 most = 64;
  u32 given_up = 0;
  pool.free_count = 0;
  for (u32 i = pool.size; i > 0;) {
    --i;
    if (pool.original[i] < 0) continue;
    if (given_up < most && !pool.burned[i]) {
      close_hidden(pool.original[i]);
      pool.original[i] = -1;
      pool.token[i] = 0;
      pool.in_use[i] = false;
      pool.vacant[pool.vacant_count++] = static_cast<u16>(i);
      ++given_up;
    } else if (!pool.in_use[i]) {
      pool.free[pool.free_count++] = static_cast<u16>(i);
    }
  }
  return given_up > 0;
}

// REQUIRES: pool_lock. `fd` has a new eventfd with this token: a hidden copy becomes an original in
// use, if there is room. Its index, or own_eventfd.
i32 keep_original(int fd, u64 token) {
  const u32 kept = pool.size - pool.vacant_count;
  if (kept >= least_pool_entries && (kept == pool_entries || kept >= limit_of_numbers() / 8))
    return own_eventfd;
  const int original = make_hidden_copy(fd);
  if (original < 0) return own_eventfd;
  const u32 index = pool.vacant_count > 0 ? pool.vacant[--pool.vacant_count] : pool.size++;
  pool.original[index] = original;
  pool.token[index] = token;
  pool.in_use[index] = true;
  return static_cast<i32>(index);
}

bool bit(const u64* bits, u32 number) { return (bits[number / 64] >> (number % 64) & 1) != 0; }
void set_bit(u64* bits, u32 number, bool on) {
  const u64 mask = 1ULL << (number % 64);
  bits[number / 64] = on ? bits[number / 64] | mask : bits[number / 64] & ~mask;
}

// REQUIRES: pool_lock. The placeholder is no description's any more.
void release_original(u32 index) {
  pool.in_use[index] = false;
  if (pool.burned[index]) {
    close_hidden(pool.original[index]);
    pool.original[index] = -1;
    pool.token[index] = 0;
    pool.burned[index] = false;
    pool.vacant[pool.vacant_count++] = static_cast<u16>(index);
    return;
  }
  pool.free[pool.free_count++] = static_cast<u16>(index);
}

// The lowest parked number from `first` on; parked_numbers: none.
u32 parked_from(u32 first) {
  if (first >= parked_numbers) return parked_numbers;
  u32 word = first / 64;
  const u64 rest = parked.here[word] & (~0ULL << (first % 64));
  if (rest != 0) return word * 64 + static_cast<u32>(__builtin_ctzll(rest));
  for (++word; word < parked_numbers / 64;) {
    const u64 some = parked.some_here[word / 64] & (~0ULL << (word % 64));
    if (some != 0) {
      word = word / 64 * 64 + static_cast<u32>(__builtin_ctzll(some));
      return word * 64 + static_cast<u32>(__builtin_ctzll(parked.here[word]));
    }
    word = (word / 64 + 1) * 64;
  }
  return parked_numbers;
}

void set_parked(u32 number, bool on) {
  set_bit(parked.here, number, on);
  set_bit(parked.some_here, number / 64, parked.here[number / 64] != 0);
}

// REQUIRES: pool_lock. Takes the number out of the parked ones; it is open and not hidden then.
// Index into the pool, or no_original.
u32 unpark(u32 number) {
  set_parked(number, false);
  store(table_view.parked, table_view.parked - 1);
  unhide(static_cast<int>(number));
  return parked.original[number];
}

// REQUIRES: pool_lock.
void close_parked_from(u32 first) {
  for (u32 number = parked_from(first); number < parked_numbers; number = parked_from(number + 1)) {
    const u32 index = unpark(number);
    raw::close(static_cast<int>(number));
    if (index != no_original) release_original(index);
  }
}

// REQUIRES: pool_lock, one is parked. The lowest.
int take_parked(Placeholder& placeholder, bool close_on_exec) {
  const u32 number = parked_from(0);
  const u32 index = unpark(number);
  if (index == no_original) {
    placeholder = {parked.token[number], own_eventfd};
  } else {
    placeholder = {pool.token[index], static_cast<i32>(index)};
  }
  const int fd = static_cast<int>(number);
  if (bit(parked.close_on_exec, number) != close_on_exec)
    raw::fcntl(fd, F_SETFD, close_on_exec ? FD_CLOEXEC : 0);
  return fd;
}

// REQUIRES: pool_lock. The host gave this number as its lowest.
void learn_lowest(u32 number) {
  if (number >= parked.used_below) parked.used_below = number + 1;
  if (parked.dups++ % dups_a_look == 0) {
    const u32 limit = limit_of_numbers();
    parked.crowded_from = limit > crowded_distance ? limit - crowded_distance : 0;
  }
  parked.crowded = number >= parked.crowded_from;
}

// REQUIRES: pool_lock.
int new_placeholder(Placeholder& placeholder, int flags) {
  if (pool.free_count == 0) {
    const u64 token = new_token();
    const int fd = new_eventfd(token, flags);
    if (fd >= 0) placeholder = {token, keep_original(fd, token)};
    return fd;
  }
  const u32 index = pool.free[pool.free_count - 1];
  const int fd = raw::fcntl(pool.original[index], flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
  if (fd < 0) return fd;
  --pool.free_count;
  pool.in_use[index] = true;
  placeholder = {pool.token[index], static_cast<i32>(index)};
  return fd;
}

int duplicate_original(Placeholder& placeholder, int flags) {
  Guard guard(pool_lock);
  if (table_view.parked > 0) return take_parked(placeholder, (flags & O_CLOEXEC) != 0);
  int fd = new_placeholder(placeholder, flags);
  if (fd == -EMFILE && give_up_originals()) fd = new_placeholder(placeholder, flags);
  if (fd >= 0) learn_lowest(static_cast<u32>(fd));
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
  if (placeholder.pool_index < 0) return;
  Guard guard(pool_lock);
  auto index = static_cast<u32>(placeholder.pool_index);
  if (index >= pool.size || pool.token[index] != placeholder.token) return;
  release_original(index);
}

void burn_placeholder(Placeholder& placeholder) {
  if (placeholder.pool_index == own_eventfd) placeholder.pool_index = no_pool_entry;
  if (placeholder.pool_index < 0) return;
  Guard guard(pool_lock);
  pool.burned[placeholder.pool_index] = true;
}

void rename_originals(int from, int to) {
  Guard guard(pool_lock);
  for (u32 i = 0; i < pool.size; ++i) {
    if (pool.original[i] == from) pool.original[i] = to;
  }
}

void forget_pool() {
  for (u32 i = 0; i < pool.size; ++i) pool.in_use[i] = pool.burned[i] = false;
  pool.size = pool.free_count = pool.vacant_count = 0;
  if (table_view.parked > 0) {
    __builtin_memset(parked.here, 0, sizeof parked.here);
    __builtin_memset(parked.some_here, 0, sizeof parked.some_here);
  }
  parked.used_below = parked.refused = parked.dups = parked.crowded_from = 0;
  parked.crowded = false;
  store(table_view.parked, 0U);
  random_state[0] = random_state[1] = 0;
}

bool park_number(int fd, Placeholder& placeholder, bool close_on_exec) {
  const auto number = static_cast<u32>(fd);
  if (placeholder.pool_index == no_pool_entry || fd <= STDERR_FILENO || number >= parked_numbers)
    return false;
  Guard guard(pool_lock);
  const bool own = placeholder.pool_index == own_eventfd;
  const auto index = static_cast<u32>(placeholder.pool_index);
  if (!own && (pool.token[index] != placeholder.token || pool.burned[index])) return false;
  if (number >= parked.used_below || table_view.parked == parked_most) return false;
  if (parked.refused > 0 || parked.crowded) return false;
  hide(fd);
  set_parked(number, true);
  set_bit(parked.close_on_exec, number, close_on_exec);
  parked.original[number] = own ? no_original : static_cast<u16>(index);
  if (own) parked.token[number] = placeholder.token;
  store(table_view.parked, table_view.parked + 1);
  placeholder.pool_index = no_pool_entry;
  return true;
}

void number_freed(int fd) {
  const u32 number = fd < 0 ? 0 : static_cast<u32>(fd);
  if (number >= load(parked.used_below)) return;
  Guard guard(pool_lock);
  if (number >= parked.used_below) return;
  store(parked.used_below, number);
  close_parked_from(number);
}

bool unpark_number(int fd) {
  const auto number = static_cast<u32>(fd);
  if (number >= parked_numbers) return false;
  Guard guard(pool_lock);
  if (!bit(parked.here, number)) return false;
  if (const u32 index = unpark(number); index != no_original) release_original(index);
  return true;
}

void give_up_parked() {
  Guard guard(pool_lock);
  const u32 lowest = parked_from(0);
  if (lowest < parked.used_below) store(parked.used_below, lowest);
  close_parked_from(lowest);
}

NothingParked::NothingParked() {
  Guard guard(pool_lock);
  ++parked.refused;
  close_parked_from(0);
}

NothingParked::~NothingParked() {
  Guard guard(pool_lock);
  --parked.refused;
}

u64 random_token() {
  Guard guard(pool_lock);
  return new_token();
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
