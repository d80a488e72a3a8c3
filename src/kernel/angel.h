// Angel in a kernel: it shows its load, reads the others', and carries out what net/angel decides:
// SYNs that another kernel gets, connections that are taken; docs/angel.md.
// Model: the load is looked at once an interval while the kernel turns, written when it changed,
// and read by others only when they have a decision to make. At rest nothing is done. Kernel's loop
// only.
#pragma once

#include <functional>
#include <unordered_map>
#include <vector>

#include "base/memory.h"
#include "kernel/board.h"
#include "kernel/flows.h"
#include "kernel/group_moves.h"
#include "kernel/sockets.h"
#include "kernel/taking.h"
#include "message/control.h"
#include "net/angel/policy.h"

namespace cob::kernel {

class Angel final : public SynPlacement {
 public:
  // How often the load is looked at, and its line written, at most.
  static constexpr Duration look_interval = Duration::microseconds(100);
  // While connections wait here: the same, longer and longer, so that a timer is rarely the only
  // work.
  static constexpr Duration longest_look = Duration::milliseconds(2);
  static constexpr Duration nudge_interval = Duration::microseconds(200);
  static constexpr Duration links_interval = Duration::milliseconds(1);
  // Who has not turned for so long, awake or asleep by its board, is sent something that it has to
  // take, by kernels that turn and listen where it does.
  static constexpr Duration probe_awake = Duration::milliseconds(10),
                            probe_asleep = Duration::milliseconds(100);

  struct Counters {
    u64 shown = 0;  // times the load was written
    u64 nudges_out = 0, nudges_in = 0;
    u64 served = 0, failed = 0;  // of the SYNs that others got
    u64 suspicions = 0;          // times another kernel began to look hung
  };
  // What the kernel alone knows of its work.
  struct Work {
    u32 input_waiting = 0;
    Time input_since{};  // 0 ns: none is left over
    u32 runnable = 0;
  };

  // `board`: this kernel's own. All outlive this.
  Angel(const message::Config& config, Sockets& sockets, Directory& directory, Flows& flows,
        Taking& taking, Board& board, GroupMoves::Tell tell);
  // Who hears that another kernel begins to look hung.
  void on_suspicion(std::function<void(KernelId)> suspects) { suspects_ = std::move(suspects); }
  void attach(message::Messenger& messenger, net::Stack& stack);
  // message::angel_* and the kernels that drain.
  void set(u32 policies, u64 draining);
  void add_peer(KernelId peer, Mapping board);
  void peer_down(KernelId peer);

  void begin_turn(Time now) { now_ = now; }
  // Once a turn, behind all work.
  template <typename WorkOf>
  void poll(WorkOf work) {
    if (now_ >= next_look_ && active_) look(work());
  }
  // The kernel is about to sleep, or has slept.
  void asleep(bool on, const Work& work);
  Time next_deadline() const { return waiting_ ? next_look_ : Time::never(); }

  // SynPlacement
  std::optional<KernelId> place(net::Endpoint local, std::optional<u16> group) override;
  bool shuns(KernelId kernel) const override;
  void settled(KernelId by, bool served) override;

  u32 policies() const { return policies_; }
  const Counters& counters() const { return counters_; }
  void show(BoardAngel& shown) const;

 private:
  // A listener of this kernel that others have too.
  struct Own {
    net::Endpoint local;
    net::angel::ListenerState state;
    net::angel::ListenerLoad load;
    u64 accepted = 0;
    Time looked{};
    u64 seen = 0;  // the look that found it last
  };
  struct Peer {
    Mapping board;
    Time unread_since{};  // 0 ns: it has taken what was sent to it, or turns
    u64 heartbeat = 0;
    Time beat{};  // when that was seen to change, or it was given something to take
    Time nudged{};
    bool suspected = false;
  };

  void look(const Work& work);
  void balance_groups();
  // `act`: what can be done about it is done; it leaves with this turn.
  void look_at_listeners(bool act);
  void look_at_links();
  void show_load(const Work& work);
  Own& note(u64 key, const AcceptLoad& load);
  Own* own_at(net::Endpoint to);
  std::span<const net::angel::Peer> peers_at(u64 key, net::Endpoint local);
  void nudge(u64 key, const Own& own);
  void take_if_free(u64 key, Own& own);
  void on_nudge(u64 key);
  const Board* board_of(u16 kernel) const;

  KernelId self_;
  u16 kernels_;
  Sockets& sockets_;
  Directory& directory_;
  Taking& taking_;
  Board& board_;
  message::Messenger* messenger_ = nullptr;
  net::Stack* stack_ = nullptr;
  net::angel::Policy policy_;
  GroupMoves groups_;
  u32 policies_ = 0;
  u64 draining_ = 0, suspected_ = 0;
  bool active_ = false;
  Time now_, next_look_, next_links_;
  Duration pace_ = look_interval;
  bool waiting_ = false;  // connections wait at listeners that others have too, or who accepts
                          // there may begin to wait, which nobody tells
  u64 worked_ = 0;        // segments sent by the last look
  bool asleep_ = false;
  u64 looks_ = 0;
  net::angel::KernelLoad load_;
  std::vector<AcceptLoad> accept_loads_;
  std::unordered_map<u64, Own> own_;  // by key_of
  // Where the last SYN went; one look a turn is enough. Null: look.
  net::Endpoint last_to_;
  Own* last_own_ = nullptr;
  u64 last_key_ = 0;
  std::array<u64, board_shared_listeners> rows_{};
  std::vector<Peer> peers_;                 // by number
  std::vector<net::angel::Peer> snapshot_;  // of peers_at()
  std::function<void(KernelId)> suspects_;
  Counters counters_;
};

}  // namespace cob::kernel
