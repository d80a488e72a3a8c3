// Islands: which kernels share this one's memory and host files, and the links to those that do
// not. Model: between islands a session begins and ends as its transport finds out
// (docs/messaging.md, 7); only for a window the supervisor passes memory on, anew for each pair of
// epochs. docs/islands.md. Kernel's loop only.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/doorbell.h"
#include "base/memory.h"
#include "message/control.h"
#include "message/messenger.h"
#include "message/socket/stream_transport.h"
#include "message/socket/tls_stream.h"

namespace cob::kernel {

// Which island each kernel of the cob belongs to, by number. A value.
class IslandMap {
 public:
  IslandMap() = default;  // one island
  explicit IslandMap(const message::Config& config) : island_(config.island) {}

  u16 of(KernelId kernel) const {
    return kernel.value < island_.size() ? island_[kernel.value] : 0;
  }
  bool together(KernelId a, KernelId b) const { return of(a) == of(b); }
  // Those of a cob's kernels that are on other islands than `kernel`.
  message::KernelSet apart_from(KernelId kernel, u16 kernels) const {
    message::KernelSet apart;
    for (u16 k = 0; k < kernels; ++k)
      if (!together(KernelId(k), kernel)) apart.add(KernelId(k));
    return apart;
  }

 private:
  std::array<u8, message::most_kernels> island_{};
};

// A directory that the whole cob shall see, of the island that has it.
struct Share {
  u8 number = 0;
  std::string path;  // canonical, as on the host of that island
  bool read_only = false;
  u16 island = 0;
  Fd root;  // O_PATH, in the kernels of that island; else invalid
};

// What a kernel is started with beside its Config.
struct IslandSetup {
  Fd listener;  // of a socket link: where lower kernels of other islands call
  std::vector<Share> shares;
};

// A `share` message's bytes and what came beside it. EPROTO.
Result<Share> read_share(std::span<const std::byte> bytes, std::vector<Fd> descriptors);

class IslandLinks {
 public:
  static constexpr u64 bulk_bytes = u64{16} << 20;  // of each link, each way
  static constexpr Duration lease = Duration::seconds(2);

  // With sockets, the links to all kernels of other islands are begun. `messenger` outlives this,
  // and knows all its types. EPROTO: a configuration that cannot be.
  static Result<std::unique_ptr<IslandLinks>> create(const message::Config& config, Fd listener,
                                                     message::Messenger& messenger);

  // A window to `peer` in this epoch: makes the memory that we write for it. What joined an earlier
  // epoch of the peer ends.
  Result<Fd> open(KernelId peer, u32 peer_epoch, Doorbell doorbell);
  // The memory that the peer writes for us: the link is there, and comes up when both can.
  // ESTALE: not for what was opened last. EPERM, EMSGSIZE: not what it should be.
  Result<void> peer_up(KernelId peer, u32 peer_epoch, FdRef memory);
  // The kernel of an added island is called at this port of 127.0.0.1 from now on, and at no
  // former one; 0: at none. EINVAL: the peer is of no such island.
  Result<void> call(KernelId peer, u16 port);

 private:
  struct Opened {
    u32 peer_epoch = 0;
    Doorbell doorbell;
    Mapping theirs;
  };

  IslandLinks(const message::Config& config, message::Messenger& messenger)
      : config_(config), islands_(config), messenger_(messenger) {}
  Result<void> start_sockets(Fd listener);
  Result<std::unique_ptr<message::Transport>> dial(u16 port);
  Result<message::StreamTransportOptions> stream_options() const;
  bool is_added(KernelId kernel) const {
    return kernel.value < config_.kernels &&
           (config_.island[kernel.value] & message::added_island) != 0;
  }
  bool is_across(KernelId peer) const;

  message::Config config_;
  IslandMap islands_;
  message::Messenger& messenger_;
  std::shared_ptr<message::TlsContext> tls_;  // once there is a socket
  std::unordered_map<u16, Opened> opened_;    // windows whose peer's memory has not come
};

}  // namespace cob::kernel
