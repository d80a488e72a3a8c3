// The receive window: how much is promised (RFC 9293 section 3.8.6), when that is told, and how the
// buffer behind it grows: Fisk and Feng's dynamic right-sizing (2001), as Linux does it.
// Model: the buffer bounds what is promised and not read. A peer that is held back by the window
// sends one a round trip; what the layer takes in a round trip says so, and the buffer becomes
// twice that, as far as the layer agrees. Round trips are those of the handshake and of what was
// sent here: a queue on the path makes them longer, and needs no window. Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr u32 assumed_rtt_us = 100'000;  // while none was measured

}  // namespace

// RFC 9293 section 3.8.6: the edge only moves right, and by at least min(buffer / 2, MSS)
// (3.8.6.2.2). A kept edge that is off the scale's grain is rounded up while the buffer has room,
// else down: what was promised is still taken when it comes (RFC 7323 section 2.4).
u16 TcpStack::advertise_window(Tcb& t) {
  const u32 promised = t.receive_edge - t.receive_next;
  const u32 free = t.receive_buffer > t.unread ? t.receive_buffer - t.unread : 0;
  const u32 scale = t.has(flag_window_scaling) ? receive_window_scale : 0;
  const u32 grain = (1u << scale) - 1;
  u32 window = promised;
  if (free > promised &&
      free - promised >= std::min<u32>(t.receive_buffer / 2, table_.cold(t).advertised_mss))
    window = free;
  const u32 rounded_up = (window + grain) & ~grain;
  const u32 scaled = std::min((rounded_up <= free ? rounded_up : window) >> scale, 0xffffu);
  t.receive_edge = later_of(t.receive_edge, t.receive_next + (scaled << scale));
  return static_cast<u16>(scaled);
}

// Linux's rule (tcp_cleanup_rbuf): not before the window doubles; a nearly closed one opens by RFC
// 9293 3.8.6.2.2's step. A peer whose segments are large beside the buffer waits for half of it
// (3.8.6.2.1), so a window that is open less than that is told of.
bool TcpStack::window_update_due(const Tcb& t) const {
  if (t.has(flag_peer_fin)) return false;
  const u32 mss = table_.cold(t).advertised_mss;
  const u32 promised = t.receive_edge - t.receive_next;
  const u32 free = t.receive_buffer > t.unread ? t.receive_buffer - t.unread : 0;
  const u32 low = mss > t.receive_buffer / 8 ? t.receive_buffer / 2 : t.receive_buffer / 8;
  return promised <= low && free >= 2 * promised && free > promised &&
         free - promised >= std::min<u32>(t.receive_buffer / 2, mss);
}

// Data of a connection that has received much came; once a round trip.
void TcpStack::fit_receive_buffer(Tcb& t, TcbCold& cold) {
  const SequenceNumber taken = t.receive_next - t.unread;
  if (cold.taken_since_us != 0) {
    const u32 rtt_us = cold.smoothed_rtt_us != 0 ? cold.smoothed_rtt_us : assumed_rtt_us;
    if (now_us_ - cold.taken_since_us < rtt_us) return;
    // Where everything in the window arrived and was taken in a round trip, the window is what
    // limits.
    const u64 wanted = 2 * u64{taken - cold.taken_from} + u64{16} * t.receive_mss;
    if (wanted > t.receive_buffer) {
      const u32 agreed = layer_.grow_receive_buffer(
          t.id, t.cookie, static_cast<u32>(std::min<u64>(wanted, most_receive_window)));
      t.receive_buffer = std::clamp(agreed, t.receive_buffer, most_receive_window);
    }
  }
  cold.taken_since_us = std::max(now_us_, 1u);
  cold.taken_from = taken;
}

}  // namespace cob::net
