/* What socket_calls asks of its remote, a second program that may run on another kernel: one call
 * at a time on one of the remote's own slots, over a pair of FIFOs. */
#pragma once
#include <stdint.h>

enum remote_call {
  remote_listen,  /* on 127.0.0.1, or 0.0.0.0 with `bytes` 1, at `port` */
  remote_bind,    /* the same without listen */
  remote_connect, /* to 127.0.0.1:port */
  remote_accept,  /* from `slot` into `other` */
  remote_send,    /* `bytes` */
  remote_receive, /* up to `bytes` */
  remote_shutdown,
  remote_close,
  remote_send_urgent,
  remote_receive_urgent, /* the urgent byte; an odd `bytes`: only looked at */
  remote_calls,
};
enum { remote_slots = 6 };

struct remote_request {
  int32_t call, slot, other, port, bytes, settle_us;
};
struct remote_reply {
  int32_t result, error; /* error: of a failed call */
  uint32_t sum;          /* of received bytes */
};
