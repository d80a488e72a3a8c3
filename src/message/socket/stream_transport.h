// StreamTransport: a link carried by byte streams: sessions that outlive their connections until
// the lease runs out. docs/messaging.md, 7 and 8.
// Model: of two kernels the one with the lower number dials, the other listens. *Out* is private
// memory, *in* a private copy of the peer's *out*. Owned by the kernel's loop.
#pragma once

#include "base/memory.h"
#include "base/random.h"
#include "message/socket/stream_listener.h"
#include "message/socket/stream_receiver.h"
#include "message/transport.h"

namespace cob::message {

struct StreamTransportOptions {
  CobId cob{};
  u64 seed = 1;  // of jitter and of this transport's instance number: another at each start
  Duration lease = Duration::seconds(2);
  u64 bulk_bytes = u64{64} << 20;          // of our bulk area; whole pages
  u64 max_peer_bulk_bytes = u64{1} << 30;  // of the peer's, of which we hold a copy
  Duration least_back_off = Duration::milliseconds(10);
  Duration most_back_off = Duration::seconds(2);
  std::size_t poll_bytes = std::size_t{1} << 20;  // received, and sent, in one poll, about
};

class StreamTransport final : public Transport, private StreamHost {
 public:
  // For the kernel with the lower number, and for the one with the higher.
  StreamTransport(const StreamTransportOptions& options, std::unique_ptr<StreamDialer> dialer);
  StreamTransport(const StreamTransportOptions& options, std::shared_ptr<StreamListener> listener);
  ~StreamTransport() override;

  void count_in(PeerStats& peer, PeerStats& own) override;
  void start(const LinkHeader& mine) override;
  void poll(Time now) override;
  Time next_deadline() const override;
  const LinkEnds* ends() const override { return session_ ? &session_->ends : nullptr; }
  u64 session() const override { return sessions_; }
  Error why_down() const override { return why_down_; }
  void end(const Error& why) override;
  void publish() override;
  void lend(u64 offset, u64 bytes) override;
  void ring() override {}  // what has been published wakes
  void set_armed(u32) override {}
  TransportKind kind() const override { return TransportKind::socket; }
  bool pending() const override;
  Result<void> watch(FdRef epoll) override;

  struct Counters {
    u64 dials = 0;        // or accepted hellos
    u64 connections = 0;  // that came to carry a session
    u64 sessions = 0;
    u64 bytes_in = 0;  // received; by sessions
  };
  const Counters& counters() const { return counters_; }
  const Refusals& refusals() const { return refusals_; }

 private:
  enum class Phase : u8 {
    none,
    opening,  // dialer: the stream connects
    hello,    // dialer: waits for the answer to its hello
    open,     // waits for the peer's `open`
    ready,    // a new session waits until the old one's end has been seen
    live,
  };
  struct Connection {
    std::unique_ptr<ByteStream> stream;
    Phase phase = Phase::none;
    StreamGreeting greeting;
    Hello theirs{};
    u64 session = 0;  // on the wire
    u64 nonce = 0;    // listener: that we have said
    bool resumes = false;
    LinkHeader header{};  // the peer's, of a new session
    Time until;           // it must be live
    Time live_since;
  };
  struct Arrived {
    std::unique_ptr<ByteStream> stream;
    Hello hello{};
  };
  struct Memory {
    Mapping out, in;
  };
  struct Session {
    LinkEnds ends;
    std::optional<StreamSender> sender;
    std::optional<StreamReceiver> receiver;
    u64 number = 0;  // on the wire
  };

  // StreamHost.
  void accept(std::unique_ptr<ByteStream> stream, const Hello& hello, Time now) override;

  bool dials() const { return dialer_ != nullptr; }
  // Dialer.
  void dial();
  bool on_hello(const Hello& hello);
  // Listener: a stream that accept() has left. It takes the place of the present one.
  void admit(Arrived arrived);
  // Whether the peer may be who it says, and learns from it.
  StreamRefusal judge(const Hello& hello);
  Hello hello_now(u64 session, u64 nonce) const;
  LinkHeader header_now() const;
  bool say_open(u64 nonce);

  // Takes the connection one step further. False: it waits, or is no more.
  bool step();
  bool step_greeting();
  bool on_open(std::span<const std::byte> body);
  void on_bye(std::span<const std::byte> body);
  // The connection carries a session from now on: the present one, or a new one.
  bool go_live();
  Result<void> begin_session();
  void transfer();
  void send();
  void keep_alive();

  void end_session(const Error& why);
  void lose_connection();
  bool refuse(StreamRefusal refusal);  // a connection that is not live
  void fault(StreamRefusal refusal);   // a session

  StreamTransportOptions options_;
  Random random_;
  u64 instance_;
  std::unique_ptr<StreamDialer> dialer_;
  std::shared_ptr<StreamListener> listener_;
  LinkHeader header_{};
  FdRef epoll_;

  std::optional<Arrived> arrived_;
  Connection connection_;
  std::unique_ptr<Session> session_;
  u64 sessions_ = 0;         // opened, ever
  u64 session_numbers_ = 0;  // listener: given out
  Error why_down_;
  bool may_begin_ = true;  // this poll has not seen a session
  bool overlent_ = false;  // the next poll ends the session

  u64 attempt_ = 0;     // dialer: ours; listener: the highest of the peer's epoch
  u32 peer_epoch_ = 0;  // the latest
  u64 peer_instance_ = 0;

  Time now_{};
  Time polled_ = Time::never();  // never: not yet
  Time heard_{}, said_{};
  Time next_dial_{};
  Duration back_off_;
  Counters counters_;
  Refusals refusals_;
};

}  // namespace cob::message
