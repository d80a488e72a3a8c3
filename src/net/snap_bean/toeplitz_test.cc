// The hash against Microsoft's published vectors ("Verifying the RSS Hash Calculation"), and the
// symmetric key's property.
#include "net/snap_bean/toeplitz.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <random>

namespace cob::net {
namespace {

Ipv4Address v4(const char* text) {
  in_addr address{};
  EXPECT_EQ(::inet_pton(AF_INET, text, &address), 1);
  return {ntohl(address.s_addr)};
}
Ipv6Bytes v6(const char* text) {
  Ipv6Bytes address{};
  EXPECT_EQ(::inet_pton(AF_INET6, text, address.data()), 1);
  return address;
}

struct Vector {
  const char* destination;
  u16 destination_port;
  const char* source;
  u16 source_port;
  u32 addresses, with_ports;
};

TEST(Toeplitz, MicrosoftsVectorsForIpv4) {
  const Toeplitz hash;
  for (const Vector& v :
       {Vector{"161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e8fc2, 0x51ccc178},
        Vector{"65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718262a, 0xc626b0ea},
        Vector{"12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0a5de, 0x5c2b394a},
        Vector{"209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xafc7327f},
        Vector{"202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d1809c5, 0x10e828a2}}) {
    EXPECT_EQ(hash.hash(v4(v.source), v4(v.destination)), v.addresses) << v.source;
    const Endpoint from{v4(v.source), Port(v.source_port)};
    const Endpoint to{v4(v.destination), Port(v.destination_port)};
    EXPECT_EQ(hash.hash(from, to), v.with_ports) << v.source;
    EXPECT_EQ(hash.hash(from, {to.address, Port(0)}) ^ hash.destination_port(to.port),
              v.with_ports);
  }
}

TEST(Toeplitz, MicrosoftsVectorsForIpv6) {
  const Toeplitz hash;
  for (const Vector& v :
       {Vector{"3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc18cd5, 0x40207d3d},
        Vector{"ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c461c, 0xdde51bbf},
        Vector{"fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251,
               0x4b61e985, 0x02d1feef}}) {
    EXPECT_EQ(hash.hash(v6(v.source), v6(v.destination)), v.addresses) << v.source;
    EXPECT_EQ(
        hash.hash(v6(v.source), Port(v.source_port), v6(v.destination), Port(v.destination_port)),
        v.with_ports)
        << v.source;
  }
}

TEST(Toeplitz, TheSymmetricKeyHashesBothDirectionsAlike) {
  const Toeplitz symmetric(symmetric_key), usual;
  std::mt19937 random(3);
  int differ = 0;
  for (int i = 0; i < 1'000; ++i) {
    const Endpoint a{{static_cast<u32>(random())}, Port(static_cast<u16>(random()))};
    const Endpoint b{{static_cast<u32>(random())}, Port(static_cast<u16>(random()))};
    EXPECT_EQ(symmetric.hash(a, b), symmetric.hash(b, a));
    differ += usual.hash(a, b) != usual.hash(b, a) ? 1 : 0;
  }
  EXPECT_GT(differ, 990);
}

}  // namespace
}  // namespace cob::net
