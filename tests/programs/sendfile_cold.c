/* While sendfile waits for its file, others go on using the socket: here another thread and another
 * process receive on it. The wait is a fanotify permission event that nobody answers yet, which
 * needs root: without it only what sendfile sends is looked at (sendfile(2), fanotify(7)). */
#include <sys/fanotify.h>
#include <sys/sendfile.h>

#include "trap.h"

enum { bytes = 50000 };
static char content[bytes], got[bytes];
static int pair[2], file;

static void* sends(void* context) {
  (void)context;
  off_t offset = 0;
  CHECK(sendfile(pair[0], file, &offset, bytes) == bytes && offset == bytes);
  return NULL;
}

static void expect_content(void) {
  receive_all(pair[1], got, bytes);
  CHECK(memcmp(got, content, bytes) == 0);
}

int main(void) {
  char name[] = "/tmp/cob-sendfile-XXXXXX";
  file = mkstemp(name);
  CHECK(file >= 0);
  for (int i = 0; i < bytes; ++i) content[i] = (char)(i * 31 + i / 251);
  CHECK(write(file, content, bytes) == bytes);
  tcp_pair(pair);

  sends(NULL);
  expect_content();
  /* The file's own offset; more asked for than there is. */
  CHECK(lseek(file, 100, SEEK_SET) == 100);
  CHECK(sendfile(pair[0], file, NULL, 1000) == 1000);
  CHECK(lseek(file, 0, SEEK_CUR) == 1100);
  CHECK(sendfile(pair[0], file, NULL, 2 * bytes) == bytes - 1100);
  CHECK(sendfile(pair[0], file, NULL, 1) == 0);
  receive_all(pair[1], got, bytes - 100);
  CHECK(memcmp(got, content + 100, bytes - 100) == 0);
  int ends[2];
  CHECK(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
  errno = 0;
  CHECK(sendfile(pair[0], ends[0], NULL, 1) == -1 && errno == EINVAL);

  const int watch = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY);
  if (watch >= 0) {
    pthread_t thread;
    CHECK(fanotify_mark(watch, FAN_MARK_ADD, FAN_ACCESS_PERM, AT_FDCWD, name) == 0);
    CHECK((file = open(name, O_RDONLY)) >= 0); /* what was open before is not watched */
    CHECK(pthread_create(&thread, NULL, sends, NULL) == 0);
    struct fanotify_event_metadata event;
    CHECK(read(watch, &event, sizeof event) == (ssize_t)sizeof event); /* it is in its read */
    send_all(pair[1], "thread", 6);
    expect_text(pair[0], "thread");
    const pid_t child = fork();
    if (child == 0) {
      send_all(pair[1], "process", 7);
      expect_text(pair[0], "process");
      _exit(0);
    }
    expect_exit(child, 0);
    CHECK(fanotify_mark(watch, FAN_MARK_REMOVE, FAN_ACCESS_PERM, AT_FDCWD, name) == 0);
    const struct fanotify_response response = {event.fd, FAN_ALLOW};
    CHECK(write(watch, &response, sizeof response) == (ssize_t)sizeof response);
    CHECK(pthread_join(thread, NULL) == 0);
    expect_content();
  }
  CHECK(unlink(name) == 0);
  close(pair[0]);
  expect_end(pair[1]);
  return 0;
}
