// Policy: Angel's decisions, for one kernel: where a SYN goes, from whom an idle kernel takes,
// which flow groups move. Model: pure; a snapshot of boards and the time are passed in, chance
// comes from a seed, and a decision is returned that the caller carries out and reports back
// (settled, answered). The same code runs in kernels and in cob-sim. Kernel's loop only.
#pragma once

#include <array>
#include <optional>
#include <span>

#include "base/random.h"
#include "net/angel/groups.h"
#include "net/angel/pace.h"
#include "net/angel/peers.h"

namespace cob::net::angel {

// What a kernel keeps for each of its listeners.
struct ListenerState {
  Pace pace;
  bool over = false;  // above the redirect mark, until below half of it
};

// A kernel's own side of a decision. `listens` false: nobody here holds the listener.
struct Own {
  const KernelLoad& load;
  const ListenerLoad& listener;
  ListenerState& state;
  bool listens = true;
};

// Why a SYN was kept or sent, or why nothing was taken; each is counted.
enum class Cause : u8 {
  kept_free,        // someone waits here
  kept_below_mark,  // its wait here is not worth a redirect
  kept_switched_off,
  kept_no_candidate,  // nobody waits anywhere that may be believed, and no backlog is far smaller
  kept_no_token,
  redirected_to_waiting,
  redirected_to_smaller_backlog,
  redirected_away,  // this kernel drains, or nobody here holds the listener
  took,
  took_for_order,
  took_from_hung,
  left_busy,     // no thread waits here without a connection coming
  left_none,     // nobody has a connection queued for long enough
  left_pausing,  // who has is asked already, or gave nothing just now
  left_switched_off,
  causes,
};
const char* name(Cause cause);

struct Placement {
  std::optional<KernelId> redirect;  // nullopt: keep
  Cause cause = Cause::kept_free;
};

struct Take {
  KernelId from;
  u32 connections = 0;
  bool by_record = false;  // the victim hangs: through its establishment records, without asking it
};

class Policy {
 public:
  Policy(KernelId self, u16 kernels, const Settings& settings, u64 seed);
  Policy(const Policy&) = delete;  // belief refers to the settings
  Policy& operator=(const Policy&) = delete;

  // A SYN that came to this kernel for one of its groups. Of those redirected the caller reports
  // settled(). A SYN that was redirected to this kernel is kept, always: never ask for it.
  Placement place(const Own& own, std::span<const Peer> peers, Time now);
  // Cheap: whether place() could redirect at all, so that no board need be read before.
  bool would_place(const Own& own, Time now) const;

  // Of a kernel with a free thread, or one whose thread has accepted just now: it may take one that
  // has waited long elsewhere ahead. What comes is queued by its establishment. The caller reports
  // answered(), also when it gets none.
  std::optional<Take> take(const Own& own, std::span<const Peer> peers, Time now);

  std::size_t balance_groups(const KernelLoad& own, std::span<const GroupLoad> groups,
                             std::span<const Peer> peers, Time now, std::span<GroupMove> out) {
    return groups_.balance(own, groups, peers, peers_, random_, now, out);
  }
  std::size_t evacuate_groups(std::span<const GroupLoad> groups, std::span<const Peer> peers,
                              Time now, std::span<GroupMove> out) {
    return groups_.evacuate(groups, peers, peers_, random_, now, out);
  }

  bool suspected(const Peer& peer, Time now) { return peers_.suspected(peer, now); }
  void settled(KernelId by, Outcome outcome, Time now) { peers_.settled(by, outcome, now); }
  void answered(KernelId by, u32 got, Time now) { peers_.answered(by, got, now); }
  void forget(KernelId peer) { peers_.forget(peer); }

  // Takes effect with the next decision. REQUIRES: periods and rates above 0.
  void set(const Settings& settings) { settings_ = settings; }
  const Settings& settings() const { return settings_; }
  u64 count(Cause cause) const { return counts_[static_cast<std::size_t>(cause)]; }

 private:
  Placement placed(Cause cause, std::optional<KernelId> to = {});
  std::nullopt_t left(Cause cause);
  const Peer* waiting_candidate(std::span<const Peer> peers, Time now);
  const Peer* smaller_backlog(std::span<const Peer> peers, u32 below, Time now);
  bool over_mark(const Own& own, i64 turns, Time now) const;
  bool stuck(const ListenerLoad& listener, Time now) const;
  bool token(Time now);

  Settings settings_;
  Peers peers_;
  Groups groups_;
  Random random_;
  i64 token_ns_ = 0;  // the time up to which tokens are spent
  std::array<u64, static_cast<std::size_t>(Cause::causes)> counts_{};
};

}  // namespace cob::net::angel
