// Taking: connections that are established and not accepted go from a full accept queue to a kernel
// where somebody waits; docs/angel.md, "Taking".
// Model: the taker asks, the giver takes the connection out of its stack and sends it, and holds
// its frames; the taker says that it can take it in, and holds what comes there; with `accepted`
// read it is the taker's, and before whatever fails leaves it where it was. So a death or a hang of
// either leaves one owner. Kernel's loop only.
#pragma once

#include <deque>
#include <unordered_map>

#include "kernel/departures.h"
#include "kernel/sockets.h"
#include "message/messenger.h"

namespace cob::kernel {

struct TakenMessage;
enum class TakeStep : u32;

class Taking {
 public:
  // The kernel's part.
  class Host {
   public:
    virtual ~Host() = default;
    virtual u32 new_move() = 0;
    virtual void reroute(KernelId peer, const MovedFlow& flow, KernelId to) = 0;
    virtual void take_held(const std::vector<Departures::HeldFrame>& frames, Time now) = 0;
  };

  // Under way in one direction. Reaction when full: nothing is given, or it is refused.
  static constexpr std::size_t max_under_way = 64;
  // How long a giver waits for the taker's word; then the connection is its own again.
  static constexpr Duration patience = Duration::milliseconds(2);
  static constexpr u32 most_at_once = 16;
  // One taker gets no more than so many in a period, and nothing for a pause after one that it
  // refused or let wait, doubling to the last: what is on its way to it nobody can accept here.
  static constexpr Duration period = Duration::milliseconds(10);
  static constexpr u32 most_a_period = 64;
  static constexpr Duration shortest_pause = Duration::milliseconds(10),
                            longest_pause = Duration::seconds(10);

  struct Counters {
    u64 asked = 0;          // times this kernel asked another
    u64 taken = 0;          // connections that came here
    u64 given = 0;          // connections that went from here
    u64 asked_in_vain = 0;  // times another asked, and there was none to give
    u64 given_back = 0;     // refused, or not answered in time: they stayed here
    u64 refused = 0;        // that came and could not be taken in
    u64 lost = 0;           // taken, and then nobody listened here any more: reset
  };

  Taking(KernelId self, u16 kernels, Sockets& sockets, Departures& departures, Host& host)
      : self_(self),
        kernels_(kernels),
        sockets_(sockets),
        departures_(departures),
        host_(host),
        takers_(kernels) {}
  // Registers the message handlers. Both outlive this.
  void attach(message::Messenger& messenger, net::Stack& stack);
  // Whether others are given anything.
  void set_giving(bool on) { giving_ = on; }

  // False: it cannot be asked just now. `done`: how many it gave.
  bool ask(KernelId from, net::Endpoint listener, u32 most,
           std::move_only_function<void(u32 given)> done);
  void begin_turn(Time now) { now_ = now; }
  void poll();
  Time next_deadline() const;
  bool under_way() const { return !gives_.empty() || !takes_.empty() || !owed_.empty(); }
  // Connections are on their way here.
  bool coming() const { return !takes_.empty(); }
  void peer_down(KernelId peer);
  const Counters& counters() const { return counters_; }

 private:
  struct Give {
    TakenConnection taken;
    KernelId to;
    Time until;
  };
  struct Take {
    TakenConnection taken;
    u32 move = 0;  // this kernel's, of what is held
  };
  struct Taker {
    u64 period = 0;  // of `given`
    u32 given = 0;
    Time paused_until{};
    Duration pause = shortest_pause;
  };
  struct Word {
    KernelId to;
    u32 move = 0;
    TakeStep step{};
  };
  static u64 name_of(KernelId from, u32 move) { return u64{from.value} << 32 | move; }

  u32 give(KernelId to, net::Endpoint listener, u32 most);
  bool send(KernelId to, u32 move, const TakenConnection& taken);
  void keep(u32 move);
  bool may_give(KernelId to);
  void distrust(KernelId taker);
  void on_taken(KernelId from, const TakenMessage& m, std::span<const std::byte> tail);
  void on_word(KernelId from, u32 move, TakeStep step);
  void take_in(KernelId from, Take take);
  void say(const Word& word);
  bool try_say(const Word& word);

  KernelId self_;
  u16 kernels_;
  Sockets& sockets_;
  Departures& departures_;
  Host& host_;
  message::Messenger* messenger_ = nullptr;
  net::Stack* stack_ = nullptr;
  bool giving_ = false;
  Time now_;
  std::unordered_map<u32, Give> gives_;  // by move
  std::unordered_map<u64, Take> takes_;  // by name_of
  std::vector<Taker> takers_;            // by number
  std::deque<Word> owed_;                // peers whose rings were full
  Counters counters_;
};

}  // namespace cob::kernel
