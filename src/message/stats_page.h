// StatsPage: the memory in which a kernel counts (stats.h), and a reader's copy of such a page.
// Model: the owner of the memory decides who may map it: a kernel puts it behind its board, sealed
// against all other writers. The page belongs to the kernel's loop; read_stats() is for any thread.
#pragma once

#include <span>
#include <vector>

#include "base/memory.h"
#include "message/stats.h"

namespace cob::message {

class StatsPage {
 public:
  static constexpr std::size_t bytes_for(u16 kernels) {
    return sizeof(StatsHeader) + kernels * sizeof(PeerStats);
  }

  // In `place`, which outlives the page; private memory if it is empty. EINVAL if it is smaller
  // than bytes_for(kernels) or not aligned to a cache line.
  static Result<StatsPage> create(KernelId self, u32 epoch, u16 kernels,
                                  std::span<std::byte> place);

  // REQUIRES: peer < kernels.
  PeerStats& of(KernelId peer) { return peers_[peer.value]; }

 private:
  StatsPage() = default;

  Mapping private_memory_;
  PeerStats* peers_ = nullptr;
};

struct StatsSnapshot {
  StatsHeader header;
  std::vector<PeerStats> peer;  // by number
};

// A copy of what the page says now. EPROTO: no such page; EPROTONOSUPPORT: of another version;
// EMSGSIZE: it is cut short.
Result<StatsSnapshot> read_stats(std::span<const std::byte> page);

// What was counted between two copies of one page; what is no counter is `after`'s.
PeerStats difference(const PeerStats& before, const PeerStats& after);

}  // namespace cob::message
