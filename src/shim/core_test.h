// What the shim's tests share: the core without the glue, attached to a FakeKernel; a listener and
// connections through it. Model: the core's sources are linked as they are; the real functions are
// libc's. One attachment a test program. The test's main thread, unless a test starts others.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <chrono>
#include <thread>

#include "shim/epoll.h"
#include "shim/fake_kernel.h"
#include "shim/socket.h"

namespace cob::shim::testing {

FakeKernel& kernel();  // attached at the first use

inline sockaddr_in at(u32 address, int port) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(address);
  in.sin_port = htons(static_cast<u16>(port));
  return in;
}
inline sockaddr* as_address(sockaddr_in& in) { return reinterpret_cast<sockaddr*>(&in); }

inline int make_listener(int port, int flags = SOCK_NONBLOCK) {
  int fd = cob_socket(AF_INET, SOCK_STREAM | flags, 0);
  sockaddr_in in = at(FakeKernel::address, port);
  EXPECT_EQ(cob_bind(fd, as_address(in), sizeof in), 0);
  EXPECT_EQ(cob_listen(fd, 16), 0);
  return fd;
}
inline int make_client(int port, int flags = 0) {
  int fd = cob_socket(AF_INET, SOCK_STREAM | flags, 0);
  sockaddr_in in = at(FakeKernel::address, port);
  int result = cob_connect(fd, as_address(in), sizeof in);
  if (flags == 0) {
    EXPECT_EQ(result, 0);
  }
  return fd;
}
// Waits for a condition with a deadline.
template <typename F>
bool eventually(F condition) {
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

struct Pair {
  int listener, client, server;
  explicit Pair(int port) {
    kernel();
    listener = make_listener(port, 0);
    client = make_client(port);
    server = cob_accept4(listener, nullptr, nullptr, 0);
    EXPECT_GE(server, 0);
  }
  ~Pair() {
    cob_close(listener);
    cob_close(client);
    cob_close(server);
  }
};

inline u32 poll_now(int fd, short events) {
  pollfd p{fd, events, 0};
  EXPECT_GE(cob_poll(&p, 1, 0), 0);
  return static_cast<u16>(p.revents);
}

}  // namespace cob::shim::testing
