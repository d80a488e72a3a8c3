/* Two hundred listeners of one program, polled together: each accepts (poll(2), listen(2)). */
#include "trap.h"

enum { count = 200 };

int main(void) {
  static struct sockaddr_in address[count];
  static struct pollfd wait[count];
  for (int i = 0; i < count; ++i) {
    wait[i].fd = listen_any(&address[i]);
    wait[i].events = POLLIN;
  }
  CHECK(poll(wait, count, 0) == 0);
  for (int i = count; i-- > 0;) {
    const int client = connect_to(&address[i]);
    CHECK(poll(wait, count, 5000) == 1 && wait[i].revents == POLLIN);
    const int accepted = accept(wait[i].fd, NULL, NULL);
    CHECK(accepted >= 0);
    expect_works(client, accepted);
    close(client);
    close(accepted);
  }
  return 0;
}
