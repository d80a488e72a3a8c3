// TCP_INFO, TCP_MAXSEG and IP_MTU of a cob socket: Linux's struct tcp_info filled from what its
// kernel tells. tcp(7), linux/tcp.h; docs/calls.md, "info". The socket's lock.
#pragma once

#include <sys/socket.h>

#include "shim/socket.h"

namespace cob::shim {

// As getsockopt(2): at most *length bytes, and *length becomes how many.
void tcp_information(Socket* socket, void* value, socklen_t* length);
// A connection's own; before that what was asked for.
int max_segment(Socket* socket);
// IP_MTU and IPV6_MTU of a connected socket, as far as its kernel knows. 0 or an errno.
int path_mtu(Socket* socket, int& bytes);
call::CongestionName congestion_control(Socket* socket);  // TCP_CONGESTION

}  // namespace cob::shim
