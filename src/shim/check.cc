// Compares the descriptor table with /proc/self/fd and fdinfo; proc(5). Model: check.h.
#include "shim/check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim/lock.h"
#include "shim/open_numbers.h"
#include "shim/placeholder.h"
#include "shim/raw.h"
#include "shim/socket.h"
#include "shim/state.h"
#include "shim/table.h"

namespace cob::shim {

bool check_mode;

namespace {

constexpr u32 looked_at_every_call = 32;  // tables up to here; larger ones at every high/8th call
constexpr int patience_ms = 200;  // for calls of other threads that are between host and table

constexpr u32 sampled = 64;  // of the calls that change no descriptor, one in so many
u32 calls;
thread_local bool checking __attribute__((tls_model("initial-exec")));

struct Difference {
  int fd = -1;
  const char* what = nullptr;
  u64 table = 0;
  u64 host = 0;
};

bool link_of(int fd, char (&target)[64]) {
  char path[40];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const long bytes =
      raw::call(SYS_readlinkat, AT_FDCWD, raw::at(path), raw::at(target), sizeof target - 1);
  if (bytes < 0) return false;
  target[bytes] = 0;
  return true;
}

bool entry_is_right(int fd, Object* object, void* context) {
  auto* difference = static_cast<Difference*>(context);
  char target[64];
  if (!link_of(fd, target)) {
    *difference = {fd, "in the table, closed on the host", token_of(fd), 0};
  } else if (object->kind == Kind::epoll) {
    if (strcmp(target, "anon_inode:[eventpoll]") != 0)
      *difference = {fd, "an epoll set in the table only", 0, 0};
  } else if (is_description(object) && reinterpret_cast<Socket*>(object)->twin) {
    // It is the host's own beneath.
  } else if (const u64 host = read_token(fd); host != token_of(fd)) {
    *difference = {fd, "another description on the host", token_of(fd), host};
  }
  return difference->what == nullptr || lookup(fd) != object;
}

void find_missing(Difference& difference) {
  for_each_open([&](int fd) {
    char target[64];
    if (is_hidden(fd) || is_cob(fd) || !link_of(fd, target)) return true;
    if (strcmp(target, "anon_inode:[eventfd]") != 0) return true;
    const u64 token = read_token(fd);
    if (token == 0 || is_cob(fd)) return true;
    difference = {fd, "on the host, not in the table", 0, token};
    return false;
  });
}

Difference compare() {
  Difference difference;
  for_each(~0U, entry_is_right, &difference);
  if (difference.what == nullptr) find_missing(difference);
  return difference;
}

[[noreturn]] void report(const Difference& difference, const char* call) {
  char text[256];
  const int bytes = snprintf(
      text, sizeof text, "cob: check: %d after %s: descriptor %d is %s (table %llx, host %llx)\n",
      raw::process_id(), call, difference.fd, difference.what, difference.table, difference.host);
  raw::write(STDERR_FILENO, text, static_cast<size_t>(bytes));
  abort();
}

}  // namespace

void check_start(char** environment) {
  for (char** entry = environment; entry != nullptr && *entry != nullptr; ++entry) {
    if (strcmp(*entry, "COB_CHECK=1") == 0) check_mode = true;
  }
}

void check_now_and_then(const char* call) {
  thread_local u32 since __attribute__((tls_model("initial-exec")));
  if (++since % sampled == 0) check_tables(call);
}

void check_tables(const char* call) {
  if (confined()) return;  // looking takes calls that filters refuse
  const u32 high = table_high();
  if (!attached() || checking) return;
  if (high > looked_at_every_call &&
      __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) % (high / 8) != 0)
    return;
  const int saved = errno;
  const int number = raw::fcntl(0, F_DUPFD, 0);
  if (number == -EMFILE) return;  // fdinfo cannot be opened
  if (number >= 0) raw::close(number);
  checking = true;
  Difference difference = compare();
  for (int waited_ms = 0; difference.what != nullptr; waited_ms += 5) {
    if (waited_ms >= patience_ms) report(difference, call);
    const timespec pause{0, 5'000'000};
    raw::call(SYS_nanosleep, raw::at(&pause), 0);
    difference = compare();
  }
  checking = false;
  errno = saved;
}

}  // namespace cob::shim
