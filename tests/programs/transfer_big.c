/* 32 MiB each way between two processes through one connection, in odd pieces, by write, writev,
 * sendmsg, sendfile and read, readv, recvmsg; every byte compared. Half-close ends it (tcp(7)). */
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "trap.h"

enum { total = 32 << 20 };

static unsigned char byte_at(size_t position) {
  return (unsigned char)((position * 2654435761U) >> 13);
}

static void produce(int fd, unsigned seed) {
  static unsigned char data[200000];
  char path[] = "/tmp/cob-transfer-XXXXXX";
  const int file = mkstemp(path);
  CHECK(file >= 0 && unlink(path) == 0);
  for (size_t done = 0; done < total;) {
    size_t bytes = 1 + (size_t)rand_r(&seed) % (rand_r(&seed) % 4 == 0 ? sizeof data : 3000);
    if (bytes > total - done) bytes = total - done;
    for (size_t i = 0; i < bytes; ++i) data[i] = byte_at(done + i);
    struct iovec parts[2] = {{data, bytes / 3}, {data + bytes / 3, bytes - bytes / 3}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t count = -1;
    switch (rand_r(&seed) % 4) {
      case 0:
        count = write(fd, data, bytes);
        break;
      case 1:
        count = writev(fd, parts, 2);
        break;
      case 2:
        count = sendmsg(fd, &message, 0);
        break;
      default: {
        off_t offset = (off_t)done; /* never written again: the host sends the file's own pages */
        CHECK(pwrite(file, data, bytes, offset) == (ssize_t)bytes);
        count = sendfile(fd, file, &offset, bytes);
        CHECK(offset == (off_t)done + count);
      }
    }
    CHECK(count > 0);
    done += (size_t)count;
  }
  CHECK(shutdown(fd, SHUT_WR) == 0);
  close(file);
}

static void consume(int fd, unsigned seed) {
  static unsigned char data[150000];
  for (size_t done = 0;;) {
    const size_t bytes = 1 + (size_t)rand_r(&seed) % (rand_r(&seed) % 4 == 0 ? sizeof data : 3000);
    struct iovec parts[2] = {{data, bytes / 2}, {data + bytes / 2, bytes - bytes / 2}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t count = -1;
    switch (rand_r(&seed) % 4) {
      case 0:
        count = read(fd, data, bytes);
        break;
      case 1:
        count = readv(fd, parts, 2);
        break;
      case 2:
        count = recvmsg(fd, &message, 0);
        break;
      default:
        count = recv(fd, data, bytes, MSG_WAITALL);
    }
    CHECK(count >= 0);
    if (count == 0) {
      CHECK(done == total);
      return;
    }
    for (ssize_t i = 0; i < count; ++i) CHECK(data[i] == byte_at(done + (size_t)i));
    done += (size_t)count;
  }
}

static void* produce_thread(void* fd) {
  produce((int)(intptr_t)fd, 7);
  return NULL;
}

int main(void) {
  int pair[2];
  tcp_pair(pair);
  const pid_t child = fork();
  pthread_t thread;
  const int mine = child == 0 ? pair[1] : pair[0];
  close(child == 0 ? pair[0] : pair[1]);
  CHECK(pthread_create(&thread, NULL, produce_thread, (void*)(intptr_t)mine) == 0);
  consume(mine, 3);
  pthread_join(thread, NULL);
  if (child == 0) _exit(0);
  expect_exit(child, 0);
  return 0;
}
