// Steering: to which kernel of a cob a frame from outside goes: destination port -> table -> flow
// group -> kernel; the software twin of a network card's Receive Side Scaling.
// Model: one flat memory, which its one writer (the supervisor) changes by single stores while
// anyone who holds the descriptor reads, other cobs too; a whole table is filled while unused, then
// switched to. The writer's and each reader's thread.
#pragma once

#include <array>
#include <deque>
#include <optional>
#include <span>

#include "base/memory.h"
#include "message/flat.h"
#include "net/snap_bean/toeplitz.h"

namespace cob::net {

inline constexpr std::size_t flow_groups = 4'096;
inline constexpr u16 max_steered_kernels = 64;
// The default one and those being filled included; reaction when all are used: ENOSPC.
inline constexpr u16 steering_tables = 1'024;

// Ports of TCP and UDP are steered by themselves; other protocols have no tables.
enum class SteeredProtocol : u8 { tcp = 0, udp = 1 };

// A kernel for each flow group.
using GroupTable = std::array<u8, flow_groups>;
constexpr u16 flow_group(u32 hash) { return static_cast<u16>(hash % flow_groups); }
// The groups in turn to each of `kernels`. REQUIRES: there is one, each < max_steered_kernels.
GroupTable spread_over(std::span<const KernelId> kernels);

// All numbers little-endian; one writer.
struct SteeringMemory {
  static constexpr u32 magic_value = 0x73626f63;  // "cobs"
  static constexpr u32 layout_version = 1;
  static constexpr u16 no_table = 0;  // of a port: the default one

  struct alignas(4'096) Header {
    message::le<u32> magic;
    message::le<u32> version;
    message::le<u16> kernels;        // 1 to max_steered_kernels
    message::le<u16> default_table;  // changes
    message::le<u32> reserved;
    ToeplitzKey key;
  };

  Header header;
  alignas(4'096) message::le<u16> port[2][65'536];  // by SteeredProtocol; table or no_table; change
  alignas(4'096) u8 table[steering_tables][flow_groups];  // kernels; change
};
static_assert(sizeof(SteeringMemory::Header) == 4'096);
static_assert(offsetof(SteeringMemory::Header, key) == 16);
static_assert(offsetof(SteeringMemory, port) == 4'096);
static_assert(offsetof(SteeringMemory, table) == 4'096 + 2 * 65'536 * 2);
static_assert(sizeof(SteeringMemory) == 4'096 + 262'144 + std::size_t{steering_tables} * 4'096);

class SteeringWriter {
 public:
  // The default table spreads over all kernels; no port has its own. EINVAL: 0 or too many kernels.
  static Result<SteeringWriter> create(u16 kernels, const ToeplitzKey& key = microsoft_key);

  // To be mapped read-only by whoever shall steer: SteeringReader::open().
  FdRef fd() const { return shared_.fd.ref(); }
  u16 kernels() const { return kernels_; }

  // `port` gets a table of its own, or other contents. Readers see all of the old or all of the new
  // one. EINVAL: a kernel that does not exist. ENOSPC.
  Result<void> steer_port(SteeredProtocol protocol, Port port, const GroupTable& groups);
  // Back to the default table.
  void release_port(SteeredProtocol protocol, Port port);
  Result<void> steer_default(const GroupTable& groups);

  // One group goes to another kernel. EINVAL: no such group or kernel. ENOENT: the port has no
  // table of its own.
  Result<void> move_group(SteeredProtocol protocol, Port port, u16 group, KernelId kernel);
  Result<void> move_default_group(u16 group, KernelId kernel);

  bool has_table(SteeredProtocol protocol, Port port) const;
  // What the port's groups are, its own or the default.
  GroupTable groups(SteeredProtocol protocol, Port port) const;

 private:
  explicit SteeringWriter(SharedMemory shared, u16 kernels);
  SteeringMemory& memory() const {
    return *std::launder(reinterpret_cast<SteeringMemory*>(shared_.mapping.data()));
  }
  Result<u16> fill(const GroupTable& groups);
  Result<void> set_group(u16 table, u16 group, KernelId kernel);

  SharedMemory shared_;
  u16 kernels_ = 0;
  // A reader that has just looked a port up may still use a table given up: the one unused longest
  // is filled next. Should it be read even then, one frame goes to a kernel that does not own it.
  std::deque<u16> unused_;
};

class SteeringReader {
 public:
  // Of one's own cob or of another, which may write anything at any time. EPERM, EMSGSIZE:
  // base/memory.h; EPROTO: not a steering memory.
  static Result<SteeringReader> open(FdRef fd);

  u16 kernels() const { return kernels_; }
  const Toeplitz& toeplitz() const { return toeplitz_; }

  // Where a frame goes from `source` to `destination`, which is an address of the cob whose tables
  // these are. nullopt: the tables are wrong.
  std::optional<KernelId> kernel_for(SteeredProtocol protocol, Endpoint source,
                                     Endpoint destination) const {
    return kernel_for(protocol, destination.port, toeplitz_.hash(source, destination));
  }
  std::optional<KernelId> kernel_for(SteeredProtocol protocol, Port destination, u32 hash) const;

 private:
  SteeringReader(Mapping mapping, const ToeplitzKey& key, u16 kernels)
      : mapping_(std::move(mapping)), toeplitz_(key), kernels_(kernels) {}

  Mapping mapping_;
  Toeplitz toeplitz_;
  u16 kernels_ = 0;
};

// Which source ports of an active open are answered to a wanted kernel: those whose flow, as the
// reply has it (from `remote` to `local`), is steered there.
class ReplyPorts {
 public:
  // `reader`: of the cob that opens; outlives this.
  ReplyPorts(const SteeringReader& reader, SteeredProtocol protocol, Ipv4Address local,
             Endpoint remote, KernelId kernel)
      : reader_(reader),
        protocol_(protocol),
        kernel_(kernel),
        rest_(reader.toeplitz().hash(remote, {local, Port(0)})) {}
  ReplyPorts(const SteeringReader& reader, SteeredProtocol protocol, const Ipv6Bytes& local,
             const Ipv6Bytes& remote, Port remote_port, KernelId kernel)
      : reader_(reader),
        protocol_(protocol),
        kernel_(kernel),
        rest_(reader.toeplitz().hash(remote, remote_port, local, Port(0))),
        ipv6_(true) {}

  // As the tables are now.
  bool reach(Port source) const {
    const Toeplitz& toeplitz = reader_.toeplitz();
    const u32 hash = rest_ ^ (ipv6_ ? toeplitz.destination_port_ipv6(source)
                                    : toeplitz.destination_port(source));
    return reader_.kernel_for(protocol_, source, hash) == kernel_;
  }

 private:
  const SteeringReader& reader_;
  SteeredProtocol protocol_;
  KernelId kernel_;
  u32 rest_;
  bool ipv6_ = false;
};

}  // namespace cob::net
