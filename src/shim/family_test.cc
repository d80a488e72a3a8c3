// AF_INET6 sockets: addresses between their two forms, what Linux says of those of the other
// family, options, and names of dual-stack connections through the played kernel.

#include "shim/family.h"

#include <unistd.h>

#include <string>

#include "shim/core_test.h"

namespace cob::shim::testing {
namespace {

sockaddr_in6 at6(const char* host, int port) {
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  EXPECT_EQ(inet_pton(AF_INET6, host, &in.sin6_addr), 1);
  in.sin6_port = htons(static_cast<u16>(port));
  return in;
}
sockaddr* as_address(sockaddr_in6& in) { return reinterpret_cast<sockaddr*>(&in); }

u32 inside(const char* host) {
  Ipv4Endpoint out{};
  sockaddr_in6 in = at6(host, 1);
  EXPECT_EQ(read_address(as_address(in), sizeof in, true, out), 0);
  return out.address;
}

std::string outside(u32 address, u16 port) {
  sockaddr_in6 in{};
  socklen_t length = sizeof in;
  write_address({address, port}, true, as_address(in), &length);
  EXPECT_EQ(length, sizeof in);
  EXPECT_EQ(in.sin6_family, AF_INET6);
  EXPECT_EQ(ntohs(in.sin6_port), port);
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof text);
}

TEST(Family, Ipv6AddressesHaveAFormInside) {
  EXPECT_EQ(inside("::"), call::dual_any);
  EXPECT_EQ(inside("::1"), call::ipv6_loopback);
  EXPECT_EQ(inside("::ffff:10.77.0.1"), 0x0a4d'0001U);
  EXPECT_EQ(inside("::ffff:0.0.0.0"), 0U);
  for (const char* host : {"::2", "::10.77.0.1", "fe80::1", "ff02::1", "::1:0:0", "2001:db8::1",
                           "::ffff:0.0.0.1", "::ffff:0.0.0.3", "0:0:0:1::ffff:1.2.3.4"}) {
    EXPECT_EQ(inside(host), elsewhere) << host;
  }
}

TEST(Family, AndOutside) {
  EXPECT_EQ(outside(0, 0), "::");  // not bound
  EXPECT_EQ(outside(0, 80), "::ffff:0.0.0.0");
  EXPECT_EQ(outside(call::dual_any, 80), "::");
  EXPECT_EQ(outside(call::ipv6_any, 80), "::");
  EXPECT_EQ(outside(call::ipv6_loopback, 80), "::1");
  EXPECT_EQ(outside(0x7f00'0001, 80), "::ffff:127.0.0.1");
}

TEST(Family, WhatStandsForIpv6IsNoAddressOfIpv4s) {
  for (u32 address = 0; address < 6; ++address) {
    sockaddr_in in = at(address, 80);
    Ipv4Endpoint out{};
    ASSERT_EQ(read_address(testing::as_address(in), sizeof in, false, out), 0);
    EXPECT_EQ(out.address, address == 0 ? 0 : elsewhere);
  }
}

TEST(Family, LengthsAndFamiliesAreJudgedAsByLinux) {
  Ipv4Endpoint out{};
  sockaddr_in6 six = at6("::1", 80);
  EXPECT_EQ(read_address(as_address(six), 24, true, out), 0);  // RFC 2133's, without a scope
  EXPECT_EQ(read_address(as_address(six), 23, true, out), EINVAL);
  EXPECT_EQ(read_address(as_address(six), sizeof six, false, out), EAFNOSUPPORT);
  six.sin6_family = AF_INET;
  EXPECT_EQ(read_address(as_address(six), sizeof six, true, out), EAFNOSUPPORT);
  sockaddr_in four = at(1, 80);
  EXPECT_EQ(read_address(testing::as_address(four), sizeof four, true, out), EINVAL);
  EXPECT_EQ(read_address(nullptr, sizeof four, true, out), EINVAL);
}

TEST(Family, NamesAreTruncatedAsTheKernelDoes) {
  sockaddr_in6 in{};
  socklen_t length = 4;
  write_address({call::ipv6_loopback, 80}, true, as_address(in), &length);
  EXPECT_EQ(length, sizeof in);
  EXPECT_EQ(ntohs(in.sin6_port), 80);
  EXPECT_TRUE(IN6_IS_ADDR_UNSPECIFIED(&in.sin6_addr));
}

struct Case {
  bool only, datagram;
  const char* bound;  // null: not
  const char* remote;
  int error;
  u32 address;  // of no error
};

TEST(Family, ARemoteOfTheOtherFamilyGetsLinuxsErrors) {
  constexpr u32 loopback4 = INADDR_LOOPBACK, loopback6 = call::ipv6_loopback;
  const Case cases[] = {
      {false, false, nullptr, "::", 0, loopback6},
      {false, false, nullptr, "::ffff:127.0.0.1", 0, loopback4},
      {true, false, nullptr, "::ffff:127.0.0.1", ENETUNREACH, 0},
      {true, true, nullptr, "::ffff:127.0.0.1", ENETUNREACH, 0},
      {true, false, nullptr, "::1", 0, loopback6},
      {false, false, "::ffff:127.0.0.1", "::1", EAFNOSUPPORT, 0},
      {false, false, "::ffff:0.0.0.0", "2001:db8::1", EAFNOSUPPORT, 0},
      {false, false, "::ffff:127.0.0.1", "::", 0, loopback4},
      {false, true, "::1", "::ffff:127.0.0.1", ENETUNREACH, 0},
      {false, false, "::", "::ffff:127.0.0.1", 0, loopback4},
      {false, false, "::", "::1", 0, loopback6},
  };
  for (const Case& c : cases) {
    Socket socket{};
    socket.ipv6 = true;
    socket.ipv6_only = c.only;
    socket.datagram = c.datagram;
    if (c.bound != nullptr) note_bound(&socket, {inside(c.bound), 80});
    sockaddr_in6 in = at6(c.remote, 80);
    for (const auto read : {read_remote, read_target}) {
      Ipv4Endpoint remote{};
      EXPECT_EQ(read(&socket, as_address(in), sizeof in, remote), c.error) << c.remote;
      if (c.error == 0) {
        EXPECT_EQ(remote.address, c.address) << c.remote;
      }
    }
  }
}

// As udpv6_sendmsg and ip6_datagram_connect: a datagram socket takes IPv4's form too.
TEST(Family, ADatagramSocketTakesAddressesOfIpv4) {
  Socket socket{};
  socket.ipv6 = socket.datagram = true;
  sockaddr_in in = at(INADDR_LOOPBACK, 80);
  Ipv4Endpoint remote{};
  EXPECT_EQ(read_remote(&socket, testing::as_address(in), sizeof in, remote), 0);
  EXPECT_EQ(remote.address, u32{INADDR_LOOPBACK});
  EXPECT_EQ(read_target(&socket, testing::as_address(in), sizeof in, remote), 0);
  socket.ipv6_only = true;
  EXPECT_EQ(read_remote(&socket, testing::as_address(in), sizeof in, remote), EAFNOSUPPORT);
  EXPECT_EQ(read_target(&socket, testing::as_address(in), sizeof in, remote), ENETUNREACH);
  sockaddr_in6 six = at6("::1", 80);
  six.sin6_family = AF_UNSPEC;
  EXPECT_EQ(read_target(&socket, as_address(six), sizeof six, remote), EDESTADDRREQ);
  six.sin6_family = 77;
  EXPECT_EQ(read_target(&socket, as_address(six), sizeof six, remote), EINVAL);
  six = at6("::1", 0);
  EXPECT_EQ(read_target(&socket, as_address(six), sizeof six, remote), EINVAL);
}

TEST(Family, ABindOfOnlyIpv6IsNotForIpv4) {
  Socket socket{};
  socket.ipv6 = socket.ipv6_only = true;
  Ipv4Endpoint local{};
  sockaddr_in6 in = at6("::ffff:127.0.0.1", 80);
  EXPECT_EQ(read_local(&socket, as_address(in), sizeof in, local), EINVAL);
  in = at6("::", 80);
  EXPECT_EQ(read_local(&socket, as_address(in), sizeof in, local), 0);
  EXPECT_EQ(local.address, call::ipv6_any);
  EXPECT_EQ(unnamed_address(&socket), call::ipv6_any);
}

int option(int fd, int level, int name) {
  int value = -77;
  socklen_t length = sizeof value;
  return cob_getsockopt(fd, level, name, &value, &length) == 0 ? value : -errno;
}
int set(int fd, int level, int name, int value) {
  return cob_setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : errno;
}

TEST(Family, OptionsAreKeptCheckedAndRefusedAsByLinux) {
  kernel();
  const int four = cob_socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(option(four, SOL_SOCKET, SO_DOMAIN), AF_INET);
  EXPECT_EQ(option(four, IPPROTO_IPV6, IPV6_V6ONLY), -EOPNOTSUPP);
  EXPECT_EQ(set(four, IPPROTO_IPV6, IPV6_V6ONLY, 1), ENOPROTOOPT);
  cob_close(four);
  for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
    const int fd = cob_socket(AF_INET6, type, 0);
    ASSERT_TRUE(is_cob(fd));
    EXPECT_EQ(option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET6);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_V6ONLY), 0);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 7), 0);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_V6ONLY), 1);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 64);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 256), EINVAL);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9), 0);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 9);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, -1), 0);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 64);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_TCLASS, 6), 0);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_TCLASS), type == SOCK_STREAM ? 4 : 6);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER), 1);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, 6), EINVAL);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_MTU, 1'279), EINVAL);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_MTU, 1'280), 0);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_MTU, 0), 0);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_MTU), -ENOTCONN);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 5), 0);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_DONTFRAG), 1);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 3), 0);
    EXPECT_EQ(option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO), 1);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 3), type == SOCK_STREAM ? ENOPROTOOPT : 0);
    EXPECT_EQ(set(fd, IPPROTO_IPV6, 9999, 1), ENOPROTOOPT);
    EXPECT_EQ(option(fd, IPPROTO_IP, IP_TTL), 64);  // IPv4's options are there too
    const char byte = 1;
    errno = 0;
    EXPECT_EQ(cob_setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &byte, 1), -1);
    EXPECT_EQ(errno, EINVAL);
    cob_close(fd);
  }
}

TEST(Family, WhoIsBoundKeepsToItsFamilies) {
  kernel();
  const int fd = cob_socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 in = at6("::", 4'601);
  ASSERT_EQ(cob_bind(fd, as_address(in), sizeof in), 0);
  EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1), EINVAL);
  cob_close(fd);
  const int six = cob_socket(AF_INET6, SOCK_STREAM, 0);
  in = at6("::1", 4'603);
  ASSERT_EQ(cob_bind(six, as_address(in), sizeof in), 0);
  EXPECT_EQ(option(six, IPPROTO_IPV6, IPV6_V6ONLY), 1);
  cob_close(six);
}

TEST(Family, BothEndsSeeMappedAddresses) {
  kernel();
  const int listener = cob_socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 in = at6("::", 4'600);
  ASSERT_EQ(cob_bind(listener, as_address(in), sizeof in), 0);
  ASSERT_EQ(cob_listen(listener, 4), 0);
  const int client = cob_socket(AF_INET6, SOCK_STREAM, 0);
  in = at6("::ffff:10.77.0.1", 4'600);
  ASSERT_EQ(cob_connect(client, as_address(in), sizeof in), 0);
  sockaddr_in6 peer{};
  socklen_t length = sizeof peer;
  const int server = cob_accept4(listener, as_address(peer), &length, 0);
  ASSERT_GE(server, 0);
  EXPECT_EQ(length, sizeof peer);
  EXPECT_EQ(peer.sin6_family, AF_INET6);
  EXPECT_EQ(from_ipv6(peer.sin6_addr), FakeKernel::address);
  EXPECT_TRUE(IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr));
  EXPECT_EQ(option(server, SOL_SOCKET, SO_DOMAIN), AF_INET6);
  sockaddr_in6 own{};
  length = sizeof own;
  ASSERT_EQ(cob_getsockname(client, as_address(own), &length), 0);
  EXPECT_EQ(length, sizeof own);
  EXPECT_EQ(own.sin6_port, peer.sin6_port);
  length = sizeof peer;
  ASSERT_EQ(cob_getpeername(client, as_address(peer), &length), 0);
  EXPECT_EQ(ntohs(peer.sin6_port), 4'600);
  EXPECT_TRUE(IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr));
  for (const int fd : {listener, client, server}) cob_close(fd);
}

TEST(Family, AListenerOnTheWildcardIsShownAsIt) {
  kernel();
  const int fd = cob_socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 own{};
  socklen_t length = sizeof own;
  ASSERT_EQ(cob_getsockname(fd, as_address(own), &length), 0);
  EXPECT_TRUE(own.sin6_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&own.sin6_addr));
  sockaddr_in6 in = at6("::", 4'602);
  ASSERT_EQ(cob_bind(fd, as_address(in), sizeof in), 0);
  ASSERT_EQ(cob_getsockname(fd, as_address(own), &length), 0);
  EXPECT_TRUE(IN6_IS_ADDR_UNSPECIFIED(&own.sin6_addr));
  EXPECT_EQ(ntohs(own.sin6_port), 4'602);
  cob_close(fd);
}

// What is not the cob's goes to a host socket of the same family, with what was set before.
TEST(Family, AnotherAddressMakesAHostSocketOfTheFamily) {
  kernel();
  const int fd = cob_socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
  ASSERT_EQ(set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1), 0);
  sockaddr_in6 in = at6("2001:db8::77", 9);
  EXPECT_EQ(cob_connect(fd, as_address(in), sizeof in), -1);
  EXPECT_FALSE(is_cob(fd));
  int value = 0;
  socklen_t length = sizeof value;
  ASSERT_EQ(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &length), 0);
  EXPECT_EQ(value, AF_INET6);
  ASSERT_EQ(getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &value, &length), 0);
  EXPECT_EQ(value, 1);
  ::close(fd);
}

TEST(Family, AGroupOfIpv6sMakesAHostSocket) {
  kernel();
  const int fd = cob_socket(AF_INET6, SOCK_DGRAM, 0);
  ipv6_mreq group{};
  ASSERT_EQ(inet_pton(AF_INET6, "ff02::1234", &group.ipv6mr_multiaddr), 1);
  (void)cob_setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &group, sizeof group);
  EXPECT_FALSE(is_cob(fd));
  ::close(fd);
}

}  // namespace
}  // namespace cob::shim::testing
