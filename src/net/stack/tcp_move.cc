// Connections that move between the kernels of an island; docs/moving.md.
// Model: a connection's image is its Tcb and TcbCold as they lie, and the payload that came out of
// order; all stacks of an island are of one build and read one clock, so deadlines and timestamps
// stay what they are. What is known of the bytes in flight (the scoreboard) stays behind: where it
// arrives they count as sent again just now, so no round trip is measured by them. An image that
// arrives is checked before anything of it is used: it may say what a hostile peer could make a
// connection say, and nothing else.
// Owned by the Stack's loop.
#include <algorithm>
#include <cstring>
#include <optional>

#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

struct Image {
  u32 mark;
  u32 bytes;   // of this struct
  u32 pieces;  // of payload out of order, behind it
  u32 waits;   // 1: in a listener's queue
  Tcb hot;
  TcbCold cold;
};
constexpr u32 image_mark = 0x3162'6374;  // "tcb1"
struct PieceHead {
  SequenceNumber sequence;
  u32 bytes;
};
constexpr u32 most_pieces = 8'192, least_mss = 48, most_window = 1u << 30;

void append(std::vector<std::byte>& out, const void* from, std::size_t bytes) {
  const auto* at = static_cast<const std::byte*>(from);
  out.insert(out.end(), at, at + bytes);
}

bool handshake(const Tcb& t) {
  return t.state == TcpState::syn_sent || t.state == TcpState::syn_received;
}

// SND.UNA <= SND.NXT <= SND.MAX <= behind the FIN; what lies between is bounded, so that no
// difference of two of them wraps.
bool send_space_is_sound(const Tcb& t, u32 most_buffer) {
  const SequenceNumber una = t.send_unacknowledged;
  const u32 fin = t.has(flag_fin_sent) ? 1 : 0;
  const SequenceNumber end = t.send_end + fin;
  if (end - una > most_buffer + 2 || t.send_max - una > end - una) return false;
  if (t.send_next - una > t.send_max - una) return false;
  if (fin != 0 && (!t.has(flag_fin_queued) || t.send_max != end)) return false;
  return true;
}

bool states_agree(const Tcb& t) {
  const bool queued = t.has(flag_fin_queued), sent = t.has(flag_fin_sent),
             peer = t.has(flag_peer_fin);
  switch (t.state) {
    case TcpState::syn_sent:
    case TcpState::syn_received:
      return !sent && !peer;
    case TcpState::established:
      return !queued && !peer;
    case TcpState::fin_wait_1:
      return queued && !peer;
    case TcpState::fin_wait_2:
      return sent && !peer && t.send_unacknowledged == t.send_max;
    case TcpState::close_wait:
      return !queued && peer;
    case TcpState::closing:
    case TcpState::last_ack:
      return queued && peer;
    case TcpState::closed:
    case TcpState::time_wait:
      break;
  }
  return false;
}

bool receive_space_is_sound(const Tcb& t, u32 most_receive_window) {
  return t.receive_edge - t.receive_next <= most_receive_window + 0xffff && t.receive_buffer >= 1 &&
         t.receive_buffer <= most_receive_window && t.unread <= most_window;
}

// The mark is behind a byte that was given to be sent.
bool urgent_is_sound(const Tcb& t, const TcbCold& c) {
  return !t.has(flag_urgent) || c.urgent_send <= t.send_end;
}

// The SYN is what is first unacknowledged.
bool handshake_is_sound(const Tcb& t, const TcbCold& c) {
  return !handshake(t) ||
         (c.initial_send == t.send_unacknowledged && t.send_end - t.send_unacknowledged >= 1);
}

bool numbers_are_sound(const Tcb& t, const TcbCold& c) {
  const auto mss_is_sound = [](u32 mss) { return mss >= least_mss; };
  return mss_is_sound(t.mss) && mss_is_sound(c.advertised_mss) && t.receive_mss >= 1 &&
         t.send_scale <= 14 && t.timer <= RetransmitTimer::cork &&
         (handshake(t) || t.congestion_window >= 1) && t.congestion_window <= most_window &&
         t.send_window <= most_window && t.send_window_max <= most_window &&
         c.persist_shift <= 12 && c.retransmit_timeout_ms >= 1 &&
         c.retransmit_timeout_ms <= max_rto_ms && c.congestion <= CongestionControl::new_reno &&
         c.user_timeout_ms <= u32{INT32_MAX};
}

struct Parsed {
  Image image;
  std::span<const std::byte> pieces;
};

std::optional<Parsed> parse(std::span<const std::byte> bytes) {
  Parsed p;
  if (bytes.size() < sizeof p.image) return std::nullopt;
  std::memcpy(&p.image, bytes.data(), sizeof p.image);
  if (p.image.mark != image_mark || p.image.bytes != sizeof p.image ||
      p.image.pieces > most_pieces || p.image.waits > 1)
    return std::nullopt;
  p.pieces = bytes.subspan(sizeof p.image);
  auto left = p.pieces;
  for (u32 i = 0; i < p.image.pieces; ++i) {
    PieceHead head;
    if (left.size() < sizeof head) return std::nullopt;
    std::memcpy(&head, left.data(), sizeof head);
    if (head.bytes == 0 || head.bytes > left.size() - sizeof head) return std::nullopt;
    // Beyond the window nothing is kept.
    const u32 from = head.sequence - p.image.hot.receive_next;
    if (u64{from} + head.bytes > most_window) return std::nullopt;
    left = left.subspan(sizeof head + head.bytes);
  }
  if (!left.empty()) return std::nullopt;
  return p;
}

}  // namespace

bool TcpStack::may_take_out(TcbId id) const {
  const Tcb* t = table_.get(id);
  return t != nullptr && (table_.cold(*t).fast_open & fast_open_early) == 0;
}

Result<MovedConnection> TcpStack::take_out(TcbId id, bool with_pieces) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return Error::of(EINVAL, "moving a connection that is gone");
  const TcbCold& cold = table_.cold(*t);
  if ((cold.fast_open & fast_open_early) != 0)
    return Error::of(EBUSY, "a handshake with data in its SYN has not ended");
  MovedConnection out{
      .local = t->key.local(), .remote = t->key.remote(), .route = t->route, .state = {}};
  Image image{.mark = image_mark,
              .bytes = sizeof image,
              .pieces = 0,
              .waits = cold.listener != no_slot ? 1u : 0u,
              .hot = *t,
              .cold = cold};
  reassembly_.for_each(cold, [&](SequenceNumber, std::span<const std::byte>) { ++image.pieces; });
  if (!with_pieces || image.pieces > most_pieces)
    image.pieces = 0;  // not acknowledged: they come again
  append(out.state, &image, sizeof image);
  if (image.pieces > 0) {
    reassembly_.for_each(cold, [&](SequenceNumber sequence, std::span<const std::byte> bytes) {
      const PieceHead head{sequence, static_cast<u32>(bytes.size())};
      append(out.state, &head, sizeof head);
      append(out.state, bytes.data(), bytes.size());
    });
  }
  forget(*t);
  return out;
}

Result<void> TcpStack::may_take_in(const MovedConnection& moved) const {
  const auto parsed = parse(moved.state);
  if (!parsed) return Error::of(EPROTO, "an image of a connection: its form");
  const Tcb& t = parsed->image.hot;
  const TcbCold& c = parsed->image.cold;
  const bool passive = t.has(flag_passive);
  const bool needs_listener = passive && t.state == TcpState::syn_received;
  if (!states_agree(t) || (parsed->image.waits != 0 && !passive) ||
      (parsed->image.waits == 0 && needs_listener))
    return Error::of(EPROTO, "an image of a connection: its state");
  if (!send_space_is_sound(t, max_send_buffer) || !handshake_is_sound(t, c) ||
      !urgent_is_sound(t, c))
    return Error::of(EPROTO, "an image of a connection: what it sends");
  if (!receive_space_is_sound(t, most_receive_window))
    return Error::of(EPROTO, "an image of a connection: what it receives");
  if (!numbers_are_sound(t, c)) return Error::of(EPROTO, "an image of a connection: its numbers");
  const bool to_ipv6 = moved.remote.address.is_ipv6();
  if (moved.local.port.value == 0 || moved.remote.port.value == 0 ||
      !is_local(moved.local.address, moved.route) || moved.local.address.is_ipv6() != to_ipv6 ||
      (!moved.route.is_uplink() && !is_local(moved.remote.address, moved.route)))
    return Error::of(EPROTO, "an image of a connection: its ends");
  const FlowKey key = FlowKey::of(moved.local, moved.remote);
  if (table_.find(key, table_.hash(key)) != nullptr)
    return Error::of(EADDRINUSE, "a connection between the same ends");
  if (table_.size() >= table_.capacity()) return Error::of(ENOBUFS, "connections");
  return {};
}

MovedFacts TcpStack::facts_of(const MovedConnection& moved) const {
  const Image image = parse(moved.state)->image;
  const Tcb& t = image.hot;
  const u32 fin = t.has(flag_fin_sent) ? 1 : 0;
  const u32 all = t.send_end + fin - t.send_unacknowledged;
  const u32 others = fin + (handshake(t) ? 1 : 0);
  return {.announced_bytes = all > others ? all - others : 0,
          .waits = image.waits != 0,
          .passive = t.has(flag_passive)};
}

Result<TcbId> TcpStack::take_in(const MovedConnection& moved, u64 cookie, ListenerId queue) {
  set_now(latest_);
  TRY(may_take_in(moved));
  const Parsed parsed = *parse(moved.state);
  Listener* const l = queue.value != 0 ? listener(queue) : nullptr;
  if ((parsed.image.waits != 0) != (l != nullptr))
    return Error::of(EPROTO, "an image of a connection: its listener");
  const FlowKey key = FlowKey::of(moved.local, moved.remote);
  if (TimeWaitEntry* old = time_wait_.find(key, table_.hash(key))) time_wait_.erase(*old);
  Tcb* t = table_.allocate(key);
  if (t == nullptr) return Error::of(ENOBUFS, "connections");
  const TcbId id = t->id;
  const u32 place = t->cold_place;
  *t = parsed.image.hot;
  t->key = key;
  t->id = id;
  t->cold_place = place;
  t->cookie = cookie;
  t->route = moved.route;
  t->assign(flag_announced, cookie != 0);
  TcbCold& cold = table_.cold(*t);
  cold = parsed.image.cold;
  cold.reassembly_head = cold.listener = no_slot;
  cold.reassembly_pieces = 0;
  cold.scoreboard = 0;
  cold.fine_deadline_us = 0;
  cold.fine_timer = FineTimer::reorder;
  cold.probe = Probe::none;
  cold.silent_probes = 0;
  cold.fast_open = cold.fast_open & (fast_open_asked | fast_open_carried | fast_open_data_taken);
  if (l != nullptr) {
    const bool established = t->state != TcpState::syn_received;
    t->clear(flag_in_accept_queue);
    link_child(*t, queue.value & ((1u << 12) - 1));
    ++(established ? l->accept_queue : l->syn_queue);
    t->assign(flag_in_accept_queue, established);
  } else {
    t->clear(flag_in_accept_queue);
  }
  auto left = parsed.pieces;
  for (u32 i = 0; i < parsed.image.pieces; ++i) {
    PieceHead head;
    std::memcpy(&head, left.data(), sizeof head);
    reassembly_.insert(cold, head.sequence, left.subspan(sizeof head, head.bytes));
    left = left.subspan(sizeof head + head.bytes);
  }
  if (others_ != nullptr && t->route.is_uplink()) others_->on_flow(key.local(), key.remote(), true);
  go_on(*t);
  return id;
}

// What was under way where it came from is under way here.
void TcpStack::go_on(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  const bool had_board = t.has(flag_scoreboard);
  t.clear(flag_on_output_list);
  t.clear(flag_scoreboard);
  t.clear(flag_retransmit_due);
  if (t.has(flag_ack_soft)) t.set(flag_ack_now);
  t.clear(flag_ack_soft);
  if (had_board && (t.flags & (flag_in_recovery | flag_after_timeout)) != 0) {
    // What was lost is not known here: all of it goes again, as after a timeout without a board.
    t.clear(flag_in_recovery);
    t.clear(flag_may_undo);
    t.clear(flag_timing_rtt);
    t.set(flag_after_timeout);
    cold.recover = t.send_max;
    t.duplicate_acks = 0;
    t.send_next = t.send_unacknowledged;
  } else if (had_board) {
    t.duplicate_acks = 0;
    t.clear(flag_timing_rtt);
    cold.rtt_sequence = t.send_unacknowledged;
    t.clear(flag_may_undo);
    t.send_next = t.send_max;
    if (t.in_flight() > 0 && !handshake(t)) {
      const u32 number = boards_.take();
      if (number != no_slot) {
        cold.scoreboard = number;
        t.set(flag_scoreboard);
        boards_[number].begin(t.send_unacknowledged, t.send_max, now_us_);
        boards_[number].sent_again({t.send_unacknowledged, t.send_max}, now_us_);
      }
    }
  }
  if (t.in_flight() > 0 && t.retransmit_deadline == 0)
    start_retransmit_timer(t, RetransmitTimer::retransmit);
  touch(t);
  sync_timer(t);
}

std::vector<TcbId> TcpStack::handshakes(ListenerId id) const {
  std::vector<TcbId> found;
  const Listener* l = const_cast<TcpStack*>(this)->listener(id);
  if (l == nullptr) return found;
  for (u32 slot = l->first_child; slot != no_slot;) {
    const Tcb& t = table_.at(slot);
    if (!t.has(flag_announced)) found.push_back(t.id);
    slot = table_.cold(t).listener_next;
  }
  return found;
}

bool TcpStack::reroute(Endpoint local, Endpoint remote, Route from, Route to) {
  const FlowKey key = FlowKey::of(local, remote);
  Tcb* t = table_.find(key, table_.hash(key));
  if (t == nullptr || t->route != from || to.is_uplink()) return false;
  set_now(latest_);
  t->route = to;
  if (t->state == TcpState::syn_sent) t->send_next = table_.cold(*t).initial_send;
  touch(*t);
  return true;
}

}  // namespace cob::net
