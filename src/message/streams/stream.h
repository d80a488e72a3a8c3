// Streams: ordered, reliable flows of bytes both ways between two kernels, over a Messenger.
// Model: a credit window for each direction (a reader that stops holds up its own stream alone);
// written straight to the link, held at the reader; readiness by a list, no callbacks but for
// opening. docs/messaging.md, 4. Owned by the kernel's loop, beside the Messenger.
#pragma once

#include <optional>
#include <unordered_map>

#include "message/streams/stream_state.h"

namespace cob::message {

struct StreamOptions {
  u32 window_bytes = 256U << 10;  // held for each stream at most; of a peer's choice: its own
  u16 max_streams = 4'096;        // further ones: EMFILE
  u16 max_streams_of_peer = 1'024;
  u32 lend_from_bytes = min_stream_loan;  // a write of at least so much goes by loan if it can
};

// Of all peers together, as their PeerStats say.
struct StreamCounters {
  u64 opened = 0, accepted = 0, refused = 0;  // refused: by us
  u64 resets_in = 0, resets_out = 0;
  u64 strays = 0;  // messages for streams that are no more, or never were
  u64 bytes_in = 0, bytes_out = 0, loans_out = 0;
  u64 window_full = 0, ring_full = 0;  // writes cut short
  CounterOf<StreamBreach, stream_breaches> breaches;
};

class Streams {
 public:
  // Accepts, or refuses with an errno. The stream is the handler's from now on; it writes EAGAIN
  // until the handler has returned. Not called for a stream that cannot be had.
  using Acceptor = std::move_only_function<Result<void>(KernelId from, StreamId stream)>;
  using Opened = std::move_only_function<void(Result<StreamId>)>;

  // What has come of a stream since it was last named. Read until EAGAIN or the end, write until
  // EAGAIN, or it may not be named again.
  struct Ready {
    StreamId stream;
    bool readable = false;  // read() has bytes, the end or an error for you
    bool writable = false;  // a write() that found no room may try again, or learn of an error
  };

  // Before the Messenger's first open_link(). Ends before the Messenger, which is not polled in
  // between.
  explicit Streams(Messenger& messenger, const StreamOptions& options = {});
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;
  ~Streams();

  // Whoever opens `service` here. One acceptor a service; without one: ECONNREFUSED. Handlers run
  // within Messenger::poll() and may call all of this but poll().
  void on_open(u32 service, Acceptor acceptor);
  // `opened` runs once, with the stream or with why there is none: ETIMEDOUT at `deadline`;
  // ECONNREFUSED: no such service; EMFILE: too many there; ECANCELED by close(); the acceptor's own
  // error; as Messenger::request(). Not if an error is returned: EMFILE, ENETDOWN, EAGAIN,
  // EOPNOTSUPP.
  Result<StreamId> open(KernelId to, u32 service, Time deadline, Opened opened);

  // How many of `bytes` were taken, from the first. EAGAIN: the window or the link is full, or the
  // stream is not open yet; next_ready() says when to try again. EPIPE: after shutdown_write().
  // What ended the stream: ECONNRESET: its peer has ended; EPROTO: it broke the rules; or the
  // peer's reason. EBADF: no such stream; of all below.
  Result<std::size_t> write(StreamId stream, std::span<const std::byte> bytes);
  // How many bytes were put into `to`. 0: the end, or `to` is empty. EAGAIN: none there now. What
  // came before a complete end can be read also after the peer's.
  Result<std::size_t> read(StreamId stream, std::span<std::byte> to);
  // No more will be written; the other direction goes on. ENOTCONN: not open yet.
  Result<void> shutdown_write(StreamId stream);
  // Gives the stream up. What was written arrives; if anything is unread, or comes after this, the
  // stream is reset with ECONNRESET. Its place is free when the peer has ended its flow too.
  Result<void> close(StreamId stream);
  // Gives the stream up, and ends it for the peer with `reason`, 1 to 4095.
  Result<void> reset(StreamId stream, int reason);

  // After Messenger::poll() and before flush(): says what found no room before, gives those who
  // wait for the ring their turns, notices peers that have ended. Runs no callbacks.
  void poll();
  // A stream that has become readable or writable, each at most once a change, oldest first.
  std::optional<Ready> next_ready();
  // Whether there is one: a kernel with any does not sleep.
  bool any_ready() const { return !ready_.empty(); }

  StreamCounters counters() const;
  // Places taken, those of closed streams whose peers have not ended included.
  std::size_t size() const { return slots_.size() - free_.size(); }

 private:
  using Phase = StreamState::Phase;
  using Farewell = StreamState::Farewell;

  StreamState* find(StreamId id) const;
  Result<StreamState*> held(StreamId id);
  Result<StreamState*> add(PeerStreams& peer);
  void remove(StreamState& stream);
  void remove_if_over(StreamState& stream);
  PeerStreams& look_at(KernelId peer);
  void drop_all(PeerStreams& peer);

  void take_open(KernelId from, const StreamOpen& open, ReplyToken<StreamOpened> token);
  int why_not(PeerStreams& peer, const StreamOpen& open);
  void finish_open(StreamId id, const Result<StreamOpened>& reply);
  void take_data(Incoming& in, const StreamData& data);
  void take_credit(KernelId from, const StreamCredit& credit);
  void take_reset(KernelId from, const StreamReset& reset);
  // The stream of `from` that a message is for, if it may have one now; else it is dealt with.
  StreamState* addressed(KernelId from, u32 to, u32 sender);

  // One message's worth of `bytes`; returns how many.
  Result<std::size_t> write_some(PeerStreams& peer, StreamState& stream,
                                 std::span<const std::byte> bytes);
  std::size_t lendable(const PeerStreams& peer, const StreamState& stream, const Link& link,
                       std::size_t bytes) const;
  bool may_use(PeerStreams& peer, StreamState& stream, Link& link, u32 lines);
  void give_turns(PeerStreams& peer);
  void owe(StreamState& stream);
  bool pay(StreamState& stream);
  void fail(StreamState& stream, int error);
  void end_with(StreamState& stream, int reason, int error);
  void break_off(StreamState& stream, StreamBreach breach);
  PeerStats& stats(KernelId peer) const { return messenger_.links().find(peer)->counters; }
  void count(KernelId peer, StreamBreach breach);
  void set_ready(StreamState& stream);

  Messenger& messenger_;
  StreamOptions options_;
  StreamPool pool_;
  std::unordered_map<u32, Acceptor> acceptors_;
  std::vector<std::unique_ptr<StreamState>> slots_;
  List<StreamState, &StreamState::siblings> free_;  // oldest first, so that numbers come back late
  List<StreamState, &StreamState::readiness> ready_;
  std::vector<PeerStreams> peers_;
  List<PeerStreams, &PeerStreams::active> active_;  // those with streams
  u64 round_ = 1;
};

}  // namespace cob::message
