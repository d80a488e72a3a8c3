/* select(2) with more numbers than an fd_set has bits, as select(getdtablesize(), ...) asks:
 * nothing is read or written behind the table's end; numbers from 1,024 on work in larger sets;
 * what is not open is EBADF. */
#include "trap.h"

enum { guarded_words = 128 };

static struct {
  unsigned long before[8];
  fd_set set;
  unsigned long behind[guarded_words];
} in, out;

static void fill(void) {
  memset(&in, 0xff, sizeof in);
  memset(&out, 0xff, sizeof out);
  FD_ZERO(&in.set);
  FD_ZERO(&out.set);
}

static int untouched(void) {
  for (int i = 0; i < guarded_words; ++i)
    if (in.behind[i] != ~0ul || out.behind[i] != ~0ul) return 0;
  return 1;
}

int main(void) {
  int pair[2];
  struct timeval second = {1, 0};
  tcp_pair(pair);
  send_all(pair[1], "x", 1);
  struct pollfd arrived = {pair[0], POLLIN, 0};
  CHECK(poll(&arrived, 1, 5000) == 1);

  /* As large as the host's table may be: the sets end before. */
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (pair[0] < 64 && pair[1] < 64) { /* Linux looks at what its table has room for */
    fill();
    FD_SET(pair[0], &in.set);
    FD_SET(pair[1], &out.set);
    CHECK(select((int)limit.rlim_cur, &in.set, &out.set, NULL, &second) == 2);
    CHECK(FD_ISSET(pair[0], &in.set) && FD_ISSET(pair[1], &out.set));
    CHECK(untouched());
    fill();
    FD_SET(pair[1], &in.set); /* nothing to read: the time passes */
    second = (struct timeval){0, 10000};
    CHECK(select((int)limit.rlim_cur, &in.set, NULL, NULL, &second) == 0);
    CHECK(!FD_ISSET(pair[1], &in.set) && untouched());
    struct timespec none = {0, 0};
    fill();
    FD_SET(pair[0], &in.set);
    CHECK(pselect((int)limit.rlim_cur, &in.set, NULL, NULL, &none, NULL) == 1 && untouched());
  }

  /* A set of 4,096 bits with a number beyond 1,024. */
  unsigned long large[4096 / (8 * sizeof(long))] = {0};
  const int high = 2000;
  CHECK(dup2(pair[0], high) == high);
  expect_cob(high);
  const int bits = 8 * sizeof(long);
  large[high / bits] |= 1ul << (high % bits);
  large[pair[0] / bits] |= 1ul << (pair[0] % bits);
  second = (struct timeval){1, 0};
  CHECK(select(high + 1, (fd_set*)large, NULL, NULL, &second) == 2);
  CHECK((large[high / bits] >> (high % bits) & 1) == 1);
  receive_all(pair[0], (char[1]){0}, 1);
  second = (struct timeval){0, 1000};
  CHECK(select(high + 1, (fd_set*)large, NULL, NULL, &second) == 0);
  CHECK(large[high / bits] == 0 && large[pair[0] / bits] == 0);

  /* Below the count, but not open. */
  fill();
  FD_SET(pair[1], &out.set);
  FD_SET(900, &out.set);
  errno = 0;
  CHECK(select(1024, NULL, &out.set, NULL, NULL) == -1 && errno == EBADF);
  CHECK(FD_ISSET(pair[1], &out.set) && FD_ISSET(900, &out.set));
  return 0;
}
