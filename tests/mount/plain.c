// What the shim cannot reach, for mount_test.py: a static program whose calls are system calls by
// number, as a Go program's are.
//   plain cat FILE | append FILE WORD COUNT | count FILE KIND TIMES | hold FILE KIND | try FILE
//   KIND | timed FILE KIND
//         rename FROM TO FLAGS | tmpfile DIRECTORY | map FILE
// KIND: flock, posix or ofd. Prints what came of it; exits 1 with the error's number on stderr when
// a call fails that should not.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static long must(long result, const char* what) {
  if (result < 0) {
    fprintf(stderr, "%s: errno %d\n", what, errno);
    exit(1);
  }
  return result;
}

static int open_it(const char* path, int flags) {
  return (int)must(syscall(SYS_openat, AT_FDCWD, path, flags, 0666), "open");
}

// F_SETLK by `waits` and kind.
static long lock(int fd, const char* kind, int type, int waits) {
  if (strcmp(kind, "flock") == 0)
    return syscall(SYS_flock, fd,
                   (type == F_UNLCK   ? LOCK_UN
                    : type == F_RDLCK ? LOCK_SH
                                      : LOCK_EX) |
                       (waits ? 0 : LOCK_NB));
  struct flock wanted = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
  const int by_description = strcmp(kind, "ofd") == 0;
  return syscall(
      SYS_fcntl, fd,
      by_description ? (waits ? F_OFD_SETLKW : F_OFD_SETLK) : (waits ? F_SETLKW : F_SETLK),
      &wanted);
}

static void cat(const char* path) {
  static char buffer[65536];
  const int fd = open_it(path, O_RDONLY);
  for (long n; (n = must(syscall(SYS_read, fd, buffer, sizeof buffer), "read")) > 0;)
    must(syscall(SYS_write, 1, buffer, n), "write");
}

static void append(const char* path, const char* word, int count) {
  const int fd = open_it(path, O_WRONLY | O_APPEND | O_CREAT);
  char line[256];
  for (int i = 0; i < count; ++i) {
    const int n = snprintf(line, sizeof line, "%s %d %0100d\n", word, i, i);
    if (must(syscall(SYS_write, fd, line, n), "append") != n) exit(1);
  }
}

// A number in the file, read and written back one higher under the lock.
static void count_up(const char* path, const char* kind, int times) {
  const int fd = open_it(path, O_RDWR);
  for (int i = 0; i < times; ++i) {
    char text[16] = {0};
    must(lock(fd, kind, F_WRLCK, 1), "lock");
    must(syscall(SYS_pread64, fd, text, 10, 0), "read");
    snprintf(text, sizeof text, "%010d", atoi(text) + 1);
    must(syscall(SYS_pwrite64, fd, text, 10, 0), "write");
    must(lock(fd, kind, F_UNLCK, 0), "unlock");
  }
}

static void nothing(int number) { (void)number; }

static void timed(const char* path, const char* kind) {
  const struct sigaction wakes = {.sa_handler = nothing};
  sigaction(SIGALRM, &wakes, NULL);
  const struct itimerval soon = {.it_interval = {0, 100000}, .it_value = {0, 300000}};
  setitimer(ITIMER_REAL, &soon, NULL);
  const int fd = open_it(path, O_RDWR);
  const long result = lock(fd, kind, F_WRLCK, 1);
  puts(result == 0 ? "had" : errno == EINTR ? "interrupted" : "refused");
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const char* what = argv[1];
  const char* path = argv[2];
  const char* third = argc > 3 ? argv[3] : "";
  if (strcmp(what, "cat") == 0) cat(path);
  if (strcmp(what, "append") == 0) append(path, third, atoi(argv[4]));
  if (strcmp(what, "count") == 0) count_up(path, third, atoi(argv[4]));
  if (strcmp(what, "timed") == 0) timed(path, third);
  if (strcmp(what, "try") == 0)
    puts(lock(open_it(path, O_RDWR), third, F_WRLCK, 0) == 0 ? "had"
         : errno == EAGAIN || errno == EACCES                ? "busy"
                                                             : "refused");
  if (strcmp(what, "hold") == 0) {
    must(lock(open_it(path, O_RDWR), third, F_WRLCK, 1), "lock");
    puts("held");
    fflush(stdout);
    getchar();
  }
  if (strcmp(what, "rename") == 0)
    printf("%d\n",
           syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, third, atoi(argv[4])) == 0 ? 0 : errno);
  if (strcmp(what, "tmpfile") == 0)
    printf("%d\n", syscall(SYS_openat, AT_FDCWD, path, O_TMPFILE | O_RDWR, 0600) >= 0 ? 0 : errno);
  if (strcmp(what, "map") == 0) {
    const int fd = open_it(path, O_RDWR);
    const char* own = mmap(NULL, 4, PROT_READ, MAP_PRIVATE, fd, 0);
    must(own == MAP_FAILED ? -1 : 0, "a private mapping");
    printf("%.4s %d\n", own,
           mmap(NULL, 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? errno : 0);
  }
  return 0;
}
