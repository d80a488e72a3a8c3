/* A performer of file calls: `file_calls ROOT PIPES PAIR [NUMBER...]` serves the FIFOs
 * PIPES/PAIR.steps and PIPES/PAIR.results: each step of file_calls.h is done, its result, errno and
 * a sum of what came are told, so that two systems can be compared. ROOT: the directory that the
 * names are in. NUMBER...: what the slots hold, after an exec. One thread; nothing blocks but
 * reading steps. Ends when the steps do. */
#define _GNU_SOURCE
#include "file_calls.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { steps_fd = 900, results_fd, most_bytes = 65536, long_name = 300 };

static const char *root, *pipes;
static int slots[file_slots];
static char data[most_bytes], text[2][4096];

/* Some lead nowhere, some round about. */
static const char* const names[file_names] = {
    "f0",    "f1",  "f2",   "d0",    "d1",        "d0/f3",    "d0/f4",
    "d1/f5", "s0",  "s1",   "d0/s2", "d0/d2",     "d0/d2/f6", "d0/../f1",
    "./f2",  "d0/", "f0/",  "f0/x",  "missing/x", "",         "d1/../d0/f3",
    "s1/f3", ".",   "d0/.", "s0/",   "d0//f4",    "s1/../f2", NULL /* too long */};

/* `reserved` of a step: 1, and 2 of its second name: from ROOT on, not from where we are. */
static const char* name_of(const struct file_step* s, int which) {
  const int at = which == 0 ? s->name : s->name2;
  if (at < 0 || at >= file_names) return "no such name";
  char* to = text[which];
  to[0] = '\0';
  if (s->reserved & (which + 1)) snprintf(to, sizeof text[0], "%s/", root);
  if (names[at] != NULL) {
    strcat(to, names[at]);
  } else {
    const size_t length = strlen(to);
    memset(to + length, 'n', long_name);
    to[length + long_name] = '\0';
  }
  return to;
}

static uint32_t sum_of(uint32_t sum, const void* bytes, int64_t count) {
  const unsigned char* at = bytes;
  for (int64_t i = 0; i < count; ++i) sum = (sum ^ at[i]) * 16777619U;
  return sum;
}
static void fill(const struct file_step* s) {
  for (int i = 0; i < s->bytes; ++i)
    data[i] = (char)('!' + (s->name * 7 + i * (1 + s->name % 5)) % 90);
  for (int i = 79; i < s->bytes; i += 80) data[i] = '\n';
}
static int in_three(const struct file_step* s, struct iovec* pieces) {
  const size_t bytes = (size_t)s->bytes, first = bytes / 3, second = bytes / 5;
  pieces[0] = (struct iovec){data, first};
  pieces[1] = (struct iovec){data + first, second};
  pieces[2] = (struct iovec){data + first + second, bytes - first - second};
  return 3;
}
static int fd_of(int slot) { return slot < 0 || slot >= file_slots ? -1 : slots[slot]; }

static void replace(int slot, int64_t fd) {
  if (fd < 0) return;
  const int error = errno;
  if (slots[slot] >= 0 && slots[slot] != fd) close(slots[slot]);
  slots[slot] = (int)fd;
  errno = error;
}

static void tell_status(const struct stat* status, struct file_result* r) {
  r->more = S_ISREG(status->st_mode) ? status->st_size : 0;
  r->sum = status->st_mode | (uint32_t)status->st_nlink << 20;
}

static int64_t list(const char* name, struct file_result* r) {
  DIR* directory = opendir(name);
  if (directory == NULL) return -1;
  int64_t count = 0;
  for (struct dirent* e; (e = readdir(directory)) != NULL; ++count)
    r->sum += sum_of(e->d_type, e->d_name, (int64_t)strlen(e->d_name));
  closedir(directory);
  return count;
}

static int64_t lock(const struct file_step* s, struct file_result* r, int test) {
  static const short kinds[] = {F_RDLCK, F_WRLCK, F_UNLCK};
  struct flock lock = {.l_type = kinds[s->flags % 3], .l_start = s->offset, .l_len = s->bytes};
  const int of_description = s->flags >= 3;
  const int command =
      test ? (of_description ? F_OFD_GETLK : F_GETLK) : (of_description ? F_OFD_SETLK : F_SETLK);
  const int result = fcntl(fd_of(s->slot), command, &lock);
  if (result == 0 && test) {
    r->more = lock.l_type;
    if (lock.l_type != F_UNLCK) r->sum = (uint32_t)(lock.l_start * 31 + lock.l_len);
  }
  return result;
}

static int64_t map(const struct file_step* s, struct file_result* r) {
  struct stat status;
  if (fstat(fd_of(s->slot), &status) != 0) return -1;
  void* at = mmap(NULL, (size_t)s->bytes, PROT_READ, MAP_PRIVATE, fd_of(s->slot), s->offset);
  if (at == MAP_FAILED) return -1;
  const int64_t there = status.st_size - s->offset;
  if (S_ISREG(status.st_mode) && there > 0)
    r->sum = sum_of(0, at, there < s->bytes ? there : s->bytes);
  munmap(at, (size_t)s->bytes);
  return 0;
}

static int64_t add_to_epoll(int fd) {
  const int set = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN};
  const int result = epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), error = errno;
  close(set);
  errno = error;
  return result;
}

static int64_t stream(const struct file_step* s, struct file_result* r) {
  const int writing = s->call == call_stream_write;
  FILE* file = fopen(name_of(s, 0), writing ? "a" : "r");
  if (file == NULL) return -1;
  int64_t count = 0;
  if (writing) {
    fill(s);
    count = (int64_t)fwrite(data, 1, (size_t)s->bytes, file);
    count += fprintf(file, "%d lines\n", s->name);
    r->more = ftell(file);
  } else {
    while (fgets(data, sizeof data, file) != NULL && count < 100) {
      r->sum = sum_of(r->sum, data, (int64_t)strlen(data));
      ++count;
    }
    r->more = feof(file) * 2 + ferror(file);
  }
  if (fclose(file) != 0) return -1;
  return count;
}

static void serve_pair(int pair) {
  char path[4096];
  alarm(1800); /* should the conductor die */
  snprintf(path, sizeof path, "%s/%d.steps", pipes, pair);
  const int steps = open(path, O_RDONLY);
  snprintf(path, sizeof path, "%s/%d.results", pipes, pair);
  const int results = open(path, O_WRONLY);
  if (steps < 0 || results < 0 || dup2(steps, steps_fd) < 0 || dup2(results, results_fd) < 0)
    _exit(3);
  close(steps);
  close(results);
}

static void tell(const struct file_result* r) {
  if (write(results_fd, r, sizeof *r) != sizeof *r) _exit(4);
}

static int64_t execute(const struct file_step* s) {
  static char numbers[file_slots][16], pair[16];
  char* words[4 + file_slots + 1] = {"/proc/self/exe", (char*)root, (char*)pipes, pair};
  snprintf(pair, sizeof pair, "%d", -1 - s->other);
  for (int i = 0; i < file_slots; ++i) {
    snprintf(numbers[i], sizeof numbers[i], "%d", slots[i]);
    words[4 + i] = numbers[i];
  }
  execv("/proc/self/exe", words);
  return -1;
}

static int64_t open_name(const struct file_step* s) {
  const int64_t fd = s->other < 0 ? open(name_of(s, 0), s->flags, s->bytes)
                                  : openat(fd_of(s->other), name_of(s, 0), s->flags, s->bytes);
  replace(s->slot, fd);
  return fd;
}

/* Calls that name files. */
static int64_t by_name(const struct file_step* s, struct file_result* r) {
  const char *name = name_of(s, 0), *name2 = name_of(s, 1);
  struct stat status;
  int64_t result = -1;
  switch ((enum file_call)s->call) {
    case call_truncate:
      return truncate(name, s->offset);
    case call_stat:
      result = s->flags ? lstat(name, &status) : stat(name, &status);
      if (result == 0) tell_status(&status, r);
      return result;
    case call_access:
      return access(name, s->flags);
    case call_link:
      return link(name, name2);
    case call_symlink:
      return symlink(name, name2);
    case call_readlink:
      result = readlink(name, data, sizeof data);
      r->sum = sum_of(0, data, result);
      return result;
    case call_rename:
      return renameat2(AT_FDCWD, name, AT_FDCWD, name2, (unsigned)s->flags);
    case call_unlink:
      return unlink(name);
    case call_mkdir:
      return mkdir(name, (mode_t)s->flags);
    case call_rmdir:
      return rmdir(name);
    case call_chmod:
      return chmod(name, (mode_t)s->flags);
    case call_utimens: {
      const struct timespec times[2] = {{.tv_sec = s->offset}, {.tv_sec = s->offset + 1}};
      result = utimensat(AT_FDCWD, name, times, 0);
      if (result == 0 && stat(name, &status) == 0) r->more = status.st_mtime;
      return result;
    }
    case call_set_xattr:
      fill(s);
      return setxattr(name, "user.test", data, (size_t)s->bytes, 0);
    case call_get_xattr:
      result = getxattr(name, "user.test", data, sizeof data);
      r->sum = sum_of(0, data, result);
      return result;
    case call_list:
      return list(name, r);
    case call_chdir:
      return chdir(name);
    default:
      return stream(s, r);
  }
}

static int same_file(int a, int b) {
  struct stat one, two;
  return fstat(a, &one) == 0 && fstat(b, &two) == 0 && one.st_dev == two.st_dev &&
         one.st_ino == two.st_ino;
}

/* Calls on an open file that move bytes. */
static int64_t by_bytes(const struct file_step* s, struct file_result* r) {
  const int fd = fd_of(s->slot);
  const size_t bytes = (size_t)s->bytes;
  struct iovec pieces[3];
  int64_t result = -1;
  switch ((enum file_call)s->call) {
    case call_read:
      result = read(fd, data, bytes);
      break;
    case call_pread:
      result = pread(fd, data, bytes, s->offset);
      break;
    case call_readv:
      result = readv(fd, pieces, in_three(s, pieces));
      break;
    case call_write:
      fill(s);
      return write(fd, data, bytes);
    case call_pwrite:
      fill(s);
      return pwrite(fd, data, bytes, s->offset);
    case call_writev:
      fill(s);
      return writev(fd, pieces, in_three(s, pieces));
    case call_copy_range:
      return copy_file_range(fd, NULL, fd_of(s->other), NULL, bytes, 0);
    default: /* of a file to itself: pages that are read as they are written, not to be compared */
      if (same_file(fd, fd_of(s->other))) return 0;
      return sendfile(fd_of(s->other), fd, NULL, bytes);
  }
  r->sum = sum_of(0, data, result);
  return result;
}

static int is_pipe(int fd) {
  struct stat status;
  return fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);
}

/* Calls on a number. */
static int64_t by_number(const struct file_step* s, struct file_result* r) {
  const int fd = fd_of(s->slot);
  struct stat status;
  int64_t result = -1;
  int pair[2];
  switch ((enum file_call)s->call) {
    case call_close:
      result = close(fd);
      if (fd >= 0) slots[s->slot] = -1;
      return result;
    case call_dup:
      result = dup(fd_of(s->other));
      replace(s->slot, result);
      return result;
    case call_dup2:
      return fd < 0 ? -1 : dup2(fd_of(s->other), fd);
    case call_seek:
      return lseek(fd, s->offset, s->flags);
    case call_ftruncate:
      return ftruncate(fd, s->offset);
    case call_fallocate:
      return fallocate(fd, s->flags, s->offset, s->bytes);
    case call_fsync:
      return s->flags ? fdatasync(fd) : fsync(fd);
    case call_fstat:
      result = fstat(fd, &status);
      if (result == 0) tell_status(&status, r);
      return result;
    case call_fchmod:
      return fchmod(fd, (mode_t)s->flags);
    case call_fchdir:
      return fchdir(fd);
    case call_get_flags:
      r->more = fcntl(fd, F_GETFD);
      return fcntl(fd, F_GETFL);
    case call_set_flags:
      return fcntl(fd, F_SETFL, s->flags | (is_pipe(fd) ? O_NONBLOCK : 0));
    case call_flock:
      return flock(fd, s->flags | LOCK_NB);
    case call_lock:
      return lock(s, r, 0);
    case call_test_lock:
      return lock(s, r, 1);
    case call_map:
      return map(s, r);
    case call_poll: {
      struct pollfd asked = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI};
      result = poll(&asked, 1, 0);
      r->more = asked.revents;
      return result;
    }
    case call_epoll_add:
      return add_to_epoll(fd);
    default: /* call_pipe */
      result = pipe2(pair, O_NONBLOCK);
      if (result != 0 || s->slot == s->other) return result;
      replace(s->slot, pair[0]);
      replace(s->other, pair[1]);
      return pair[0] * 1000 + pair[1];
  }
}

static int64_t perform(const struct file_step* s, struct file_result* r) {
  switch ((enum file_call)s->call) {
    case call_open:
      return open_name(s);
    case call_read:
    case call_pread:
    case call_readv:
    case call_write:
    case call_pwrite:
    case call_writev:
    case call_copy_range:
    case call_sendfile:
      return by_bytes(s, r);
    case call_getcwd:
      if (getcwd(data, sizeof data) == NULL) return -1;
      r->sum = sum_of(0, data, (int64_t)strlen(data));
      return 0;
    case call_umask:
      return umask((mode_t)s->flags);
    case call_exec:
      return execute(s);
    case call_fork: {
      const pid_t child = fork();
      if (child == 0) serve_pair(s->other);
      return child > 0 ? 1 : child; /* the child tells nothing of this step */
    }
    case call_truncate:
    case call_stat:
    case call_access:
    case call_link:
    case call_symlink:
    case call_readlink:
    case call_rename:
    case call_unlink:
    case call_mkdir:
    case call_rmdir:
    case call_chmod:
    case call_utimens:
    case call_set_xattr:
    case call_get_xattr:
    case call_list:
    case call_chdir:
    case call_stream_write:
    case call_stream_read:
      return by_name(s, r);
    default:
      return by_number(s, r);
  }
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  root = argv[1];
  pipes = argv[2];
  const int pair = atoi(argv[3]);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_IGN);
  for (int i = 0; i < file_slots; ++i) slots[i] = argc > 4 + i ? atoi(argv[4 + i]) : -1;
  if (pair >= 0) {
    serve_pair(pair);
    umask(022);
    if (chdir(root) != 0) return 3;
  } else { /* after an exec the pair is still open */
    tell(&(struct file_result){.result = 1});
  }
  struct file_step step;
  while (read(steps_fd, &step, sizeof step) == sizeof step) {
    if (step.call == call_exit) _exit(0);
    if (step.bytes < 0 || step.bytes > most_bytes) return 5;
    struct file_result told = {0};
    errno = 0;
    told.result = perform(&step, &told);
    if (told.result == 0 && step.call == call_fork) continue;
    if (told.result < 0) told.error = errno;
    tell(&told);
  }
  return 0;
}
