// Files: a kernel's part in the files of islands: as one that has shares, their names and the
// descriptions of what is open; as one that asks, the descriptions its programs have of others.
// docs/descriptors.md. Model: made only in a cob of several islands, before the first link; polled
// once a turn. Kernel's loop only; ends before its Messenger, which is not polled afterwards.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "call/layout.h"
#include "descriptor/holder.h"
#include "descriptor/home.h"
#include "descriptor/locker.h"
#include "descriptor/locks.h"
#include "descriptor/passes.h"
#include "descriptor/watcher.h"
#include "descriptor/watches.h"
#include "fs/asker.h"
#include "fs/controls.h"
#include "fs/names.h"
#include "kernel/islands.h"

namespace cob::kernel {

class Files {
 public:
  // nullptr: there is one island. A host that permits no ring is logged, and nothing is served
  // here.
  static Result<std::unique_ptr<Files>> create(const message::Config& config,
                                               std::span<const Share> shares,
                                               message::Messenger& messenger);
  // Ends what is under way at the host first.
  ~Files();
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  // --- Asking.
  // The kernel to ask for a path in a share of another island; nullopt: it is none.
  std::optional<KernelId> entry_of(u32 share) const;
  // For a program's arena.
  void show_shares(std::span<call::RemoteShare> table) const;
  descriptor::Holder& holder() { return holder_; }
  descriptor::Locker& locker() { return locker_; }
  descriptor::Passes& passes() { return passes_; }
  descriptor::Watcher& watcher() { return watcher_; }
  fs::Asker& asker() { return asker_; }
  // To the description's home.
  Result<void> control(descriptor::Holder::Ref file, fs::Control what, fs::ControlThen then,
                       std::span<const std::byte> tail = {});
  // A program's descriptor of the host becomes a description of this home that `holder` holds;
  // programs of this island may have it too. REQUIRES: home() != nullptr.
  Result<descriptor::Passes::Item> take_in(Fd descriptor, KernelId holder);
  void withdraw(descriptor::Handle handle, KernelId holder) { home_->withdraw(handle, holder); }
  bool together(KernelId a, KernelId b) const { return islands_.together(a, b); }
  Time clock() const { return clock_.now(); }

  // --- The loop.
  std::size_t poll(Time now);
  Time next_deadline() const;
  // What other islands' kernels have asked of names and files here.
  u64 served() const;
  // Threads or the ring do something that the host takes its time for.
  bool waits_for_host() const;
  void peer_down(KernelId peer);
  // Of what the host does; invalid: nothing is served here. For the epoll set, edge-triggered.
  FdRef event() const;
  void set_armed(bool armed);
  bool anything_pending() const;

  const descriptor::Holder::Counters& held() const { return holder_.counters(); }
  // nullptr: nothing is served here.
  const descriptor::Home* home() const { return home_.get(); }
  const descriptor::Locks* locks() const { return locks_.get(); }

 private:
  struct Remote {
    u32 number = 0;
    std::string path;
    KernelId entry{0};
  };

  Files(const message::Config& config, message::Messenger& messenger);
  Result<void> serve(const message::Config& config, std::span<const Share> shares);
  void find_remote(const message::Config& config, std::span<const Share> shares);

  message::Messenger& messenger_;
  IslandMap islands_;
  KernelId self_;
  HostClock clock_;
  std::vector<Remote> remote_;
  descriptor::Holder holder_;
  descriptor::Locker locker_;
  descriptor::Passes passes_;
  descriptor::Watcher watcher_;
  fs::Asker asker_;
  // Of a storing island. Objects name the ring.
  std::unique_ptr<fs::Ring> ring_;
  std::unique_ptr<fs::HostLeases> leases_;  // nullptr: nothing is cached elsewhere
  std::unique_ptr<descriptor::Home> home_;
  std::unique_ptr<descriptor::Locks> locks_;
  std::unique_ptr<descriptor::Watches> watches_;
  std::unique_ptr<fs::Controls> controls_;
  std::unique_ptr<fs::Names> names_;
};

}  // namespace cob::kernel
