// The directory between kernels of one process: claims whose home lives, is down, is silent or
// comes back; rings that are full. Simulated time; the kernels are polled by hand.
#include "kernel/directory.h"

#include <gtest/gtest.h>

#include "message/messenger.h"

namespace cob::kernel {
namespace {

struct Peer {
  explicit Peer(u16 number, u32 own_epoch = 1, u16 kernels = 2)
      : id(number),
        epoch(own_epoch),
        directory(id, kernels),
        messenger(message::Messenger::create(id, own_epoch, kernels).release_value()) {
    directory.attach(*messenger);
    directory.on_claim_lost([this](u32 handle) { lost.push_back(handle); });
  }
  void poll(Time now) {
    messenger->poll(now, 64);
    directory.poll(now);
    messenger->flush();
  }

  KernelId id;
  u32 epoch;
  Directory directory;
  std::unique_ptr<message::Messenger> messenger;
  std::vector<u32> lost;
};

void connect(Peer& a, Peer& b) {
  for (auto [from, to] : {std::pair{&a, &b}, {&b, &a}}) {
    Fd memory = from->messenger->open_link(to->id, to->epoch).release_value();
    to->messenger->peer_up(from->id, from->epoch, std::move(memory)).release_value();
  }
  a.directory.peer_up(b.id);
  b.directory.peer_up(a.id);
}
void disconnect(Peer& a, const Peer& gone) {
  a.messenger->peer_down(gone.id, gone.epoch);
  a.directory.peer_down(gone.id);
}

PortClaim claim_of(const Peer& owner, u16 port, u32 handle, bool listening = false) {
  return {.local = {{}, Port(port)}, .owner = owner.id, .handle = handle, .listening = listening};
}

// What `done` was called with; nothing yet: 1.
struct Answer {
  i32 result = 1;
  int times = 0;
  Directory::Done done() {
    return [this](i32 r) { result = r, ++times; };
  }
};

constexpr Time start{1'000'000'000};

TEST(Directory, AHomeThatLivesDecides) {
  Peer a(0), b(1);
  connect(a, b);
  Answer first, second;
  a.directory.claim(claim_of(a, 81, 5), start, first.done());
  EXPECT_EQ(first.times, 0);
  a.poll(start);
  b.poll(start);
  a.poll(start);
  EXPECT_EQ(first.result, 0);
  b.directory.claim(claim_of(b, 81, 6), start, second.done());
  EXPECT_EQ(second.result, -EADDRINUSE);
}

// RFC 3493 section 5.3, and Linux's rules for it: claimed one after the other without options.
TEST(Directory, ClaimsOfTheTwoFamiliesConflictOnlyThroughADualOne) {
  using net::Ipv4Address;
  const Ipv4Address any4{}, loopback4{0x7f00'0001};
  const auto conflict = [](Ipv4Address first, Ipv4Address second, bool reuse) {
    const PortClaim a{
        .local = {second, Port(80)}, .owner = KernelId(0), .handle = 2, .reuse_address = reuse};
    const PortClaim b{
        .local = {first, Port(80)}, .owner = KernelId(0), .handle = 1, .reuse_address = reuse};
    EXPECT_EQ(claims_conflict(a, b), claims_conflict(b, a));
    return claims_conflict(a, b);
  };
  for (const Ipv4Address a : {any4, loopback4}) {
    EXPECT_TRUE(conflict(a, net::dual_any, false));
    EXPECT_FALSE(conflict(a, net::dual_any, true));
    EXPECT_FALSE(conflict(a, net::ipv6_any, false));
    EXPECT_FALSE(conflict(a, net::ipv6_loopback, false));
  }
  EXPECT_TRUE(conflict(net::ipv6_any, net::ipv6_loopback, false));
  EXPECT_TRUE(conflict(net::ipv6_any, net::dual_any, false));
  EXPECT_TRUE(conflict(net::dual_any, net::ipv6_loopback, false));
}

TEST(Directory, AListenerIsFoundAtTheAddressesOfItsFamilies) {
  Peer a(0), b(1);
  const net::Endpoint loopback4{{0x7f00'0001}, Port(80)}, loopback6{net::ipv6_loopback, Port(80)};
  const auto found = [&](net::Ipv4Address bound, net::Endpoint at) {
    a.directory.add_listener({bound, Port(80)});
    const bool there = a.directory.find_listener(at).has_value();
    a.directory.remove_listener({bound, Port(80)});
    return there;
  };
  EXPECT_TRUE(found({}, loopback4));
  EXPECT_FALSE(found({}, loopback6));
  EXPECT_TRUE(found(net::dual_any, loopback4));
  EXPECT_TRUE(found(net::dual_any, loopback6));
  EXPECT_FALSE(found(net::ipv6_any, loopback4));
  EXPECT_TRUE(found(net::ipv6_any, loopback6));
}

TEST(Directory, ADatagramIsForTheSocketOfItsOwnFamilyBeforeADualOne) {
  Peer a(0), b(1);
  connect(a, b);
  a.directory.add({{net::dual_any, Port(80)}, Transport::datagram});
  b.directory.add({{{}, Port(80)}, Transport::datagram});
  for (Peer* p : {&a, &b}) p->poll(start);
  a.poll(start);
  EXPECT_EQ(a.directory.find_datagram({{0x7f00'0001}, Port(80)}, 0), KernelId(1));
  EXPECT_EQ(a.directory.find_datagram({net::ipv6_loopback, Port(80)}, 0), KernelId(0));
  EXPECT_EQ(b.directory.find_datagram({net::ipv6_loopback, Port(80)}, 0), KernelId(0));
}

TEST(Directory, AListenerOutOfReachIsKnownAndOfferedToNobody) {
  Peer a(0), b(1);
  a.directory.set_out_of_reach({KernelId(1)});
  b.directory.set_out_of_reach({KernelId(0)});
  connect(a, b);
  const net::Endpoint port{net::Ipv4Address{0x0a4d0001}, Port(80)};
  b.directory.add_listener(port);
  b.directory.add({port, Transport::datagram});
  b.poll(start);
  a.poll(start);
  EXPECT_FALSE(a.directory.find_listener(port));
  EXPECT_FALSE(a.directory.listener_for(port, KernelId(1), 0));
  EXPECT_FALSE(a.directory.find_datagram(port, 0));
  EXPECT_TRUE(a.directory.listens_out_of_reach(port));
  EXPECT_FALSE(a.directory.listens_out_of_reach({port.address, Port(81)}));
  EXPECT_EQ(a.directory.refuser_of(Port(81)), KernelId(0));
  EXPECT_EQ(b.directory.find_listener(port), KernelId(1));

  Answer answer;  // claims cross all the same
  a.directory.claim(claim_of(a, 81, 5), start, answer.done());
  for (Peer* peer : {&a, &b, &a}) peer->poll(start);
  EXPECT_EQ(answer.result, 0);
  EXPECT_TRUE(b.directory.claimed_here(Port(81)));

  b.directory.remove_listener(port);
  b.poll(start);
  a.poll(start);
  EXPECT_FALSE(a.directory.listens_out_of_reach(port));
  b.directory.add_listener(port);
  b.poll(start);
  a.poll(start);
  disconnect(a, b);
  EXPECT_FALSE(a.directory.listens_out_of_reach(port));
}

TEST(Directory, AHomeThatIsDownGrantsAtOnceAndIsToldWhenItIsBack) {
  Peer a(0), b(1);
  Answer granted, refused;
  a.directory.claim(claim_of(a, 81, 5), start, granted.done());
  EXPECT_EQ(granted.times, 1);
  EXPECT_EQ(granted.result, 0);
  connect(a, b);
  a.poll(start);
  b.poll(start);
  b.directory.claim(claim_of(b, 81, 6), start, refused.done());
  EXPECT_EQ(refused.result, -EADDRINUSE);
}

TEST(Directory, AHomeThatDiesWithTheClaimUnansweredGrants) {
  Peer a(0), b(1);
  connect(a, b);
  Answer answer;
  a.directory.claim(claim_of(a, 81, 5), start, answer.done());
  EXPECT_EQ(answer.times, 0);
  disconnect(a, b);
  EXPECT_EQ(answer.times, 1);
  EXPECT_EQ(answer.result, 0);
}

TEST(Directory, ASilentHomeRefusesInTheEndAndKeepsNothing) {
  Peer a(0), b(1);
  connect(a, b);
  Answer answer, next;
  a.directory.claim(claim_of(a, 81, 5), start, answer.done());
  a.poll(start + Directory::claim_timeout - Duration::milliseconds(1));
  EXPECT_EQ(answer.times, 0);
  a.poll(start + Directory::claim_timeout);
  EXPECT_EQ(answer.result, -EADDRINUSE);
  // It wakes, grants what nobody waits for any more, and hears that it is over.
  b.poll(start);
  b.directory.claim(claim_of(b, 81, 6), start, next.done());
  EXPECT_EQ(next.result, 0);
  a.poll(start + Duration::seconds(9));
  EXPECT_EQ(answer.times, 1);
}

TEST(Directory, ASilentHomeDoesNotTakeWhatWasGrantedBefore) {
  Peer a(0), b(1);
  connect(a, b);
  Answer bound, listening, other;
  a.directory.claim(claim_of(a, 81, 5), start, bound.done());
  a.poll(start);
  b.poll(start);
  a.poll(start);
  ASSERT_EQ(bound.result, 0);
  a.directory.claim(claim_of(a, 81, 5, true), start, listening.done());
  a.poll(start + Directory::claim_timeout);
  EXPECT_EQ(listening.result, -EADDRINUSE);
  b.poll(start);
  b.directory.claim(claim_of(b, 81, 6), start, other.done());
  EXPECT_EQ(other.result, -EADDRINUSE);
}

TEST(Directory, ARefusedReclaimIsToldToItsOwner) {
  Peer a(0, 1, 3), b(1, 1, 3), c(2, 1, 3);
  Answer of_a, of_c;
  const u16 port = 82;  // home 1, which is down
  a.directory.claim(claim_of(a, port, 7, true), start, of_a.done());
  c.directory.claim(claim_of(c, port, 9, true), start, of_c.done());
  ASSERT_EQ(of_a.result, 0);
  ASSERT_EQ(of_c.result, 0);
  connect(a, b);
  a.poll(start);
  b.poll(start);
  connect(c, b);
  for (Peer* peer : {&c, &b, &c, &a}) peer->poll(start);
  EXPECT_TRUE(a.lost.empty());
  ASSERT_EQ(c.lost.size(), 1u);
  EXPECT_EQ(c.lost[0], 9u);
}

TEST(Directory, NothingIsLostToAFullRing) {
  Peer a(0), b(1);
  connect(a, b);
  // More than any ring holds, while the peer stands still.
  constexpr u32 many = 3'000;
  std::vector<Answer> answers(many);
  for (u32 i = 0; i < many; ++i) {
    const u16 port = static_cast<u16>(20'001 + 2 * i);
    a.directory.claim(claim_of(a, port, i + 1), start, answers[i].done());
    a.directory.add_listener({{}, Port(port)});
  }
  a.directory.remove_listener({{}, Port(20'001)});
  a.directory.unclaim({{}, Port(20'001)}, 1);
  EXPECT_LE(a.directory.next_deadline(), start + Directory::claim_timeout);
  for (int turn = 0; turn < 500; ++turn) {
    a.poll(start);
    b.poll(start);
  }
  for (const Answer& answer : answers) ASSERT_EQ(answer.times, 1);
  EXPECT_EQ(answers[many - 1].result, 0);
  EXPECT_EQ(b.directory.find_listener({{}, Port(20'001)}), std::nullopt);
  EXPECT_EQ(b.directory.find_listener({{}, Port(20'003)}), a.id);
  EXPECT_EQ(b.directory.find_listener({{}, Port(20'001 + 2 * (many - 1))}), a.id);
  EXPECT_FALSE(b.directory.claimed_here(Port(20'001)));
  EXPECT_TRUE(b.directory.claimed_here(Port(20'003)));
  EXPECT_EQ(a.directory.next_deadline(), Time::never());
}

TEST(Directory, AClaimThatFindsNoRoomFailsInTime) {
  Peer a(0), b(1);
  connect(a, b);
  for (u32 i = 0; i < 2'000; ++i) a.directory.add_listener({{}, Port(static_cast<u16>(2 * i + 1))});
  Answer answer;
  a.directory.claim(claim_of(a, 81, 5), start, answer.done());
  a.poll(start + Duration::seconds(1));
  EXPECT_EQ(answer.times, 0);
  // Room comes too late.
  for (int turn = 0; turn < 200; ++turn) {
    b.poll(start);
    a.poll(start + Directory::claim_timeout);
  }
  EXPECT_EQ(answer.times, 1);
  EXPECT_EQ(answer.result, -EADDRINUSE);
}

// Datagram sockets have ports of their own, and are found by address, kernel and hash.
TEST(Directory, DatagramSocketsAreFoundByTheBestMatch) {
  Peer a(0), b(1);
  connect(a, b);
  Answer stream, datagram, again;
  PortClaim claim = claim_of(a, 20'000, 1);
  a.directory.claim(claim, start, stream.done());
  claim.transport = Transport::datagram;
  claim.handle = 2;
  a.directory.claim(claim, start, datagram.done());
  claim.handle = 3;
  a.directory.claim(claim, start, again.done());
  EXPECT_EQ(stream.result, 0);
  EXPECT_EQ(datagram.result, 0);
  EXPECT_EQ(again.result, -EADDRINUSE);
  EXPECT_TRUE(a.directory.claimed_here(Port(20'000), Transport::datagram));
  a.directory.unclaim(claim.local, 2, Transport::datagram);
  EXPECT_FALSE(a.directory.claimed_here(Port(20'000), Transport::datagram));
  EXPECT_TRUE(a.directory.claimed_here(Port(20'000)));

  const net::Ipv4Address us{0x0a4d'0001}, group{0xef01'0203};
  const auto run = [&] {
    for (int i = 0; i < 5; ++i) {
      a.poll(start);
      b.poll(start);
    }
  };
  a.directory.add({{{}, Port(53)}, Transport::datagram, true});
  b.directory.add({{{}, Port(53)}, Transport::datagram, true});
  b.directory.add({{{}, Port(53)}, Transport::datagram, true});  // a second one there
  run();
  for (const Peer* p : {&a, &b}) {
    EXPECT_FALSE(p->directory.find_datagram({us, Port(54)}, 0));
    EXPECT_EQ(p->directory.find_datagram({us, Port(53)}, 0).has_value(), true);
    EXPECT_NE(p->directory.find_datagram({us, Port(53)}, 0),
              p->directory.find_datagram({us, Port(53)}, 0xffff'ffff));
  }
  EXPECT_FALSE(a.directory.find_listener({us, Port(53)}));
  b.directory.remove({{{}, Port(53)}, Transport::datagram, true});
  run();
  EXPECT_NE(a.directory.find_datagram({us, Port(53)}, 0),
            a.directory.find_datagram({us, Port(53)}, 0xffff'ffff));  // one is left there
  b.directory.add({{us, Port(53)}, Transport::datagram, false});
  run();
  EXPECT_EQ(a.directory.find_datagram({us, Port(53)}, 0), b.id);
  EXPECT_EQ(a.directory.find_datagram({us, Port(53)}, 0xffff'ffff), b.id);

  for (Peer* p : {&a, &b})
    for (int i = 0; i < 2; ++i) p->directory.add({{group, Port(53)}, Transport::datagram, i == 0});
  run();
  EXPECT_EQ(a.directory.find_group({group, Port(53)}, false).size(), 2u);
  EXPECT_TRUE(a.directory.find_group({group, Port(54)}, false).empty());
  EXPECT_EQ(a.directory.find_group({net::Ipv4Address{0xffff'ffff}, Port(53)}, true).size(), 2u);
  disconnect(a, b);
  EXPECT_EQ(a.directory.find_group({group, Port(53)}, false), std::vector<KernelId>{a.id});
  EXPECT_EQ(a.directory.find_datagram({us, Port(53)}, 0xffff'ffff), a.id);
}

// Kernels that may come later, or never, are asked for nothing.
TEST(Directory, OnlyTheFirstKernelsAreHomes) {
  const Directory directory(KernelId(4), 5, 3);
  for (u16 port = 1; port < 100; ++port)
    EXPECT_EQ(directory.home_of(Port(port)).value, port % 3) << port;
  EXPECT_EQ(Directory(KernelId(0), 5).home_of(Port(4)).value, 4);
}

}  // namespace
}  // namespace cob::kernel
