// SimulatedStreams: byte streams between kernels in simulated time: delay, bandwidth, stalls,
// resets, partitions, whole connections that arrive twice.
// Model: TCP as its users see it: bytes come in order or the connection breaks, so a lost packet is
// a stall. One seed, one run. Owned by the simulation or test; one thread.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <vector>

#include "base/random.h"
#include "message/socket/byte_stream.h"
#include "sim/simulated_clock.h"

namespace cob::sim {

// Odds in a million, each write or each dial on its own.
struct StreamFaults {
  Duration delay = Duration::microseconds(50);
  Duration jitter{};
  u64 bytes_per_second = 0;  // 0: no limit
  u32 stall_ppm = 0;         // of a write: it and what follows it waits up to `stall` longer
  Duration stall = Duration::milliseconds(300);
  u32 reset_ppm = 0;      // of a write: the connection breaks, what is under way is lost
  u32 duplicate_ppm = 0;  // of a dial: all that the dialer says arrives once more, within
  Duration duplicate_within = Duration::seconds(3);
};

class SimulatedStreams {
 public:
  static constexpr std::size_t window_bytes = std::size_t{256} * 1024;  // unread, a direction

  // `clock` outlives it, and it outlives its dialers, acceptors and streams.
  SimulatedStreams(const SimulatedClock& clock, u64 seed) : clock_(clock), random_(seed) {}

  std::unique_ptr<message::StreamDialer> dialer(u16 from, u16 to);
  // Replaces the one that was there: a kernel has started anew.
  std::unique_ptr<message::StreamAcceptor> acceptor(u16 at);

  void set_faults(const StreamFaults& faults) { faults_ = faults; }
  // Nothing gets from `from` to `to` while cut; it waits.
  void cut(u16 from, u16 to) { cut_.insert({from, to}); }
  void heal() { cut_.clear(); }
  // Breaks all connections of the two.
  void reset(u16 a, u16 b);

  struct Counters {
    u64 dials = 0, resets = 0, stalls = 0, duplicates = 0;
  };
  const Counters& counters() const { return counters_; }

 private:
  class Stream;
  class Dialer;
  class Acceptor;
  struct Chunk {
    Time due;
    std::vector<std::byte> bytes;
    std::size_t taken = 0;
  };
  // One direction of a connection.
  struct Pipe {
    std::deque<Chunk> chunks;
    std::size_t bytes = 0;
    Time last_due;                 // nothing overtakes
    Time end_due = Time::never();  // the writer has closed
  };
  struct Connection {
    u16 dialer = 0, acceptor = 0;
    Time opens;  // at the acceptor; at the dialer later by a delay
    bool accepted = false;
    bool reset = false;
    Pipe there, back;
    bool recorded = false;
    std::vector<Chunk> record;  // all that the dialer said
  };
  // A connection that will arrive once more.
  struct Copy {
    std::shared_ptr<Connection> original;
    Time due;
  };

  std::unique_ptr<message::ByteStream> dial(u16 from, u16 to);
  std::shared_ptr<Connection> arriving(u16 at);
  void replay(Copy& copy);
  bool is_cut(u16 from, u16 to) const { return cut_.contains({from, to}); }
  Duration delay();
  std::size_t write(Connection& connection, Pipe& pipe, std::span<const std::byte> from);

  const SimulatedClock& clock_;
  Random random_;
  StreamFaults faults_;
  std::set<std::pair<u16, u16>> cut_;
  std::vector<std::shared_ptr<Connection>> dialed_;  // and not accepted
  std::vector<std::weak_ptr<Connection>> all_;
  std::vector<Copy> copies_;
  std::map<u16, u64> acceptors_;  // the generation of each kernel's present one
  Counters counters_;
};

}  // namespace cob::sim
