// Rendezvous: processes of one machine become peers of each other, without a supervisor, and learn
// of each other's end.
// Model: a connected socket a pair; hello, then memory, each way; from then on nothing but its
// hang-up, which is the peer's end: exact, and a stopped process has not ended. In a group every
// kernel listens, and calls those of lower numbers until they answer. docs/messaging.md, 7.
// Owned by the kernel's loop.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/passing.h"
#include "message/meeting_place.h"
#include "message/messenger.h"

namespace cob::message {

struct RendezvousOptions {
  // Where the group meets: "/a/directory" or "@name" (meeting_place.h). Empty: peers come by meet()
  // only.
  std::string place;
  u64 bulk_bytes = Links::default_bulk_bytes;  // of each link, our side
};

class Rendezvous {
 public:
  static constexpr u32 version = 1;
  static constexpr const char* refused_by_peer = "the peer refused us";
  static constexpr Duration look_interval = Duration::microseconds(100);  // of a busy loop
  static constexpr Duration first_retry = Duration::milliseconds(1);      // doubles
  static constexpr Duration last_retry = Duration::milliseconds(250);
  // Connections that have not said who they are; when there is one more, the oldest is closed.
  static constexpr std::size_t most_strangers = 64;

  struct Counts {
    u64 met = 0;         // peers that came up
    u64 ended = 0;       // peers that were up and hung up
    u64 refused = 0;     // what came was not what it should be; per peer: Messenger::counters()
    u64 refused_us = 0;  // a peer refused us
    u64 cut = 0;         // peers that broke the message protocol
  };

  // An epoch for a process that is started anew each time: seconds since the machine's start.
  static u32 epoch_by_clock(Time now) { return static_cast<u32>(now.ns / 1'000'000'000) + 1; }

  // `messenger` must outlive it, and knows all of its types. EADDRINUSE: a living process has our
  // number.
  static Result<std::unique_ptr<Rendezvous>> create(Messenger& messenger,
                                                    const RendezvousOptions& options = {});
  // Leaves: the peers see our end, and we theirs.
  ~Rendezvous();

  // The other end of this SOCK_SEQPACKET (seqpacket_pair(), inherited by a child; or connected by
  // the caller) shall be a peer; it says which. Whoever forks closes the end that is not its own,
  // for the hang-up comes with the last copy. EACCES: another user's.
  Result<void> meet(Fd socket);

  // Puts what wakes us into `epoll`, which must outlive us, now and for all later peers, their
  // bells included.
  Result<void> watch(FdRef epoll);
  // Meets who has come, calls who is missing, tells the Messenger of those that ended, and takes
  // its take_faulted(): such a peer is refused until it has another epoch. True if a peer came or
  // went. In every turn of the loop; not in handlers.
  bool poll(Time now);
  Time next_deadline() const;

  const Counts& counts() const { return counts_; }
  // What was refused last, or why we were; code 0: nothing.
  const Error& last_refusal() const { return last_refusal_; }

 private:
  enum class State { greeting, opened, up };  // hello is awaited, memory is, the hang-up is
  struct Connection {
    Fd socket;
    Fd button;  // that rings the peer, until its link is open
    Fd bell;    // that the peer rings
    bool called = false;
    State state = State::greeting;
    KernelId peer;  // called, or since `opened`
    u32 epoch = 0;
  };
  struct Seat {
    u64 connection = 0;  // 0: none has said that it is this kernel
    u32 cut_epoch = 0;   // 0: none
    bool calling = false;
    Time call_at = Time::never();
    Duration retry = first_retry;
  };
  struct Hello;
  using Entry = std::unordered_map<u64, Connection>::iterator;

  explicit Rendezvous(Messenger& messenger, u64 bulk_bytes)
      : messenger_(messenger), bulk_bytes_(bulk_bytes), seats_(messenger.links().kernels()) {}
  Result<void> start(const RendezvousOptions& options);
  void look(Time now);
  void accept_all(Time now);
  void call_due(Time now);
  Result<void> greet(Fd socket, KernelId called);
  void read_all(u64 id, Time now);
  Result<void> on_datagram(Connection& connection, u64 id, std::span<const std::byte> bytes,
                           Datagram& datagram);
  Result<void> on_hello(Connection& connection, u64 id, const Hello& hello, std::size_t bytes,
                        Datagram& datagram);
  Result<void> on_memory(Connection& connection, Datagram& datagram);
  Result<void> check_hello(const Connection& connection, const Hello& hello,
                           std::size_t bytes) const;
  Result<void> watch_bell(const Connection& connection) const;
  void refuse(Entry entry, const Error& error, Time now);
  void note_refusal(const Error& error);
  void close(Entry entry, Time now);
  void close_oldest_stranger(Time now);
  void pause_listening(Time now);
  static bool has_hung_up(const Connection& connection);

  Messenger& messenger_;
  u64 bulk_bytes_;
  MeetingPlace place_;
  Fd listener_;
  Time listen_at_ = Time::never();  // out of descriptors until then
  Fd events_;                       // listener and connections
  FdRef epoll_;                     // the caller's
  std::vector<Seat> seats_;         // by kernel
  std::unordered_map<u64, Connection> connections_;
  u64 next_id_ = 1;
  Time next_look_;
  Time next_call_ = Time::never();  // the earliest of the seats'
  bool changed_ = false;
  Counts counts_;
  Error last_refusal_;
  std::unordered_set<const char*> told_;  // causes that were logged
};

// What watch() files a peer's bell under, so that a loop knows whose it heard.
constexpr u64 bell_mark = u64{0x636f'6262} << 32;
constexpr u64 bell_event(KernelId peer) { return bell_mark | peer.value; }
constexpr bool is_bell_event(u64 data) { return data >> 16 == bell_mark >> 16; }

}  // namespace cob::message
