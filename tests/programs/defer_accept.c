/* TCP_DEFER_ACCEPT: a connection is not to be accepted before its peer has sent, and then it is;
 * after the time it is without (tcp(7)). */
#include "trap.h"

int main(void) {
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  const int seconds = 1;
  CHECK(setsockopt(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds) == 0);
  const int client = connect_to(&address);
  struct pollfd wait = {listener, POLLIN, 0};
  CHECK(poll(&wait, 1, 100) == 0);
  CHECK(send(client, "data", 4, 0) == 4);
  CHECK(poll(&wait, 1, 5000) == 1);
  const int accepted = accept(listener, NULL, NULL);
  CHECK(accepted >= 0);
  expect_text(accepted, "data");

  const int silent = connect_to(&address);
  CHECK(poll(&wait, 1, 100) == 0);
  CHECK(poll(&wait, 1, 10000) == 1);
  const int late = accept(listener, NULL, NULL);
  CHECK(late >= 0);
  expect_works(silent, late);
  return 0;
}
