// Far seats: sockets that programs of several kernels of an island hold, by SCM_RIGHTS;
// docs/descriptors.md, 11.
// Model: one kernel has the socket itself, its *seat*; the others that hold it have a description
// that is *away*: it knows whom to ask, and every call on it waits until the seat has come, as an
// image of that one description. Who has the seat knows which others hold it. Until the giver has
// read `accepted` the seat is its own, then the taker's, so a death of either leaves one owner.
// Kernel's loop only.
#pragma once

#include <deque>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "kernel/moved_program.h"
#include "kernel/sockets.h"
#include "kernel/taking.h"

namespace cob::kernel {

struct SeatImage;
struct SeatReply;
struct SeatWord;
enum class SeatStep : u32;

class FarSeats {
 public:
  // The description, with a reference while it runs, or an errno: ENOENT, nobody knows it.
  using Found = std::move_only_function<void(Description* found, i32 error)>;

  // How long a seat is asked for; how long a giver waits for the taker's word, or the seat's user.
  static constexpr Duration patience = Duration::seconds(2),
                            image_patience = Duration::milliseconds(500);
  static constexpr Duration retry = Duration::microseconds(200);
  static constexpr std::size_t max_asks = 1'024;     // beyond: EAGAIN
  static constexpr std::size_t max_under_way = 256;  // each way; beyond: asked again, or refused
  static constexpr std::size_t max_waiting = 1'024;  // calls on one that is away; beyond: EBUSY
  static constexpr std::size_t max_owed = 65'536;    // beyond, readiness is not told
  static constexpr std::size_t most_image = std::size_t{32} << 20;

  struct Counters {
    u64 came = 0, gone = 0;  // seats
    u64 kept = 0;            // that were to go: the other refused, or was not heard of
    u64 lost = 0;            // away when the kernel that had them ended
  };

  FarSeats(Sockets& sockets, Departures& departures, Directory& directory, Taking::Host& host,
           KernelId self, u16 kernels)
      : sockets_(sockets),
        departures_(departures),
        directory_(directory),
        host_(host),
        self_(self),
        kernels_(kernels) {
    sockets.set_far_seats(*this);
  }
  // Registers the message handlers. Both outlive this.
  void attach(message::Messenger& messenger, net::Stack& stack);

  // The seat of what has this token comes here; `first` is asked first. `found` runs once, later.
  void find(u64 token, std::optional<KernelId> first, Found found);
  // The call is done when the seat has come. REQUIRES: Sockets::is_away(d).
  void park(Description& d, const ParkedCall& call);
  // Its last reference here is gone. REQUIRES: SharedPart::far.
  void last_reference(Description& d, bool reset);
  // What poll(2) says of it may have changed. REQUIRES: SharedPart::far.
  void changed(Description& d);

  void begin_turn(Time now) { now_ = now; }
  void poll();
  bool under_way() const {
    return !gives_.empty() || !asks_.empty() || !owed_.empty() || !news_.empty();
  }
  Time next_deadline() const;
  void peer_down(KernelId peer);
  const Counters& counters() const { return counters_; }

 private:
  struct Ask {
    std::vector<Found> found;
    std::deque<u16> to_ask;  // in this order
    std::optional<KernelId> asked;
    u64 round = 0;  // of the request that is not answered yet
    u32 hops = 0;
    i32 error = ENOENT;
    Time until, again = Time::never();
  };
  struct Give {
    u64 token = 0;
    u32 handle = 0;  // it has a reference
    KernelId to{0};
    Time until{};
    bool last = false;  // nobody holds it here any more
    bool packed = false;
    std::vector<std::byte> image{};
    std::size_t head = 0;  // bytes of `image` before what MovedGroup reads
    std::size_t sent = 0;
    std::optional<MovedEnd> end{};
  };
  struct Take {
    u64 token = 0;
    std::vector<std::byte> image{};
    u32 bytes = 0;
    message::KernelSet others{};
    std::optional<MovedGroup> group{};  // accepted
    u32 move = 0;                       // this kernel's, of what is held
  };
  struct Word {
    KernelId to;
    u64 token;
    u32 move;
    SeatStep step;
    u32 value;
  };
  static u64 name_of(KernelId from, u32 move) { return u64{from.value} << 32 | move; }
  bool other_kernel(KernelId kernel) const {
    return kernel != self_ && kernel.value < kernels_ && directory_.in_reach(kernel);
  }

  // far_seats.cc
  void ask(u64 token, std::optional<KernelId> first, Found found);
  void ask_next(u64 token);
  void heard(u64 token, u64 round, KernelId peer, const Result<SeatReply>& reply);
  void end(u64 token, Description* found, i32 error);
  void run_waiting(Description& d);
  void refuse_waiting(Description& d, i32 error);
  void lose(Description& d);
  void close(Description& d, bool reset);
  Result<SeatReply> on_ask(KernelId from, u64 token);
  void on_word(KernelId from, const SeatWord& m);
  void on_left(u64 token, KernelId who, u32 hops);
  void say(const Word& word);
  bool try_say(const Word& word);
  // far_seats_move.cc
  bool give(Description& d, KernelId to, bool last);
  void step(u32 move);
  void pack(u32 move, Give& give, Description& d);
  void drop_give(u32 move, i32 error, bool tell);
  void keep(u32 move);
  void on_accepted(KernelId from, u64 token, u32 move);
  void on_image(KernelId from, const SeatImage& m, std::span<const std::byte> tail);
  i32 accept(KernelId from, Take& take);
  void take_in(KernelId from, Take take);
  void drop_take(Take& take);

  Sockets& sockets_;
  Departures& departures_;
  Directory& directory_;
  Taking::Host& host_;
  KernelId self_;
  u16 kernels_;
  message::Messenger* messenger_ = nullptr;
  net::Stack* stack_ = nullptr;
  Time now_;
  u64 rounds_ = 0;
  std::unordered_map<u64, Ask> asks_;    // by token
  std::map<u32, Give> gives_;            // by move
  std::unordered_map<u64, Take> takes_;  // by name_of
  std::unordered_set<u32> far_;          // handles of those with SharedPart::far
  std::vector<u32> news_;                // handles: who else holds them has to hear
  std::deque<Word> owed_;                // peers whose rings were full
  Counters counters_;
};

}  // namespace cob::kernel
