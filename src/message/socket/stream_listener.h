// StreamListener: one listening address for all peers of a kernel: accepts, waits for the hello,
// hands the stream to the transport of whom it is from. docs/messaging.md, 8 and 9.
// Model: those who have not authenticated are few, short of bytes and short of time. Owned by the
// transports that it serves; the kernel's loop.
#pragma once

#include <list>
#include <vector>

#include "message/socket/refusals.h"
#include "message/socket/stream_greeting.h"

namespace cob::message {

// Who takes a peer's streams.
class StreamHost {
 public:
  virtual ~StreamHost() = default;
  // `hello` is for this kernel in this cob. The rest of it is the host's to judge.
  virtual void accept(std::unique_ptr<ByteStream> stream, const Hello& hello, Time now) = 0;
};

struct ListenerOptions {
  CobId cob{};
  KernelId self;
  std::size_t most_greeting = 64;  // at once, before their hello; a further one ends the oldest
  Duration hello_within = Duration::seconds(2);
};

class StreamListener {
 public:
  StreamListener(const ListenerOptions& options, std::unique_ptr<StreamAcceptor> acceptor)
      : options_(options), acceptor_(std::move(acceptor)) {}

  // Streams of kernel `peer` go to `host`, until forget(). REQUIRES: nobody serves it.
  void serve(KernelId peer, StreamHost& host);
  void forget(KernelId peer);

  // What is refused is counted in `stats` too, which outlives the listener.
  void count_in(PeerStats& stats) { refusals_.count_in(stats); }
  // Called by each host's poll(); works once for each `now`.
  void poll(Time now);
  Time next_deadline() const;
  Result<void> watch(FdRef epoll);
  const Refusals& refusals() const { return refusals_; }
  std::size_t greeting() const { return guests_.size(); }

 private:
  // Looking for new connections costs a call into the host.
  static constexpr Duration look_every = Duration::milliseconds(1);
  static constexpr int accepts_a_look = 16;

  struct Guest {
    std::unique_ptr<ByteStream> stream;
    StreamGreeting greeting;
    Time until;
  };
  struct Served {
    KernelId peer;
    StreamHost* host;
  };

  void look(Time now);
  // True: it is no guest any more.
  bool greet(Guest& guest, Time now);
  void refuse(Guest& guest, StreamRefusal refusal, u16 kernel);

  ListenerOptions options_;
  std::unique_ptr<StreamAcceptor> acceptor_;
  std::vector<Served> served_;
  std::list<Guest> guests_;  // the oldest first
  Refusals refusals_;
  FdRef epoll_;
  Time polled_{-1};
  Time looked_{-look_every.ns};
};

}  // namespace cob::message
