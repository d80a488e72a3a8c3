// The steering tables from both sides: defaults, ports, group moves, exhaustion, switching under a
// reader, hostile contents, and source ports chosen for their replies.
#include "net/snap_bean/steering.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace cob::net {
namespace {

constexpr auto tcp = SteeredProtocol::tcp;
constexpr auto udp = SteeredProtocol::udp;
const Endpoint client{{0x0a4d0002}, Port(40'000)};
const Endpoint server{{0x0a4d0001}, Port(80)};

SteeringWriter writer_of(u16 kernels) { return SteeringWriter::create(kernels).release_value(); }
SteeringReader reader_of(const SteeringWriter& writer) {
  return SteeringReader::open(writer.fd()).release_value();
}
GroupTable all_to(u16 kernel) { return spread_over(std::array{KernelId(kernel)}); }

TEST(Steering, TheDefaultTableSpreadsOverAllKernels) {
  const SteeringWriter writer = writer_of(3);
  const SteeringReader reader = reader_of(writer);
  EXPECT_EQ(reader.kernels(), 3);
  std::array<u32, 3> got{};
  for (u32 group = 0; group < flow_groups; ++group) {
    const auto kernel = reader.kernel_for(tcp, Port(1), group);
    ASSERT_TRUE(kernel.has_value());
    ++got.at(kernel->value);
    EXPECT_EQ(reader.kernel_for(udp, Port(1), group + 77 * flow_groups), kernel);  // modulo
  }
  EXPECT_GE(*std::ranges::min_element(got), flow_groups / 3);
}

TEST(Steering, AFlowIsHashedAsCardsDo) {
  SteeringWriter writer = writer_of(2);
  const SteeringReader reader = reader_of(writer);
  // Microsoft's second vector: 0xc626b0ea.
  const Endpoint source{{199U << 24 | 92 << 16 | 111 << 8 | 2}, Port(14'230)};
  const Endpoint destination{{65U << 24 | 69 << 16 | 140 << 8 | 83}, Port(4'739)};
  ASSERT_FALSE(writer.steer_port(tcp, destination.port, all_to(0)).is_error());
  EXPECT_EQ(reader.kernel_for(tcp, source, destination), KernelId(0));
  ASSERT_FALSE(writer.move_group(tcp, destination.port, 0x0ea, KernelId(1)).is_error());
  EXPECT_EQ(reader.kernel_for(tcp, source, destination), KernelId(1));
}

TEST(Steering, APortsTableServesThatPortAndProtocolAlone) {
  SteeringWriter writer = writer_of(4);
  const SteeringReader reader = reader_of(writer);
  ASSERT_FALSE(writer.steer_default(all_to(0)).is_error());
  ASSERT_FALSE(writer.steer_port(tcp, Port(80), all_to(3)).is_error());
  EXPECT_TRUE(writer.has_table(tcp, Port(80)));
  EXPECT_EQ(reader.kernel_for(tcp, client, server), KernelId(3));
  EXPECT_EQ(reader.kernel_for(udp, client, server), KernelId(0));
  EXPECT_EQ(reader.kernel_for(tcp, server, client), KernelId(0));
  ASSERT_FALSE(writer.steer_port(tcp, Port(80), all_to(2)).is_error());
  EXPECT_EQ(reader.kernel_for(tcp, client, server), KernelId(2));
  EXPECT_EQ(writer.groups(tcp, Port(80)), all_to(2));
  writer.release_port(tcp, Port(80));
  EXPECT_FALSE(writer.has_table(tcp, Port(80)));
  EXPECT_EQ(reader.kernel_for(tcp, client, server), KernelId(0));
  EXPECT_EQ(writer.groups(tcp, Port(80)), all_to(0));
}

TEST(Steering, OneGroupMoves) {
  SteeringWriter writer = writer_of(2);
  const SteeringReader reader = reader_of(writer);
  EXPECT_EQ(writer.move_group(tcp, Port(80), 7, KernelId(1)).error().code, ENOENT);
  ASSERT_FALSE(writer.steer_port(tcp, Port(80), all_to(0)).is_error());
  ASSERT_FALSE(writer.move_group(tcp, Port(80), 7, KernelId(1)).is_error());
  for (u32 group = 0; group < flow_groups; ++group)
    EXPECT_EQ(reader.kernel_for(tcp, Port(80), group), KernelId(group == 7 ? 1 : 0));
  ASSERT_FALSE(writer.steer_default(all_to(0)).is_error());
  ASSERT_FALSE(writer.move_default_group(9, KernelId(1)).is_error());
  EXPECT_EQ(reader.kernel_for(tcp, Port(81), 9), KernelId(1));
  EXPECT_EQ(reader.kernel_for(tcp, Port(81), 8), KernelId(0));
}

TEST(Steering, RefusesWhatDoesNotExist) {
  SteeringWriter writer = writer_of(2);
  EXPECT_EQ(SteeringWriter::create(0).error().code, EINVAL);
  EXPECT_EQ(SteeringWriter::create(max_steered_kernels + 1).error().code, EINVAL);
  EXPECT_EQ(writer.steer_default(all_to(2)).error().code, EINVAL);
  EXPECT_EQ(writer.steer_port(tcp, Port(1), all_to(2)).error().code, EINVAL);
  EXPECT_FALSE(writer.has_table(tcp, Port(1)));
  EXPECT_EQ(writer.move_default_group(flow_groups, KernelId(0)).error().code, EINVAL);
  EXPECT_EQ(writer.move_default_group(0, KernelId(2)).error().code, EINVAL);
}

TEST(Steering, SaysSoWhenAllTablesAreUsed) {
  SteeringWriter writer = writer_of(1);
  u32 ports = 0;
  while (!writer.steer_port(tcp, Port(static_cast<u16>(ports)), all_to(0)).is_error()) ++ports;
  EXPECT_EQ(ports, steering_tables - 2u);  // the default one; 0 is no table
  EXPECT_EQ(writer.steer_port(tcp, Port(3), all_to(0)).error().code, ENOSPC);
  EXPECT_TRUE(writer.has_table(tcp, Port(3)));  // stays what it was
  for (int i = 0; i < 10'000; ++i) {            // none is lost
    writer.release_port(tcp, Port(5));
    ASSERT_FALSE(writer.steer_port(tcp, Port(5), all_to(0)).is_error());
  }
}

TEST(Steering, AReaderSeesTheOldOrTheNewTable) {
  SteeringWriter writer = writer_of(4);
  ASSERT_FALSE(writer.steer_default(all_to(0)).is_error());
  ASSERT_FALSE(writer.steer_port(tcp, Port(80), all_to(1)).is_error());
  std::atomic<bool> end = false;
  std::atomic<u64> wrong = 0, looks = 0;
  std::thread looking([&] {
    const SteeringReader reader = reader_of(writer);
    for (u32 group = 0; !end; ++group, ++looks) {
      const auto kernel = reader.kernel_for(tcp, Port(80), group);
      if (kernel != KernelId(1) && kernel != KernelId(2)) ++wrong;
    }
  });
  for (u16 i = 0; i < 200 || looks < 1'000; ++i)
    EXPECT_FALSE(writer.steer_port(tcp, Port(80), all_to(1 + i % 2)).is_error());
  end = true;
  looking.join();
  EXPECT_EQ(wrong, 0u);
}

TEST(Steering, OnlyTheWriterCanMapItWritable) {
  const SteeringWriter writer = writer_of(1);
  EXPECT_TRUE(Mapping::map(writer.fd(), sizeof(SteeringMemory), Access::read_write).is_error());
}

// What a hostile cob may pass: every seal is right, the contents are not.
struct Forged {
  SharedMemory shared =
      create_memory("forged", sizeof(SteeringMemory), Writers::creator).release_value();
  SteeringMemory& memory = *new (shared.mapping.data()) SteeringMemory;
  Forged() {
    memory.header.magic = SteeringMemory::magic_value;
    memory.header.version = SteeringMemory::layout_version;
    memory.header.kernels = 2;
  }
};

TEST(Steering, AForgedHeaderIsRefused) {
  Forged forged;
  ASSERT_FALSE(SteeringReader::open(forged.shared.fd.ref()).is_error());
  for (const u16 kernels : std::array<u16, 3>{0, max_steered_kernels + 1, 0xffff}) {
    forged.memory.header.kernels = kernels;
    EXPECT_EQ(SteeringReader::open(forged.shared.fd.ref()).error().code, EPROTO);
  }
  forged.memory.header.kernels = 2;
  forged.memory.header.version = 2;
  EXPECT_EQ(SteeringReader::open(forged.shared.fd.ref()).error().code, EPROTO);
  forged.memory.header.version = 1;
  forged.memory.header.magic = 1;
  EXPECT_EQ(SteeringReader::open(forged.shared.fd.ref()).error().code, EPROTO);
}

TEST(Steering, MemoryThatItsOwnerCouldShrinkOrOthersWriteIsRefused) {
  const SharedMemory anyone =
      create_memory("anyone", sizeof(SteeringMemory), Writers::anyone).release_value();
  EXPECT_EQ(SteeringReader::open(anyone.fd.ref()).error().code, EPERM);
  const SharedMemory small = create_memory("small", 4'096, Writers::creator).release_value();
  EXPECT_EQ(SteeringReader::open(small.fd.ref()).error().code, EMSGSIZE);
  const Fd unsealed(::memfd_create("unsealed", MFD_CLOEXEC));
  EXPECT_EQ(SteeringReader::open(unsealed.ref()).error().code, EPERM);
}

TEST(Steering, ForgedTablesLeadNowhere) {
  Forged forged;
  const SteeringReader reader = SteeringReader::open(forged.shared.fd.ref()).release_value();
  forged.memory.header.kernels = 64;  // too late: it was read once
  forged.memory.port[0][80] = steering_tables;
  EXPECT_EQ(reader.kernel_for(tcp, Port(80), 5), std::nullopt);
  forged.memory.port[0][80] = 0xffff;
  EXPECT_EQ(reader.kernel_for(tcp, Port(80), 5), std::nullopt);
  forged.memory.port[0][80] = 0;
  forged.memory.header.default_table = 0xffff;
  EXPECT_EQ(reader.kernel_for(tcp, Port(80), 5), std::nullopt);
  forged.memory.header.default_table = 1;
  forged.memory.table[1][5] = 2;
  EXPECT_EQ(reader.kernel_for(tcp, Port(80), 5), std::nullopt);
  forged.memory.table[1][5] = 1;
  EXPECT_EQ(reader.kernel_for(tcp, Port(80), 5), KernelId(1));
}

TEST(Steering, SourcePortsAreChosenForTheirReplies) {
  const SteeringWriter writer = writer_of(4);
  const SteeringReader reader = reader_of(writer);
  const Ipv4Address local{0x0a4d0001};
  const Endpoint remote{{0x5db8d822}, Port(443)};
  std::array<u32, 4> fitting{};
  for (u16 k = 0; k < 4; ++k) {
    const ReplyPorts ports(reader, tcp, local, remote, KernelId(k));
    for (u32 port = 32'768; port < 61'000; ++port) {
      const bool fits = ports.reach(Port(static_cast<u16>(port)));
      const Endpoint source{local, Port(static_cast<u16>(port))};
      ASSERT_EQ(fits, reader.kernel_for(tcp, remote, source) == KernelId(k));
      fitting.at(k) += fits ? 1 : 0;
    }
  }
  for (const u32 n : fitting) EXPECT_GT(n, 6'000u);
}

}  // namespace
}  // namespace cob::net
