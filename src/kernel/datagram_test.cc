// Datagram sockets, tested with programs that are played by the test (one_kernel.h): queueing,
// bounds, seats, ports, what a hostile program may not do. docs/calls.md, "Datagrams".
#include "kernel/datagram.h"

#include "kernel/one_kernel.h"

namespace cob::kernel {
namespace {

class Datagrams : public OneKernel {
 protected:
  static constexpr net::Ipv4Address us = cob_address;

  i32 bind(Program& p, u32 number, net::Endpoint local, bool reuse_port = false) {
    sockets_.bind_datagram(p, number, local, false, reuse_port,
                           {.program = p.id(), .sequence = ++sequence_});
    return answered(p);
  }
  u32 bound(Program& p, u32 number, u16 port, bool reuse_port = false) {
    open(p, number);
    EXPECT_EQ(bind(p, number, {us, Port(port)}, reuse_port), 0);
    EXPECT_EQ(p.ours(number).state, call::SocketState::datagram);
    return number;
  }
  call::CallSlot post(std::size_t bytes, u16 port, u32 chunk) {
    call::CallSlot slot{};
    slot.op = call::Op::send_to;
    slot.a[0] = bytes | u64{7} << 48 | u64{33} << 56;
    slot.a[1] = us.value | u64{port} << 32;
    for (u32 i = 0; i < call::chunks_in_send_to && u64{i} * call::chunk_bytes < bytes; ++i)
      slot.a[3 + i / 2] |= u64{chunk + i} << (i % 2 == 0 ? 0 : 32);
    return slot;
  }
  void send_to(Program& p, u32 number, const std::string& text, u16 port, u32 chunk = 0) {
    std::memcpy(p.arena().theirs().chunk[chunk], text.data(), text.size());
    sockets_.send_to(p, number, post(text.size(), port, chunk));
  }
  struct Got {
    call::DatagramHeader header;
    std::string data;
  };
  // Everything that waits, while the program has the seat.
  std::vector<Got> datagrams(Program& p, u32 number) {
    const std::string stream = receive(p, number);
    std::vector<Got> all;
    for (std::size_t at = 0; at < stream.size();) {
      Got& got = all.emplace_back();
      std::memcpy(&got.header, stream.data() + at, sizeof got.header);
      got.data = stream.substr(at + sizeof got.header, got.header.bytes);
      at += sizeof got.header + got.header.bytes;
    }
    return all;
  }
  i32 connect(Program& p, u32 number, net::Endpoint remote,
              call::DatagramConnect how = call::DatagramConnect::connect) {
    return sockets_.connect_datagram(p, number, remote, how, {});
  }
  u32 sequence_ = 0;
};

TEST_F(Datagrams, ADatagramArrivesWithItsHeaderAndItsChunkComesBack) {
  Program& a = program();
  Program& b = program();
  bound(a, 1, 5'000);
  bound(b, 1, 53);
  send_to(a, 1, "query", 53, 9);
  EXPECT_EQ(a.arena().send_chunks_held(), 0u);  // copied out at once
  EXPECT_EQ(a.ours(1).acknowledged, 5u + sizeof(call::DatagramHeader));
  send_to(a, 1, "", 53);
  step(10);
  const auto got = datagrams(b, 1);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].data, "query");
  EXPECT_EQ(got[0].header.remote_address, us.value);
  EXPECT_EQ(got[0].header.remote_port, 5'000);
  EXPECT_EQ(got[0].header.local_address, us.value);
  EXPECT_EQ(got[0].header.type_of_service, 7);
  EXPECT_EQ(got[0].header.time_to_live, 33);
  EXPECT_TRUE(got[1].data.empty());
}

TEST_F(Datagrams, ALongOneNamesItsChunksInAList) {
  Program& a = program();
  bound(a, 1, 5'000);
  std::string text(call::max_datagram_ipv4, 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 31 >> 3);
  constexpr u32 list = 100;
  for (u32 i = 0; i < call::max_datagram_chunks; ++i) {
    const std::size_t at = std::size_t{i} * call::chunk_bytes;
    std::memcpy(a.arena().theirs().chunk[i], text.data() + at,
                std::min<std::size_t>(call::chunk_bytes, text.size() - at));
    std::memcpy(a.arena().theirs().chunk[list] + i * sizeof i, &i, sizeof i);
  }
  call::CallSlot slot = post(0, 5'000, 0);
  slot.a[0] |= text.size() | u64{call::datagram_listed} << 32;
  slot.a[3] = list;
  sockets_.send_to(a, 1, slot);
  step(10);
  const auto got = datagrams(a, 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_TRUE(got[0].data == text);
  EXPECT_EQ(a.arena().send_chunks_held(), 0u);
}

TEST_F(Datagrams, ChunksThatAreNotTheProgramsEndIt) {
  Program& a = program();
  bound(a, 1, 5'000);
  sockets_.send_to(a, 1, post(1, 53, call::send_chunks));
  EXPECT_EQ(std::exchange(fault_, ""), "datagram of chunks that are not the program's");
  call::CallSlot twice = post(2 * call::chunk_bytes, 53, 4);
  twice.a[3] = u64{4} | u64{4} << 32;
  sockets_.send_to(a, 1, twice);
  EXPECT_NE(std::exchange(fault_, ""), "");
  EXPECT_EQ(a.arena().send_chunks_held(), 0u);
  sockets_.send_to(a, 1, post(call::max_datagram + 1, 53, 0));
  EXPECT_NE(std::exchange(fault_, ""), "");
  sockets_.send_to(a, 1, post(7 * call::chunk_bytes, 53, 0));  // more than a slot names
  EXPECT_NE(std::exchange(fault_, ""), "");
  call::CallSlot listed = post(1, 53, 0);
  listed.a[0] |= u64{call::datagram_listed} << 32;
  listed.a[3] = 0xffff'ffff;
  sockets_.send_to(a, 1, listed);
  EXPECT_NE(std::exchange(fault_, ""), "");
}

constexpr i64 header_bytes = sizeof(call::DatagramHeader);

TEST_F(Datagrams, AFullQueueDropsAndCounts) {
  Program& a = program();
  bound(a, 1, 5'000);
  call::CallSlot option{};
  option.a[0] = static_cast<u64>(call::SocketOption::receive_buffer);
  option.a[1] = 4'096;
  sockets_.set_option(a, 1, option);
  for (int i = 0; i < 20; ++i) send_to(a, 1, std::string(1'000, 'x'), 5'000);
  step(10);
  // The fourth finds less than the limit and goes beyond it; then it is full.
  EXPECT_EQ(datagrams(a, 1).size(), 4u);
  EXPECT_EQ(sockets_.counters().datagrams_dropped, 16u);
  send_to(a, 1, "again", 5'000);
  step(10);
  EXPECT_EQ(datagrams(a, 1).size(), 1u);
}

TEST_F(Datagrams, UnreadOnesGoOverToAnotherHolderWhole) {
  Program& a = program();
  Program& b = program();
  bound(a, 1, 5'000);
  send_to(a, 1, "first", 5'000);
  send_to(a, 1, std::string(5'000, 'y'), 5'000);
  step(10);
  Description& d = *a.slot(1).description;
  sockets_.hold(b, 2, d, 1);
  EXPECT_TRUE((b.ours(2).flags & call::flag_shared) != 0);
  ASSERT_TRUE(sockets_.claim_seat(d));
  EXPECT_EQ(b.ours(2).events & call::ready_in, call::ready_in);
  u64 chunk = 0;
  EXPECT_EQ(sockets_.receive_datagram(b, 2, true, &chunk), header_bytes + 5);  // peeked
  EXPECT_EQ(sockets_.receive_datagram(b, 2, false, &chunk), header_bytes + 5);
  call::DatagramHeader header;
  std::memcpy(&header, b.arena().chunk_payload(static_cast<u32>(chunk)), sizeof header);
  EXPECT_EQ(header.bytes, 5u);
  EXPECT_EQ(sockets_.receive_datagram(a, 1, false, &chunk), header_bytes + 5'000);
  u32 chunks = 0;
  for (u32 at = static_cast<u32>(chunk); at != call::no_chunk; at = a.arena().chunk_header(at).next)
    ++chunks;
  EXPECT_EQ(chunks, 3u);
  EXPECT_EQ(sockets_.receive_datagram(a, 1, false, &chunk), -EAGAIN);
  // One holder: the seat comes back, with what came meanwhile.
  send_to(a, 1, "kept", 5'000);
  step(10);
  sockets_.let_go(b, 2, false);
  const u64 acknowledged = a.ours(1).acknowledged;
  ASSERT_TRUE(sockets_.give_seat_back(d));
  EXPECT_EQ(a.ours(1).acknowledged, acknowledged);
  EXPECT_EQ(datagrams(a, 1).front().data, "kept");
}

// A program that says it took less or more than a whole datagram deceives those it shares with, not
// the kernel.
TEST_F(Datagrams, AQueueLeftWithinADatagramIsDropped) {
  Program& a = program();
  Program& b = program();
  bound(a, 1, 5'000);
  send_to(a, 1, std::string(100, '\xff'), 5'000);
  step(10);
  Description& d = *a.slot(1).description;
  a.theirs(1).consumed += header_bytes + 4;
  sockets_.hold(b, 2, d, 1);
  ASSERT_TRUE(sockets_.claim_seat(d));
  u64 chunk = 0;
  EXPECT_EQ(sockets_.receive_datagram(b, 2, false, &chunk), -EAGAIN);
  EXPECT_EQ(d.kept.size(), 0u);
  send_to(a, 1, "next", 5'000);
  step(10);
  EXPECT_EQ(sockets_.receive_datagram(b, 2, false, &chunk), header_bytes + 4);
}

TEST_F(Datagrams, PortsAreASpaceOfTheirOwn) {
  Program& a = program();
  listener(a, 1, 80);
  bound(a, 2, 80);
  open(a, 3);
  EXPECT_EQ(bind(a, 3, {us, Port(80)}), -EADDRINUSE);
  EXPECT_EQ(bind(a, 3, {net::Ipv4Address{0x0808'0808}, Port(80)}), -EADDRNOTAVAIL);
  EXPECT_EQ(bind(a, 2, {us, Port(81)}), -EINVAL);  // bound already
  EXPECT_EQ(bind(a, 1, {us, Port(81)}), -EINVAL);  // a listener
  sockets_.let_go(a, 2, false);
  EXPECT_EQ(bind(a, 3, {us, Port(80)}), 0);
  sockets_.listen(a, 3, 1, {}, {.program = a.id(), .sequence = 99});
  EXPECT_EQ(answered(a), -EINVAL);
  EXPECT_EQ(sockets_.connect_local(a, 3, {us, Port(80)}, {}), -EISCONN);
}

TEST_F(Datagrams, AFirstSendBindsIfTheAddressIsTheCobs) {
  Program& a = program();
  open(a, 1);
  constexpr auto send = call::DatagramConnect::send;
  const net::Ipv4Address loopback{0x7f00'0001};
  EXPECT_EQ(connect(a, 1, {net::Ipv4Address{0x0808'0808}, Port(53)}, send), -EHOSTUNREACH);
  EXPECT_EQ(connect(a, 1, {loopback, Port(53)}, send), -EHOSTUNREACH);  // nobody of the cob's
  EXPECT_EQ(a.ours(1).state, call::SocketState::undecided);
  open(a, 2);
  EXPECT_EQ(bind(a, 2, {{}, Port(53)}), 0);
  EXPECT_EQ(connect(a, 1, {loopback, Port(53)}, send), 0);
  EXPECT_EQ(a.ours(1).state, call::SocketState::datagram);
  EXPECT_GE(a.arena().ours().names[1].local_port, 32'768);
  // Bound, it may only look whether the host is meant.
  EXPECT_EQ(connect(a, 1, {loopback, Port(54)}, call::DatagramConnect::look), -EHOSTUNREACH);
  EXPECT_EQ(connect(a, 1, {loopback, Port(54)}, send), 0);
}

TEST_F(Datagrams, AConnectedOneHearsItsPeerOnlyAndOfRefusals) {
  Program& a = program();
  bound(a, 1, 5'000);
  bound(a, 2, 5'001);
  open(a, 3);
  ASSERT_EQ(connect(a, 3, {us, Port(5'000)}), 0);
  const u16 port = a.arena().ours().names[3].local_port;
  EXPECT_EQ(a.arena().ours().names[3].remote_port, 5'000);
  send_to(a, 2, "another", port);
  send_to(a, 1, "the peer", port);
  step(10);
  const auto got = datagrams(a, 3);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].data, "the peer");
  sockets_.let_go(a, 1, false);
  call::CallSlot connected_send = post(0, 0, 0);
  connected_send.a[1] = 0;
  sockets_.send_to(a, 3, connected_send);
  step(20);
  EXPECT_EQ(a.ours(3).error, ECONNREFUSED);
  call::CallSlot taken{};
  taken.a[0] = static_cast<u64>(call::SocketOption::error_taken);
  sockets_.set_option(a, 3, taken);
  EXPECT_EQ(a.ours(3).error, 0);
  ASSERT_EQ(connect(a, 3, {}, call::DatagramConnect::dissolve), 0);
  EXPECT_EQ(a.arena().ours().names[3].local_port, 0);  // nobody had named it
}

TEST_F(Datagrams, GroupsAreJoinedBeforeAndAfterBind) {
  Program& a = program();
  const net::Ipv4Address group{0xef01'0203};
  open(a, 1);
  EXPECT_EQ(sockets_.change_membership(a, 1, us, true), -EINVAL);
  EXPECT_EQ(sockets_.change_membership(a, 1, group, true), 0);
  EXPECT_EQ(sockets_.change_membership(a, 1, group, true), -EADDRINUSE);
  EXPECT_EQ(bind(a, 1, {{}, Port(7'000)}, true), 0);
  open(a, 2);
  EXPECT_EQ(bind(a, 2, {{}, Port(7'000)}, true), 0);
  EXPECT_EQ(sockets_.change_membership(a, 2, group, true), 0);
  call::CallSlot to_group = post(0, 7'000, 0);
  to_group.a[1] = group.value | u64{7'000} << 32;
  sockets_.send_to(a, 1, to_group);
  step(10);
  EXPECT_EQ(datagrams(a, 1).size(), 1u);
  EXPECT_EQ(datagrams(a, 2).size(), 1u);
  EXPECT_EQ(sockets_.change_membership(a, 2, group, false), 0);
  EXPECT_EQ(sockets_.change_membership(a, 2, group, false), -EADDRNOTAVAIL);
  to_group.a[0] |= u64{call::datagram_no_loop} << 32;
  sockets_.send_to(a, 2, to_group);
  step(10);
  EXPECT_TRUE(datagrams(a, 1).empty());
  for (u32 i = 0; i + 1 < net::max_udp_groups; ++i)
    EXPECT_EQ(sockets_.change_membership(a, 1, net::Ipv4Address{0xef02'0000 + i}, true), 0);
  EXPECT_EQ(sockets_.change_membership(a, 1, net::Ipv4Address{0xef03'0000}, true), -ENOBUFS);
}

}  // namespace
}  // namespace cob::kernel
