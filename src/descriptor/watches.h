// Watches: which holders wait for which descriptions of this home to become ready.
// docs/descriptors.md, 1 and 8.
// Model: one watch a holder and description, of the events of all that it asked for; it is told
// once, and is over. Beside its Home, as Locks is. Owned by the kernel's loop; ends before its Home
// and its Messenger.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "descriptor/home.h"
#include "descriptor/watch_protocol.h"

namespace cob::descriptor {

class Watches {
 public:
  struct Counters {
    u64 asked = 0, told = 0;
  };

  // Registers its handler: before the Messenger's first link.
  Watches(message::Messenger& messenger, Home& home);
  ~Watches();
  Watches(const Watches&) = delete;
  Watches& operator=(const Watches&) = delete;

  // Ends those of sessions that are over, tells what found no room.
  void poll();
  bool unsent() const { return !unsent_.empty(); }
  // All are over: nothing of theirs is under way at objects any more.
  void end();
  std::size_t size() const { return watches_.size(); }
  const Counters& counters() const { return counters_; }

 private:
  struct Key {
    u16 holder = 0;
    u32 slot = 0, generation = 0;
    auto operator<=>(const Key&) const = default;
  };
  struct One {
    u32 events = 0;
    u64 number = 0;  // tells it from former ones of the same key
    u64 at_object = 0;
  };
  struct Telling {
    Key key;
    u32 events = 0;
    u32 link_generation = 0;
  };

  Result<Watched> on_watch(KernelId from, const Watch& m);
  void look(KernelId peer);
  void ready(const Key& key, u64 number, u32 events);
  void stop(const Key& key, const One& one);
  bool tell(const Telling& telling);

  message::Messenger& messenger_;
  Home& home_;
  std::map<Key, One> watches_;
  std::deque<Telling> unsent_;
  std::vector<u32> link_generations_;  // of each peer's session; 0: none
  u64 numbers_ = 0;
  std::shared_ptr<Watches*> self_;  // objects may tell when this is gone
  Counters counters_;
};

}  // namespace cob::descriptor
