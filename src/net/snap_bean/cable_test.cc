// Two cobs of several kernels in one process, their cables plugged together: steering, everyone's
// frames, full rings, sleep, deaths and new lives, and a hostile other end.
#include "net/snap_bean/cable.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "net/wire/arp.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmp.h"
#include "net/wire/ipv4.h"

namespace cob::net {
namespace {

constexpr Ipv4Address address_a{0x0a4d0001}, address_b{0x0a4d0002};
constexpr MacAddress mac_a{{2, 0xc0, 0xb0, 0x4d, 0, 1}}, mac_b{{2, 0xc0, 0xb0, 0x4d, 0, 2}};

struct Catch final : FrameSink {
  std::vector<std::vector<std::byte>> got;
  std::vector<bool> unsummed;
  void on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags) override {
    EXPECT_TRUE(from.is_uplink());
    got.emplace_back(frame.begin(), frame.end());
    unsummed.push_back(flags.checksum_not_computed);
  }
};

struct Cob {
  SteeringWriter steering;
  std::vector<u32> epochs;
  std::vector<std::unique_ptr<CableDevice>> kernel;

  explicit Cob(u16 kernels) : steering(SteeringWriter::create(kernels).release_value()) {
    epochs.resize(kernels, 1);
    kernel.resize(kernels);
    for (u16 i = 0; i < kernels; ++i) start(i);
  }
  void start(u16 i) { kernel[i] = CableDevice::create(KernelId(i), epochs[i]).release_value(); }
  std::size_t take(u16 i, std::size_t budget = 100'000) {
    Catch sink;
    return kernel[i]->poll(budget, sink);
  }
};

Fd copy_of(FdRef fd) { return Fd(::dup(fd.get())); }

// As the two supervisors do it for kernel i of one and kernel j of the other.
void wire(Cob& a, u16 i, Cob& b, u16 j) {
  auto [at_a, at_b] = make_cable_bell().release_value();
  const auto from_a = a.kernel[i]->open_wire(KernelId(j), b.epochs[j], std::move(at_a));
  const auto from_b = b.kernel[j]->open_wire(KernelId(i), a.epochs[i], std::move(at_b));
  ASSERT_FALSE(from_a.is_error() || from_b.is_error());
  ASSERT_FALSE(b.kernel[j]->wire_up(KernelId(i), a.epochs[i], copy_of(from_a.value())).is_error());
  ASSERT_FALSE(a.kernel[i]->wire_up(KernelId(j), b.epochs[j], copy_of(from_b.value())).is_error());
}
void join(Cob& a, Cob& b) {
  for (auto& kernel : a.kernel) ASSERT_FALSE(kernel->plug(b.steering.fd()).is_error());
  for (auto& kernel : b.kernel) ASSERT_FALSE(kernel->plug(a.steering.fd()).is_error());
  for (u16 i = 0; i < a.kernel.size(); ++i) {
    for (u16 j = 0; j < b.kernel.size(); ++j) wire(a, i, b, j);
  }
}

std::vector<std::byte> tcp_frame(Port source, Port destination, std::size_t bytes = 60) {
  struct Start {
    EthernetHeader ethernet;
    Ipv4Header ip;
    Be16 source, destination;
  } start{{mac_b, mac_a, ethernet_type_ipv4},
          emit_ipv4({address_a, address_b, ip_protocol_tcp, static_cast<u16>(bytes - 34)}, false),
          source.value,
          destination.value};
  std::vector<std::byte> frame(bytes, std::byte{7});
  std::memcpy(frame.data(), &start, sizeof start);
  return frame;
}

bool send(CableDevice& device, const std::vector<std::byte>& frame) {
  const auto room = device.reserve(Route::uplink(), frame.size());
  if (room.empty()) return false;
  EXPECT_EQ(room.size(), frame.size());
  std::ranges::copy(frame, room.begin());
  return device.commit(frame.size(), {.checksum_not_computed = true});
}

TEST(Cable, AnUnpluggedOneDropsAndCounts) {
  Cob a(1);
  EXPECT_FALSE(send(*a.kernel[0], tcp_frame(Port(1), Port(2))));
  EXPECT_EQ(a.kernel[0]->counters().dropped_route, 1u);
  EXPECT_EQ(a.take(0), 0u);
  EXPECT_FALSE(a.kernel[0]->plugged());
  EXPECT_EQ(a.kernel[0]->open_wire(KernelId(0), 1, Fd()).error().code, ENOTCONN);
}

TEST(Cable, CarriesFramesBothWaysAfterFlush) {
  Cob a(1), b(1);
  join(a, b);
  ASSERT_TRUE(send(*a.kernel[0], tcp_frame(Port(1), Port(2), 1'500)));
  EXPECT_FALSE(b.kernel[0]->anything_pending());
  EXPECT_EQ(b.take(0), 0u);
  a.kernel[0]->flush();
  EXPECT_TRUE(b.kernel[0]->anything_pending());
  Catch sink;
  ASSERT_EQ(b.kernel[0]->poll(10, sink), 1u);
  EXPECT_EQ(sink.got[0], tcp_frame(Port(1), Port(2), 1'500));
  EXPECT_TRUE(sink.unsummed[0]);
  EXPECT_FALSE(b.kernel[0]->anything_pending());
  const auto room = b.kernel[0]->reserve(Route::uplink(), 100);
  std::ranges::fill(room, std::byte{3});
  b.kernel[0]->commit(20, {});  // shorter than reserved, and no IP
  b.kernel[0]->flush();
  ASSERT_EQ(a.kernel[0]->poll(10, sink), 1u);
  EXPECT_EQ(sink.got[1], std::vector<std::byte>(20, std::byte{3}));
  EXPECT_FALSE(sink.unsummed[1]);
  EXPECT_EQ(a.kernel[0]->counters().bytes_out, 1'500u);
  EXPECT_EQ(a.kernel[0]->counters().bytes_in, 20u);
}

TEST(Cable, HasNoRouteInside) {
  Cob a(1), b(1);
  join(a, b);
  EXPECT_TRUE(a.kernel[0]->reserve(Route::inside(KernelId(0)), 60).empty());
  EXPECT_EQ(a.kernel[0]->counters().dropped_route, 1u);
}

TEST(Cable, EveryKernelSteersStraightToTheKernelThatTheOtherCobsTablesName) {
  Cob a(3), b(4);
  join(a, b);
  const SteeringReader tables = SteeringReader::open(b.steering.fd()).release_value();
  std::array<std::size_t, 4> expected{};
  for (u16 port = 1'000; port < 1'900; ++port) {
    ASSERT_TRUE(send(*a.kernel[port % 3], tcp_frame(Port(port), Port(80))));
    const auto kernel =
        tables.kernel_for(SteeredProtocol::tcp, {address_a, Port(port)}, {address_b, Port(80)});
    ++expected.at(kernel->value);
  }
  for (auto& kernel : a.kernel) kernel->flush();
  for (u16 j = 0; j < 4; ++j) {
    EXPECT_GT(expected[j], 100u);
    EXPECT_EQ(b.take(j), expected[j]);
  }
  // A listener on kernel 2 alone.
  ASSERT_FALSE(
      b.steering.steer_port(SteeredProtocol::tcp, Port(80), spread_over(std::array{KernelId(2)}))
          .is_error());
  for (u16 port = 1'000; port < 1'100; ++port)
    ASSERT_TRUE(send(*a.kernel[0], tcp_frame(Port(port), Port(80))));
  a.kernel[0]->flush();
  EXPECT_EQ(b.take(2), 100u);
  for (const u16 j : std::array<u16, 3>{0, 1, 3}) EXPECT_EQ(b.take(j), 0u);
}

TEST(Cable, AFrameIsBuiltWhereItGoesIfTheLastOneWentThere) {
  Cob a(1), b(2);
  join(a, b);
  for (int i = 0; i < 10; ++i)
    ASSERT_TRUE(send(*a.kernel[0], tcp_frame(Port(1), Port(80), 60'000)));
  EXPECT_EQ(a.kernel[0]->counters().copied, 1u);
  // Acknowledgements of another flow in between do not disturb the bulk.
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(send(*a.kernel[0], tcp_frame(Port(static_cast<u16>(i)), Port(81))));
    const u64 before = a.kernel[0]->counters().copied;
    ASSERT_TRUE(send(*a.kernel[0], tcp_frame(Port(1), Port(80), 60'000)));
    EXPECT_EQ(a.kernel[0]->counters().copied, before);
  }
  a.kernel[0]->flush();
  EXPECT_EQ(b.take(0) + b.take(1), 30u);
}

TEST(Cable, ArpRequestsGoToOneKernelAndRepliesToAll) {
  Cob a(1), b(3);
  join(a, b);
  const auto arp = [&](bool reply) {
    struct Frame {
      EthernetHeader ethernet;
      ArpHeader arp;
    } frame{{reply ? mac_b : broadcast_mac, mac_a, ethernet_type_arp},
            emit_arp({reply, mac_a, address_a, {}, address_b})};
    std::vector<std::byte> bytes(sizeof frame);
    std::memcpy(bytes.data(), &frame, sizeof frame);
    return bytes;
  };
  ASSERT_TRUE(send(*a.kernel[0], arp(false)));
  a.kernel[0]->flush();
  EXPECT_EQ(b.take(0), 1u);
  EXPECT_EQ(b.take(1) + b.take(2), 0u);
  for (int i = 0; i < 2; ++i) {  // built aside, then in a ring
    ASSERT_TRUE(send(*a.kernel[0], arp(true)));
    a.kernel[0]->flush();
    for (u16 j = 0; j < 3; ++j) {
      Catch sink;
      ASSERT_EQ(b.kernel[j]->poll(10, sink), 1u);
      EXPECT_EQ(sink.got[0], arp(true));
    }
  }
  // Kernel 0 is dead: the next one answers.
  a.kernel[0]->wire_down(KernelId(0), 1);
  ASSERT_TRUE(send(*a.kernel[0], arp(false)));
  a.kernel[0]->flush();
  EXPECT_EQ(b.take(1), 1u);
}

TEST(Cable, DropsAndCountsWhenFull) {
  Cob a(1), b(1);
  join(a, b);
  const auto frame = tcp_frame(Port(1), Port(2));
  for (u32 i = 0; i < message::frame_entries; ++i) ASSERT_TRUE(send(*a.kernel[0], frame));
  EXPECT_EQ(a.kernel[0]->counters().dropped_full, 0u);
  EXPECT_FALSE(send(*a.kernel[0], frame));
  EXPECT_EQ(a.kernel[0]->counters().dropped_full, 1u);
  a.kernel[0]->flush();
  EXPECT_EQ(b.take(0), message::frame_entries);
  ASSERT_TRUE(send(*a.kernel[0], frame));
  a.kernel[0]->flush();
  EXPECT_EQ(b.take(0), 1u);
  EXPECT_EQ(a.kernel[0]->wires(), 1u);
}

TEST(Cable, IsFairBetweenWires) {
  Cob a(2), b(1);
  join(a, b);
  for (int i = 0; i < 4'000; ++i) send(*a.kernel[0], tcp_frame(Port(1), Port(2)));
  send(*a.kernel[1], tcp_frame(Port(99), Port(2)));
  a.kernel[0]->flush();
  a.kernel[1]->flush();
  Catch sink;
  EXPECT_EQ(b.kernel[0]->poll(100, sink), 100u);
  EXPECT_EQ(std::ranges::count(sink.got, tcp_frame(Port(99), Port(2))), 1);
}

bool edge(FdRef fd) {  // as a level: the set of bells is readable
  pollfd waiting{fd.get(), POLLIN, 0};
  return ::poll(&waiting, 1, 0) == 1;
}

TEST(Cable, RingsASleeperOnceASleep) {
  Cob a(1), b(1);
  join(a, b);
  const auto frame = tcp_frame(Port(1), Port(2));
  const auto send_one = [&] {
    ASSERT_TRUE(send(*a.kernel[0], frame));
    a.kernel[0]->flush();
  };
  send_one();
  EXPECT_EQ(a.kernel[0]->counters().bells_rung, 0u);  // awake
  EXPECT_FALSE(edge(b.kernel[0]->wait_fd()));
  b.kernel[0]->set_armed(true);
  EXPECT_TRUE(b.kernel[0]->anything_pending());
  for (int i = 0; i < 10; ++i) send_one();
  EXPECT_EQ(a.kernel[0]->counters().bells_rung, 1u);
  EXPECT_TRUE(edge(b.kernel[0]->wait_fd()));
  b.kernel[0]->set_armed(false);
  send_one();
  EXPECT_EQ(a.kernel[0]->counters().bells_rung, 1u);
  b.kernel[0]->set_armed(true);
  send_one();
  EXPECT_EQ(a.kernel[0]->counters().bells_rung, 2u);
}

TEST(Cable, ABellIsNeverFull) {
  Cob a(1), b(1);
  join(a, b);
  for (int sleep = 0; sleep < 5'000; ++sleep) {
    b.kernel[0]->set_armed(true);
    ASSERT_TRUE(send(*a.kernel[0], tcp_frame(Port(1), Port(2))));
    a.kernel[0]->flush();
    b.kernel[0]->set_armed(false);
    b.take(0);
  }
  for (int sleep = 0; sleep < 64; ++sleep) {
    b.kernel[0]->set_armed(true);
    b.kernel[0]->set_armed(false);
  }
  EXPECT_FALSE(edge(b.kernel[0]->wait_fd()));
  b.kernel[0]->set_armed(true);
  ASSERT_TRUE(send(*a.kernel[0], tcp_frame(Port(1), Port(2))));
  a.kernel[0]->flush();
  EXPECT_TRUE(edge(b.kernel[0]->wait_fd()));
}

TEST(Cable, OneWhoIsWiredWhileItSleepsIsRung) {
  Cob a(1), b(2);
  for (auto& kernel : a.kernel) ASSERT_FALSE(kernel->plug(b.steering.fd()).is_error());
  for (auto& kernel : b.kernel) ASSERT_FALSE(kernel->plug(a.steering.fd()).is_error());
  b.kernel[0]->set_armed(true);
  wire(a, 0, b, 0);
  const auto hello = std::vector<std::byte>(60, std::byte{1});
  ASSERT_TRUE(send(*a.kernel[0], hello));
  a.kernel[0]->flush();
  EXPECT_TRUE(edge(b.kernel[0]->wait_fd()));
}

TEST(Cable, ADeadKernelsFramesAreDroppedAndItsNextLifeGetsNewRings) {
  Cob a(2), b(2);
  join(a, b);
  ASSERT_FALSE(
      b.steering.steer_port(SteeredProtocol::tcp, Port(80), spread_over(std::array{KernelId(1)}))
          .is_error());
  const auto frame = tcp_frame(Port(1), Port(80));
  ASSERT_TRUE(send(*a.kernel[0], frame));
  a.kernel[0]->flush();
  // Dead with a frame unread. Its supervisor says so.
  b.kernel[1].reset();
  for (auto& kernel : a.kernel) kernel->wire_down(KernelId(1), 1);
  EXPECT_EQ(a.kernel[0]->wires(), 1u);
  EXPECT_TRUE(send(*a.kernel[0], frame));
  EXPECT_EQ(a.kernel[0]->counters().dropped_route, 1u);
  a.kernel[0]->flush();

  b.epochs[1] = 2;
  b.start(1);
  ASSERT_FALSE(b.kernel[1]->plug(a.steering.fd()).is_error());
  wire(a, 0, b, 1);
  wire(a, 1, b, 1);
  EXPECT_EQ(b.take(1), 0u);  // nothing of before
  ASSERT_TRUE(send(*a.kernel[0], frame));
  a.kernel[0]->flush();
  EXPECT_EQ(b.take(1), 1u);
  a.kernel[0]->wire_down(KernelId(1), 1);  // late news of the first life
  EXPECT_EQ(a.kernel[0]->wires(), 2u);
  // The other kernels never noticed.
  ASSERT_TRUE(send(*a.kernel[1], std::vector<std::byte>(60)));
  a.kernel[1]->flush();
  EXPECT_EQ(b.take(0), 1u);
}

TEST(Cable, UnpluggedItForgetsEverythingAndCanBePluggedElsewhere) {
  Cob a(1), b(1), c(1);
  join(a, b);
  ASSERT_TRUE(send(*b.kernel[0], tcp_frame(Port(1), Port(2))));
  b.kernel[0]->flush();
  a.kernel[0]->unplug();
  EXPECT_EQ(a.take(0), 0u);
  EXPECT_FALSE(send(*a.kernel[0], tcp_frame(Port(1), Port(2))));
  EXPECT_FALSE(edge(a.kernel[0]->wait_fd()));
  join(a, c);
  ASSERT_TRUE(send(*a.kernel[0], tcp_frame(Port(1), Port(2))));
  a.kernel[0]->flush();
  EXPECT_EQ(c.take(0), 1u);
  EXPECT_EQ(b.take(0), 0u);
}

TEST(Cable, FramesOfAllSizesOfManyFlowsSurviveTheWrap) {
  Cob a(1), b(2);
  join(a, b);
  std::size_t sent = 0, received = 0;
  for (u32 step = 0; step < 20'000; ++step) {
    const std::size_t bytes = 60 + (step % 9 == 0 ? step * 7'919 % 65'000 : step * 31 % 1'500);
    const u64 dropped = a.kernel[0]->counters().dropped_full;
    const bool went = send(*a.kernel[0], tcp_frame(Port(static_cast<u16>(step)), Port(80), bytes));
    ASSERT_EQ(went, a.kernel[0]->counters().dropped_full == dropped);
    sent += went ? 1 : 0;
    if (step % 5 == 0) a.kernel[0]->flush();
    if (step % 50 != 0) continue;
    for (u16 j = 0; j < 2; ++j) {
      Catch sink;
      received += b.kernel[j]->poll(step % 3 == 0 ? 1'000 : 20, sink);
      for (const auto& frame : sink.got) {
        const u16 port = static_cast<u16>(std::to_integer<u32>(frame[34]) << 8 |
                                          std::to_integer<u32>(frame[35]));
        EXPECT_EQ(frame, tcp_frame(Port(port), Port(80), frame.size()));
      }
    }
  }
  a.kernel[0]->flush();
  received += b.take(0) + b.take(1);
  EXPECT_EQ(received, sent);
  EXPECT_GT(received, 10'000u);
}

// ---- the other end is hostile: a memory of its own making, and whatever it writes there

struct Hostile {
  Cob a{1};
  SteeringWriter steering = SteeringWriter::create(2).release_value();
  SharedMemory shared =
      create_memory("hostile", sizeof(CableMemory), Writers::creator).release_value();
  CableMemory& memory = *new (shared.mapping.data()) CableMemory;
  Fd bell;

  Hostile() {
    message::FrameWriter::prepare(memory.entry);
    memory.header.magic = CableMemory::magic_value;
    memory.header.version = CableMemory::layout_version;
    memory.header.from = 1;
    memory.header.to = 0;
    memory.header.from_epoch = 5;
    memory.header.to_epoch = 1;
    EXPECT_FALSE(device().plug(steering.fd()).is_error());
    auto [at_a, at_b] = make_cable_bell().release_value();
    bell = std::move(at_b);
    EXPECT_FALSE(device().open_wire(KernelId(1), 5, std::move(at_a)).is_error());
  }
  CableDevice& device() { return *a.kernel[0]; }
  Result<void> up() { return device().wire_up(KernelId(1), 5, copy_of(shared.fd.ref())); }
};

void expect_cut(CableDevice& device) {
  EXPECT_EQ(device.wires(), 0u);
  EXPECT_EQ(device.counters().cut, 1u);
  const auto ends = device.take_faulted();
  ASSERT_TRUE(ends.has_value());
  EXPECT_EQ(ends->peer, KernelId(1));
  EXPECT_EQ(ends->peer_epoch, 5u);
  EXPECT_EQ(device.take_faulted(), std::nullopt);
}

TEST(HostileCable, CutsOffImpossibleEntries) {
  for (const message::FrameEntry bad :
       {message::FrameEntry{1, message::pool_bytes - 10, 11, 0},
        message::FrameEntry{1, 0xffffffff, 2, 0}, message::FrameEntry{1, 0, 0, 0},
        message::FrameEntry{1, 0, message::max_frame_bytes + 1, 0},
        message::FrameEntry{77, 0, 60, 0}}) {
    Hostile h;
    ASSERT_FALSE(h.up().is_error());
    h.memory.entry[0] = bad;
    EXPECT_EQ(h.a.take(0), 0u);
    expect_cut(h.device());
    EXPECT_EQ(h.up().error().code, EEXIST);  // no second try
    EXPECT_EQ(h.device().wires(), 0u);
    h.device().flush();
  }
}

TEST(HostileCable, CutsOffImpossibleCredits) {
  Hostile h;
  ASSERT_FALSE(h.up().is_error());
  h.memory.state.frames_consumed = 1'000'000;
  // A table that names kernel 1 alone.
  ASSERT_FALSE(h.steering.steer_default(spread_over(std::array{KernelId(1)})).is_error());
  for (int i = 0; i < 100; ++i) send(h.device(), tcp_frame(Port(1), Port(2), 60'000));
  expect_cut(h.device());
}

TEST(HostileCable, WrongTablesDropFrames) {
  SharedMemory forged =
      create_memory("forged", sizeof(SteeringMemory), Writers::creator).release_value();
  auto& steering = *new (forged.mapping.data()) SteeringMemory;
  steering.header.magic = SteeringMemory::magic_value;
  steering.header.version = SteeringMemory::layout_version;
  steering.header.kernels = 2;
  steering.header.default_table = 0xffff;
  Hostile other;
  ASSERT_FALSE(other.device().plug(forged.fd.ref()).is_error());
  auto [at_a, at_b] = make_cable_bell().release_value();
  ASSERT_FALSE(other.device().open_wire(KernelId(1), 5, std::move(at_a)).is_error());
  ASSERT_FALSE(other.up().is_error());
  EXPECT_TRUE(send(other.device(), tcp_frame(Port(1), Port(2))));
  EXPECT_EQ(other.device().counters().tables_wrong, 1u);
  EXPECT_EQ(other.device().counters().dropped_route, 1u);
  EXPECT_EQ(other.device().wires(), 1u);
}

TEST(HostileCable, RefusesMemoriesOfAnotherKernelLifeOrLayout) {
  const auto refused = [](auto forge, int error) {
    Hostile h;
    forge(h.memory.header);
    EXPECT_EQ(h.up().error().code, error);
    expect_cut(h.device());
  };
  refused([](auto& header) { header.magic = 1; }, EPROTO);
  refused([](auto& header) { header.version = 9; }, EPROTO);
  refused([](auto& header) { header.from = 0; }, EPROTO);
  refused([](auto& header) { header.to = 3; }, EPROTO);
  refused([](auto& header) { header.from_epoch = 4; }, EPROTO);
  refused([](auto& header) { header.to_epoch = 2; }, EPROTO);
}

TEST(HostileCable, RefusesMemoryThatCouldShrinkOrHasAnotherSize) {
  {
    Hostile h;
    const Fd plain(::memfd_create("plain", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(plain.get(), sizeof(CableMemory)), 0);
    EXPECT_EQ(h.device().wire_up(KernelId(1), 5, copy_of(plain.ref())).error().code, EPERM);
    expect_cut(h.device());
  }
  {
    Hostile h;
    const SharedMemory small = create_memory("small", 4'096, Writers::creator).release_value();
    EXPECT_EQ(h.device().wire_up(KernelId(1), 5, copy_of(small.fd.ref())).error().code, EMSGSIZE);
    expect_cut(h.device());
  }
}

TEST(HostileCable, RefusesABellThatIsNone) {
  Hostile h;
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const Fd reading(pipe[0]);
  EXPECT_EQ(h.device().open_wire(KernelId(1), 6, Fd(pipe[1])).error().code, EPERM);
  EXPECT_EQ(h.device().open_wire(KernelId(1), 6, Fd()).error().code, EPERM);
  EXPECT_EQ(h.device()
                .open_wire(KernelId(1), 6, Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)))
                .error()
                .code,
            EPERM);
  EXPECT_EQ(h.device().open_wire(KernelId(2), 6, Fd()).error().code, EINVAL);
}

TEST(HostileCable, AFullOrClosedBellDoesNotHoldTheRinger) {
  Hostile h;
  ASSERT_FALSE(h.up().is_error());
  ASSERT_FALSE(h.steering.steer_default(spread_over(std::array{KernelId(1)})).is_error());
  for (u32 i = 1; i < 3'000; ++i) {
    h.memory.state.armed = i;  // sleeps ever anew, and reads nothing
    send(h.device(), tcp_frame(Port(1), Port(2)));
    h.device().flush();
  }
  EXPECT_EQ(h.device().counters().bells_rung, 2'999u);
  h.bell.reset();
  h.memory.state.armed = 5'000;
  send(h.device(), tcp_frame(Port(1), Port(2)));
  h.device().flush();  // no SIGPIPE
  EXPECT_EQ(h.device().wires(), 1u);
}

}  // namespace
}  // namespace cob::net
