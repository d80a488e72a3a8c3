// Programs that move between two kernels in simulated time, with connections, listeners, queued
// bytes and refusals. docs/moving.md.
#include <gtest/gtest.h>

#include "kernel/honest_program.h"

namespace cob::kernel::test {
namespace {

std::optional<MoveReport> report_of(TwoKernels& kernels, FdRef socket,
                                    const std::function<void()>& meanwhile) {
  MoveReport report;
  const bool came = kernels.until(
      [&] {
        meanwhile();
        const auto got = receive_datagram(socket, std::as_writable_bytes(std::span(&report, 1)),
                                          Blocking::never);
        return !got.is_error() && got.value().bytes == sizeof report;
      },
      Duration::seconds(10));
  return came ? std::optional(report) : std::nullopt;
}

std::string pattern(u32 seed, std::size_t bytes) {
  std::string text(bytes, '\0');
  u32 x = seed * 2654435761u + 1;
  for (char& c : text) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    c = static_cast<char>(x);
  }
  return text;
}

class Moving : public testing::Test {
 protected:
  // The one that attached to `from` last goes to `to`; both programs work meanwhile.
  MoveReport move(Honest& who, u16 from, u16 to, const std::function<void()>& meanwhile) {
    const u32 moves = who.program().moves();
    const Fd socket = kernels.move(from, to);
    const auto report = report_of(kernels, socket.ref(), [&] {
      who.expect_alive();
      meanwhile();
    });
    EXPECT_TRUE(report.has_value());
    if (!report) return {};
    if (report->error == 0) {
      EXPECT_TRUE(kernels.until([&] {
        who.expect_alive();
        return who.program().moves() == moves + 1;
      }));
    }
    return *report;
  }

  TwoKernels kernels;
};

TEST_F(Moving, AServerGoesToAndFroUnderItsConnections) {
  HonestPair pair(kernels);
  u16 at = 0;
  for (int round = 0; round < 20; ++round) {
    const u16 to = at == 0 ? 1 : 0;
    const MoveReport report = move(pair.server(), at, to, [&] { pair.turn(); });
    ASSERT_EQ(report.error, 0) << report.text;
    at = to;
    pair.expect_service();
  }
}

TEST_F(Moving, AClientGoesToItsServersKernelAndBack) {
  HonestPair pair(kernels);
  for (int round = 0; round < 10; ++round) {
    // Both have pid 7: who attached, or came, last is meant.
    MoveReport report = move(pair.client(), 1, 0, [&] { pair.turn(); });
    ASSERT_EQ(report.error, 0) << report.text;
    pair.expect_service();
    report = move(pair.client(), 0, 1, [&] { pair.turn(); });
    ASSERT_EQ(report.error, 0) << report.text;
    pair.expect_service();
  }
}

// More than a window each way while the server moves at every chance.
TEST_F(Moving, NoByteIsLostOrDoubledUnderTraffic) {
  Honest server(kernels, 0), client(kernels, 1);
  server.listen(80);
  constexpr u32 connections = 8;
  constexpr std::size_t bytes = 700'000;
  std::vector<u32> slots;
  std::vector<std::string> sent(connections), got(connections);
  for (u32 i = 0; i < connections; ++i) {
    slots.push_back(client.connect(80));
    sent[i] = pattern(i, bytes);
  }
  // The server keeps no more than 64 KiB of what it has yet to say.
  std::vector<std::size_t> said(connections);
  const auto work = [&] {
    server.turn();
    for (u32 i = 0; i < connections; ++i) {
      const std::size_t more = std::min(bytes - said[i], got[i].size() + 40'000 - said[i]);
      client.send(slots[i], sent[i].substr(said[i], more));
      said[i] += more;
      got[i] += client.receive(slots[i]);
    }
  };
  const auto all_here = [&] {
    return std::all_of(got.begin(), got.end(), [](const auto& g) { return g.size() >= bytes; });
  };
  u16 at = 0;
  u32 moves = 0;
  while (!all_here() && moves < 400) {
    const u16 to = at == 0 ? 1 : 0;
    const MoveReport report = move(server, at, to, work);
    ASSERT_EQ(report.error, 0) << report.text;
    at = to;
    ++moves;
  }
  ASSERT_TRUE(kernels.until([&] {
    work();
    return all_here();
  }));
  EXPECT_GE(moves, 3u);
  for (u32 i = 0; i < connections; ++i) EXPECT_EQ(got[i], sent[i]) << i;
}

// Room that came before and was not told yet: an edge that nobody else would count.
TEST_F(Moving, WhoWaitsForRoomHearsOfItAfterwards) {
  HonestPair pair(kernels);
  Honest& client = pair.client();
  const u32 slot = client.connect(80);
  client.send(slot, "x");
  ASSERT_TRUE(pair.until([&] {
    client.send(slot, {});
    return !client.receive(slot).empty();
  }));
  publish(client.program().own_line(slot).want_space, u16{1});
  const u32 before = client.program().line(slot).change;
  const MoveReport report = move(client, 1, 0, [&] { pair.turn(); });
  ASSERT_EQ(report.error, 0) << report.text;
  EXPECT_NE(client.program().line(slot).change, before);
}

// A SYN, a reply or an end that is lost on the way comes again after 200 ms or a second: none is.
TEST_F(Moving, ShortConnectionsDoNotStallWhileTheirListenerMoves) {
  Honest server(kernels, 0), client(kernels, 1);
  server.listen(80);
  struct Short {
    u32 slot;
    Time began;
    std::string got;
  };
  std::vector<Short> open;
  u32 done = 0;
  Duration longest{};
  const auto work = [&] {
    server.turn();
    while (open.size() < 4) {
      open.push_back({client.connect(80), kernels.now(), {}});
      client.send(open.back().slot, "short");
    }
    std::erase_if(open, [&](Short& one) {
      client.send(one.slot, {});
      one.got += client.receive(one.slot);
      if (one.got.size() < 5) return false;
      longest = std::max(longest, kernels.now() - one.began);
      client.close(one.slot);
      ++done;
      return true;
    });
  };
  u16 at = 0;
  for (int round = 0; round < 60; ++round) {
    const u16 to = at == 0 ? 1 : 0;
    const MoveReport report = move(server, at, to, work);
    ASSERT_EQ(report.error, 0) << report.text;
    at = to;
    for (int i = 0; i < round; ++i) {
      work();
      kernels.turns(1);
    }
  }
  ASSERT_TRUE(kernels.until([&, enough = done + 20] {
    work();
    return done >= enough;
  }));
  EXPECT_GT(done, 100u);
  EXPECT_LT(longest, Duration::milliseconds(100)) << longest.to_us() << " us";
}

TEST_F(Moving, BothEndsInOneProgramStayTogether) {
  Honest program(kernels, 0);
  program.listen(80);
  const u32 slot = program.connect(80);
  std::string got;
  u16 at = 0;
  for (int round = 0; round < 6; ++round) {
    program.send(slot, "again ");
    ASSERT_TRUE(kernels.until([&] {
      program.turn();
      program.send(slot, {});
      got += program.receive(slot);
      return got.size() == static_cast<std::size_t>(round + 1) * 6;
    }));
    const u16 to = at == 0 ? 1 : 0;
    const MoveReport report = move(program, at, to, [&] { program.turn(); });
    ASSERT_EQ(report.error, 0) << report.text;
    at = to;
  }
}

// The connection waits in the listener's queue, or is offered and not taken.
TEST_F(Moving, ConnectionsNotAcceptedYetGoAlong) {
  Honest server(kernels, 0), client(kernels, 1);
  server.listen(80);
  std::vector<u32> slots;
  for (int i = 0; i < 5; ++i) slots.push_back(client.connect(80));
  ASSERT_TRUE(
      kernels.until([&] { return client.state(slots[4]) == call::SocketState::connected; }));
  const MoveReport report = move(server, 0, 1, [] {});
  ASSERT_EQ(report.error, 0) << report.text;
  for (const u32 slot : slots) {
    client.send(slot, "late");
    std::string got;
    ASSERT_TRUE(kernels.until([&] {
      server.turn();
      client.send(slot, {});
      got += client.receive(slot);
      return got == "late";
    }));
  }
}

TEST_F(Moving, ThePortStaysTakenAndIsFreeAfterwards) {
  Honest server(kernels, 0), client(kernels, 1);
  server.listen(80);
  server.listen(81);
  ASSERT_EQ(move(server, 0, 1, [] {}).error, 0);
  for (const u16 port : {u16{80}, u16{81}}) EXPECT_EQ(client.try_port(port), -EADDRINUSE);
  server.program().die();
  kernels.host_turn();
  for (const u16 port : {u16{80}, u16{81}})
    EXPECT_TRUE(kernels.until([&] { return client.try_port(port) == 0; }));
}

TEST_F(Moving, RefusalsLeaveItWhereItWas) {
  HonestPair pair(kernels);
  EXPECT_EQ(move(pair.server(), 0, 0, [] {}).error, EINVAL);
  EXPECT_EQ(move(pair.server(), 0, 9, [] {}).error, EINVAL);
  pair.expect_service();
}

// The other kernel says nothing, or no: the program is made anew out of its own image.
TEST_F(Moving, ATargetThatRefusesOrIsSilentChangesNothing) {
  HonestPair pair(kernels);
  for (const bool refuses : {true, false}) {
    auto [old_end, ours] = seqpacket_pair().release_value();
    const Fd report = kernels.move_by(0, 1, std::move(old_end));
    bool frozen = false;
    const auto said = report_of(kernels, report.ref(), [&] {
      pair.turn();
      MoveWord word;
      const auto got = receive_datagram(ours.ref(), std::as_writable_bytes(std::span(&word, 1)),
                                        Blocking::never);
      if (got.is_error()) return;
      MoveWord answer;
      if (word.step == static_cast<u32>(MoveStep::offer)) {
        answer.step = static_cast<u32>(MoveStep::ready);
        (void)send_struct(ours.ref(), answer, {}, Blocking::never);
      }
      if (word.step != static_cast<u32>(MoveStep::image)) return;
      frozen = true;
      answer.step = static_cast<u32>(MoveStep::refused);
      answer.error = ENFILE;
      std::strcpy(answer.text, "no room");
      if (refuses) (void)send_struct(ours.ref(), answer, {}, Blocking::never);
    });
    ASSERT_TRUE(said.has_value());
    EXPECT_EQ(said->error, refuses ? ENFILE : ETIMEDOUT);
    EXPECT_TRUE(frozen);
    pair.expect_service();
  }
}

// The words of a move: offer, program, ready, buttons, image, accepted, go, done. A kernel ends
// when it, or the other, has said the one of that number.
TEST_F(Moving, ADeathOfEitherKernelAtEachStep) {
  for (const u16 victim : {u16{0}, u16{1}})
    for (u32 step = 0; step < 8; ++step) {
      SCOPED_TRACE(testing::Message() << "kernel " << victim << ", word " << step);
      TwoKernels world;
      Honest client(world, static_cast<u16>(1 - victim)), server(world, 0);  // the last one moves
      server.listen(80);
      const u32 slot = client.connect(80);
      std::string got;
      const auto echoed = [&](const std::string& text) {
        got.clear();
        client.send(slot, text);
        return world.until(
            [&] {
              server.expect_alive();
              server.turn();
              client.send(slot, {});
              got += client.receive(slot);
              return got == text;
            },
            Duration::seconds(10));
      };
      ASSERT_TRUE(echoed("before"));
      auto [old_end, from_old] = seqpacket_pair().release_value();
      auto [new_end, to_new] = seqpacket_pair().release_value();
      world.move_in(1, 0, std::move(new_end));
      const Fd report = world.move_by(0, 1, std::move(old_end));
      u32 words = 0;
      const auto hand_on = [&](Fd& from, Fd& to) {
        if (!from.valid() || !to.valid()) return;
        auto heard = hear(from.ref());
        if (heard.is_error()) {
          if (heard.error().code != EAGAIN) to.reset();
          return;
        }
        if (words++ == step) world.end(victim);
        std::vector<FdRef> fds;
        for (const Fd& fd : heard.value().descriptors) fds.push_back(fd.ref());
        (void)send_struct(to.ref(), heard.value().word, fds, Blocking::never);
      };
      for (u32 turn = 0; turn < 400; ++turn) {
        hand_on(from_old, to_new);
        hand_on(to_new, from_old);
        world.turns(1, Duration::microseconds(turn % 4 == 0 ? 600 : 20));
      }
      ASSERT_GT(words, step);
      const bool lives = victim == 0 ? step >= 6 : step <= 4;  // `go`; before `accepted`
      EXPECT_EQ(server.program().take_answers(), lives);
      if (lives) {
        EXPECT_TRUE(echoed("after"));
      }
    }
}

// Whatever an image says, the kernel that takes it in lives on and serves others.
TEST_F(Moving, ForgedImagesAreRefused) {
  HonestPair pair(kernels);
  std::vector<std::byte> image;
  for (u32 seed = 0; seed < 300; ++seed) {
    // An honest image first, by a channel that never says go.
    if (image.empty()) {
      auto [old_end, ours] = seqpacket_pair().release_value();
      const Fd report = kernels.move_by(0, 1, std::move(old_end));
      Mapping memory;
      (void)report_of(kernels, report.ref(), [&] {
        MoveWord word;
        auto got = receive_datagram(ours.ref(), std::as_writable_bytes(std::span(&word, 1)),
                                    Blocking::never);
        if (got.is_error()) return;
        MoveWord answer;
        if (word.step == static_cast<u32>(MoveStep::offer)) {
          memory = map_foreign(got.value().descriptors[0].ref(), most_image_bytes, Writers::creator,
                               Access::read)
                       .release_value();
          answer.step = static_cast<u32>(MoveStep::ready);
        }
        if (word.step == static_cast<u32>(MoveStep::image)) {
          const auto bytes = memory.bytes().first(word.bytes);
          image.assign(bytes.begin(), bytes.end());
          answer.step = static_cast<u32>(MoveStep::refused);
        }
        if (answer.step != 0) (void)send_struct(ours.ref(), answer, {}, Blocking::never);
      });
      ASSERT_FALSE(image.empty());
      EXPECT_FALSE(MovedGroup::parse(image, nullptr).is_error());
    }
    auto forged = image;
    u32 x = seed * 2654435761u + 12345;
    for (u32 i = 0; i < 1 + seed % 8; ++i) {
      x = x * 1664525u + 1013904223u;
      forged[x % forged.size()] = static_cast<std::byte>(x >> 24);
    }
    if (seed % 7 == 0) forged.resize(x % forged.size());
    (void)MovedGroup::parse(std::move(forged), nullptr);
  }
  pair.expect_service();
}

}  // namespace
}  // namespace cob::kernel::test
