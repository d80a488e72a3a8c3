// Transport: makes what one kernel writes for another visible there, in order: the seam between
// links and what lies between the kernels. docs/messaging.md, 1.
// Model: a session lasts from up to down, over one pair of memories that is never used again; the
// transport opens the next one by itself. No clock of its own. Owned by the kernel's loop.
#pragma once

#include <memory>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"
#include "message/link_layout.h"
#include "message/shared_word.h"
#include "message/stats.h"

namespace cob::message {

// One session's memories. `in` is whole and its header has come, but nothing of it is checked.
struct LinkEnds {
  LinkMemory* out =
      nullptr;  // to be written in single aligned words of at most 8 bytes, never read
  const LinkMemory* in = nullptr;  // to be read; its writer may change it at any time
  u64 out_bulk_bytes = 0;          // of the bulk areas behind them
  u64 in_bulk_bytes = 0;
  // Index of the rings' first line; the credit words in `in` and `out` start with it.
  u32 out_start = 0;
  u32 in_start = 0;
  std::shared_ptr<const void> hold;  // keeps both memories mapped, and `in` from being used again
  std::byte* bulk = nullptr;  // where buffers are filled, out_bulk_bytes: out->bulk() or its stage
};

class Transport {
 public:
  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  // What statistics call it.
  virtual TransportKind kind() const { return TransportKind::other; }
  // Called before start(), if somebody counts. Refused connections are counted in `peer`, or where
  // it is not known that they are the peer's, in `own`. Both outlive the transport.
  virtual void count_in(PeerStats& /*peer*/, PeerStats& /*own*/) {}
  // Called once, before all others but count_in(). `mine` is the header of each session's `out`;
  // its to_epoch is the transport's to fill in.
  virtual void start(const LinkHeader& mine) = 0;
  // Receives, sends what could not leave before, keeps heartbeat and lease, opens sessions.
  virtual void poll(Time now) = 0;
  // When poll() must be called at the latest though nothing wakes us.
  virtual Time next_deadline() const = 0;
  // The open session, or nullptr; changed by poll() and end() alone. A new session has a new
  // number, from 1.
  virtual const LinkEnds* ends() const = 0;
  virtual u64 session() const = 0;
  // Why the last session ended: ECONNRESET, EHOSTDOWN (lease), EPROTO.
  virtual Error why_down() const = 0;
  // Ends the session from this side; the peer learns it if it can.
  virtual void end(const Error& why) = 0;

  // --- While a session is open.
  // `out` has been written: rings, credits, returns.
  virtual void publish() = 0;
  // `bytes` at `offset` of our bulk area have been filled: they must arrive before lines written
  // from now on.
  virtual void lend(u64 offset, u64 bytes) = 0;
  // After publish() and a full fence: the peer's armed word, by which it is rung or not.
  virtual u32 peer_armed() { return load_relaxed(ends()->in->state.armed); }
  // Wakes the peer, whose armed word has been seen.
  virtual void ring() = 0;
  // We are about to sleep, and `armed` has been written as our armed word; or 0, we are awake.
  virtual void set_armed(u32 armed) = 0;
  // Something waits for poll() that no descriptor will tell of.
  virtual bool pending() const = 0;
  // Puts what wakes us into `epoll`, now and for all later sessions.
  virtual Result<void> watch(FdRef epoll) = 0;
};

}  // namespace cob::message
