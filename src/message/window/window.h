// WindowTransport: two kernels that write into each other's memory and never read it: PCIe windows,
// ivshmem, halves of one memfd. docs/messaging.md, 6, 7 and 11.
// Model: what is stored, and rings, arrive in order at any later time; sessions are agreed on by
// cards with random numbers; liveness is a heartbeat. No clock of its own. The kernel's loop.
#pragma once

#include <array>

#include "message/transport.h"
#include "message/window/window_doorbell.h"
#include "message/window/window_memory.h"

namespace cob::message {

class WindowTransport final : public Transport {
 public:
  struct Options {
    u64 cob = 0;                            // the same on both sides, or they never meet
    Duration lease = Duration::seconds(2);  // the same on both sides
    u64 seed = 0;                           // of nonces and sequences; 0: random
  };
  // EINVAL, EMSGSIZE: memory not on whole pages, or too small for window_memory_bytes(0).
  static Result<std::unique_ptr<WindowTransport>> create(WindowEnds window, Options options);
  ~WindowTransport() override;

  TransportKind kind() const override { return TransportKind::window; }
  void start(const LinkHeader& mine) override { header_ = mine; }
  void poll(Time now) override;
  Time next_deadline() const override;
  const LinkEnds* ends() const override { return session_ != nullptr ? &ends_ : nullptr; }
  u64 session() const override { return sessions_; }
  // ECONNRESET: the peer has left, or begun anew. EHOSTDOWN: its lease or ours ran out. ESTALE: a
  // later epoch of this kernel has taken over. EPROTO: a window of another cob.
  Error why_down() const override { return why_down_; }
  void end(const Error& why) override;
  void publish() override { doorbell_.publish(); }
  void lend(u64 offset, u64 bytes) override;
  u32 peer_armed() override { return doorbell_.peer_armed(); }
  void ring() override;
  void set_armed(u32 armed) override;
  bool pending() const override { return false; }
  Result<void> watch(FdRef epoll) override;

 private:
  struct Session {
    std::shared_ptr<const void> memory;
    Mapping stage;  // where our bulk buffers are filled
  };

  WindowTransport(WindowEnds window, Options options);
  const WindowControl& mine() const;
  WindowControl& theirs() const;
  void look_after_session(Time now);
  void negotiate(Time now);
  void make_offer();
  // Makes the peer's area what a session begins with.
  void prepare(const WindowCard& card);
  void open(const WindowCard& card, Time now);
  void beat(Time now);
  void post();
  void drop(const Error& why);
  bool is_superseded(const WindowCard& card) const;
  u64 random();

  WindowEnds window_;
  Options options_;
  u64 in_bulk_bytes_;
  u64 out_bulk_bytes_;
  LinkHeader header_{};
  WindowCard offer_;
  WindowDoorbell doorbell_;
  LinkEnds ends_;
  std::shared_ptr<Session> session_;
  std::array<std::weak_ptr<Session>, window_areas> last_user_;  // of our areas
  u64 sessions_ = 0;
  u64 peer_nonce_ = 0;  // of this session
  u64 peer_heartbeat_ = 0;
  u32 heartbeat_ = 0;
  u32 next_area_;
  u32 heard_epoch_ = 0;  // the peer's, of the present session or the last one
  Error why_down_ = Error::of(ENOTCONN, "no session yet");
  Time now_;
  Time next_beat_;                       // also when the peer's is looked at
  Time last_beat_;                       // ours
  Time last_heard_;                      // the peer's heartbeat changed
  Time fenced_until_ = Time{INT64_MIN};  // earlier epochs of the peer are told to be silent
  Time reopen_ = Time{INT64_MIN};        // no offer before
  bool armed_ = false;
};

}  // namespace cob::message
