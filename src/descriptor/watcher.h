// Watcher: descriptions of other homes that programs of this kernel wait for.
// docs/descriptors.md, 1 and 8.
// Model: the home says what is ready now, or, once, when something is; the end of its session wakes
// too. Owned by the kernel's loop; ends before its Holder.
#pragma once

#include <deque>
#include <functional>
#include <unordered_map>

#include "descriptor/holder.h"
#include "descriptor/watch_protocol.h"

namespace cob::descriptor {

class Watcher {
 public:
  // What was watched may be ready: ask again.
  using Woken = std::move_only_function<void(Holder::Ref)>;
  using Done = std::move_only_function<void(Result<u32>)>;

  // Registers its handler: before the Messenger's first link.
  Watcher(message::Messenger& messenger, Holder& holder);
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  void on_ready(Woken woken) { woken_ = std::move(woken); }
  // Those of `events`, errors and hang-ups that are there now; 0: `woken` will hear when one is.
  // ESTALE: the home, or the link to it, has ended. REQUIRES: holder.lives(ref).
  void watch(Holder::Ref ref, u32 events, Done done);
  void forget(Holder::Ref ref) { watched_.erase(key(ref)); }
  void peer_down(KernelId peer);
  // Asks what found no room.
  void poll();
  bool unsent() const { return !unsent_.empty(); }

 private:
  struct Ask {
    Holder::Ref ref;
    u32 events = 0;
    Done done;
  };
  struct One {
    Holder::Ref ref;
    KernelId home{0};
  };
  static u64 key(Holder::Ref ref) { return u64{ref.slot} << 32 | ref.generation; }

  bool send(Ask& ask);
  void wake(Holder::Ref ref);

  message::Messenger& messenger_;
  Holder& holder_;
  Woken woken_;
  std::deque<Ask> unsent_;
  std::unordered_map<u64, One> watched_;
};

}  // namespace cob::descriptor
