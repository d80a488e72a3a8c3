/* SCM_RIGHTS: a connected socket, a listener and a pipe go from one process to another in one
 * message; the sender closes its copies at once; MSG_CMSG_CLOEXEC and recvmmsg too (unix(7)). */
#include "trap.h"

static void send_rights(int channel, const int* fds, int count) {
  char control[CMSG_SPACE(8 * sizeof(int))] = {0};
  char byte = 'r';
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control,
                           .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
  memcpy(CMSG_DATA(header), fds, (size_t)count * sizeof(int));
  CHECK(sendmsg(channel, &message, 0) == 1);
}

static void receive_rights(int channel, int* fds, int count, int flags, int many) {
  char control[CMSG_SPACE(8 * sizeof(int))] = {0};
  char byte = 0;
  struct iovec part = {&byte, 1};
  struct mmsghdr message = {.msg_hdr = {.msg_iov = &part,
                                        .msg_iovlen = 1,
                                        .msg_control = control,
                                        .msg_controllen = sizeof control}};
  if (many != 0) {
    CHECK(recvmmsg(channel, &message, 1, flags, NULL) == 1);
  } else {
    CHECK(recvmsg(channel, &message.msg_hdr, flags) == 1);
  }
  struct cmsghdr* header = CMSG_FIRSTHDR(&message.msg_hdr);
  CHECK(header != NULL && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN((size_t)count * sizeof(int)));
  memcpy(fds, CMSG_DATA(header), (size_t)count * sizeof(int));
}

int main(void) {
  for (int variant = 0; variant < 4; ++variant) {
    int channel[2], pair[2], ends[2];
    struct sockaddr_in address;
    CHECK(socketpair(AF_UNIX, variant < 2 ? SOCK_STREAM : SOCK_SEQPACKET, 0, channel) == 0);
    const pid_t child = fork();
    if (child == 0) {
      close(channel[0]);
      int got[3];
      receive_rights(channel[1], got, 3, variant % 2 != 0 ? MSG_CMSG_CLOEXEC : 0, variant >= 2);
      expect_cob(got[0]);
      expect_cob(got[1]);
      CHECK(fcntl(got[0], F_GETFD) == (variant % 2 != 0 ? FD_CLOEXEC : 0));
      expect_text(got[0], "before the pass");
      send_all(got[0], "from the child", 14);
      CHECK(write(got[2], "p", 1) == 1);
      const int accepted = accept(got[1], NULL, NULL);
      CHECK(accepted >= 0);
      send_all(accepted, "accepted there", 14);
      _exit(0);
    }
    close(channel[1]);
    const int listener = listen_any(&address);
    tcp_pair(pair);
    CHECK(pipe(ends) == 0);
    send_all(pair[1], "before the pass", 15);
    const int pass[3] = {pair[0], listener, ends[1]};
    send_rights(channel[0], pass, 3);
    close(pair[0]);
    close(ends[1]);
    close(listener);
    expect_text(pair[1], "from the child");
    char byte;
    CHECK(read(ends[0], &byte, 1) == 1);
    const int client = connect_to(&address);
    expect_text(client, "accepted there");
    expect_exit(child, 0);
    expect_end(pair[1]);
    expect_end(client);
    close(pair[1]);
    close(client);
    close(ends[0]);
    close(channel[0]);
  }
  /* Passed to oneself: two numbers of one description. */
  int channel[2], pair[2];
  tcp_pair(pair);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
  send_rights(channel[0], pair, 1);
  int back = -1;
  receive_rights(channel[1], &back, 1, 0, 0);
  expect_works(back, pair[1]);
  expect_works(pair[0], pair[1]);
  close(back);
  expect_works(pair[0], pair[1]);
  for (int order = 0; order < 2; ++order) { /* all its numbers closed: the connection ends */
    send_rights(channel[0], pair, 1);
    receive_rights(channel[1], &back, 1, 0, 0);
    close(order == 0 ? pair[0] : back);
    if (order == 0) pair[0] = back;
    expect_works(pair[0], pair[1]);
  }
  close(pair[0]);
  expect_end(pair[1]);
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  send_rights(channel[0], &listener, 1);
  receive_rights(channel[1], &back, 1, 0, 0);
  close(listener);
  const int client = connect_to(&address);
  const int accepted = accept(back, NULL, NULL);
  expect_works(client, accepted);
  close(back);
  const int late = socket(AF_INET, SOCK_STREAM, 0);
  errno = 0;
  CHECK(connect(late, (struct sockaddr*)&address, sizeof address) == -1 && errno == ECONNREFUSED);
  return 0;
}
