// Peers: what one kernel knows of the others, and how far it believes it.
// Model: boards are claims. Belief is own bookkeeping: what was sent to a peer and what came of it
// (a window that grows by connections served, a pause that doubles when none are), what of that its
// board cannot show yet, and an even share for everybody. Kernel's loop only; reads no clock.
#pragma once

#include <span>
#include <vector>

#include "net/angel/load.h"
#include "net/angel/settings.h"

namespace cob::net::angel {

// A snapshot of one other kernel for one listener.
struct Peer {
  KernelId kernel{};
  bool listens = false;  // it holds the listener, and lives
  KernelLoad load{};
  ListenerLoad listener{};
  // The reader's own: since when the oldest of what it put into its rings to this kernel has not
  // been taken. 0: all was taken.
  u64 unconsumed_since_ns = 0;
};

// What came of a connection sent to another kernel.
enum class Outcome : u8 {
  served,  // accepted there, or seen answered: the client acknowledged data or ended
  failed,  // refused, reset before it was accepted, or taken back
};

class Peers {
 public:
  // `kernels`: of the island; ids at or above it are never eligible.
  Peers(KernelId self, u16 kernels, const Settings& settings);

  // False: it gets nothing now, whatever it shows.
  bool eligible(const Peer& peer, Time now);
  // Input not consumed for hung_after, as seen or as it says itself. Never mere silence: a sleeper
  // without input is well.
  bool suspected(const Peer& peer, Time now);
  // Threads that wait there for a connection and have none coming. Negative: more come than wait.
  i32 free_threads(const Peer& peer, Time now);
  // Connections before a new one there.
  u32 backlog(const Peer& peer, Time now);

  // REQUIRES: eligible just now.
  void sent(KernelId to, u32 listening_peers, Time now);
  void settled(KernelId by, Outcome outcome, Time now);

  // Of asking for its queued connections; one that has not answered within the patience refused.
  bool may_ask(KernelId peer, Time now);
  void asked(KernelId peer, u32 connections, Time now);
  // Connections asked for, and no answer yet. Refusals by silence are noted.
  i32 awaited(Time now);
  // `got` of those asked for came. 0: a refusal.
  void answered(KernelId peer, u32 got, Time now);

  // Forgets all of a kernel that died; its successor starts anew.
  void forget(KernelId peer);

 private:
  struct Record {
    u32 window = 0;
    u32 outstanding = 0;  // sent, without an outcome
    u32 unseen = 0;       // sent, and not on its board yet
    u32 served_in_row = 0;
    Time last_sent{};
    Time progress{};  // the last outcome, or the first sending since all had one
    Time paused_until{};
    Duration pause{};
    u64 share_number = 0;  // of the period that sent_in_period counts
    u32 sent_in_period = 0;
    bool asking = false;
    i32 asked_for = 0;
    Time asked_at{};
    Time ask_after{};
    u32 refusals = 0;  // in a row
    bool hung = false;
    Time well_since{};
  };

  Record* record(KernelId kernel);
  void fresh(Record& r) const;
  void distrust(Record& r, Time now) const;
  u32 unseen(const Peer& peer, Time now);
  u32 share(Time now) const;

  const Settings& settings_;
  KernelId self_;
  std::vector<Record> records_;
  i32 awaited_ = 0;
  u64 share_number_ = 0;
  u32 sent_in_period_ = 0;
  u32 listening_peers_ = 1;
};

}  // namespace cob::net::angel
