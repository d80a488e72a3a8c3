// Segment arrives: RFC 9293 section 3.10.7, with RFC 7323 section 5 (PAWS), RFC 5961 (blind
// attacks), RFC 1122 section 4.2.
// Model: the RFC's order of checks, one function a check; `false` means the segment ends there. A
// callback may abort the connection, so after each the id is looked at again.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/congestion.h"
#include "net/stack/tcp_stack.h"
#include "net/wire/ethernet.h"

namespace cob::net {
namespace {

constexpr u32 paws_idle_ms =
    24u * 24 * 3600 * 1000;  // RFC 7323 section 5.5: TS.Recent is void after 24 days
constexpr u32 quick_ack_count = 16;

}  // namespace

void TcpStack::on_tcp(const Ipv4Packet& packet, Route from, bool verify_checksum) {
  TcpSegment segment;
  switch (parse_tcp(packet, verify_checksum, segment)) {
    case TcpVerdict::good:
      break;
    case TcpVerdict::bad_checksum:
      ++counters_.checksum_errors;
      return;
    case TcpVerdict::malformed:
      ++counters_.frames_malformed;
      return;
  }
  ++counters_.segments_in;
  if (segment.has(tcp_rst)) ++counters_.resets_in;
  const FlowKey key{packet.destination.value, packet.source.value, segment.destination_port.value,
                    segment.source_port.value};
  const u32 hash = table_.hash(key);
  Tcb* t = table_.find(key, hash);
  if (t == nullptr) return on_segment_without_tcb(key, hash, segment, from);
  if (t->route != from) [[unlikely]] {  // no kernel speaks for another's connection
    if (moved_ == nullptr || !moved_->hands_on(key.local(), key.remote(), from)) {
      ++counters_.frames_not_ours;
      return;
    }
  }
  const TcbId id = t->id;
  if (t->state == TcpState::syn_sent) {
    on_segment_syn_sent(*t, segment);
  } else {
    on_segment(*t, segment);
  }
  if (alive(*t, id)) touch(*t);
}

// Reads what it needs and judges nothing: a wrong place costs a line.
FramePlace TcpStack::look_up(std::span<const std::byte> frame) const {
  constexpr std::size_t ip_at = sizeof(EthernetHeader), tcp_at = ip_at + sizeof(Ipv4Header);
  if (frame.size() < tcp_at + sizeof(TcpHeader)) return {};
  const auto ip = read_once<Ipv4Header>(frame, ip_at);
  if (ip.version_and_length != 0x45 || ip.protocol != ip_protocol_tcp) return {};
  const auto tcp = read_once<TcpHeader>(frame, tcp_at);
  const u32 hash = table_.hash(
      {ip.destination.get(), ip.source.get(), tcp.destination_port.get(), tcp.source_port.get()});
  table_.fetch_index(hash);
  if ((tcp.flags & (tcp_syn | tcp_fin)) != 0) time_wait_.fetch_index(hash);
  return {.hash = hash, .known = true, .opens = (tcp.flags & tcp_syn) != 0};
}

void TcpStack::fetch(FramePlace place) const {
  if (!place.known) return;
  table_.fetch(place.hash);
  if (place.opens) time_wait_.fetch(place.hash);
}

void TcpStack::on_segment_without_tcb(const FlowKey& key, u32 hash, const TcpSegment& segment,
                                      Route from) {
  TimeWaitEntry* old = time_wait_.find(key, hash);
  Listener* l = listener_for({key.local_address}, Port(key.local_port));
  const bool opens = (segment.flags & (tcp_syn | tcp_ack | tcp_rst)) == tcp_syn;
  if (moved_ != nullptr &&
      (opens || old == nullptr || moved_->under_way(key.local(), key.remote())) &&
      moved_->hand_on_moved(key.local(), key.remote(), opens, l != nullptr, from, frame_,
                            frame_flags_))
    return;
  if (old != nullptr) {
    // Within the cob a port may have another kernel by now: a listener's was of several, or a
    // client's before.
    const bool anew = opens && !from.is_uplink() && !old->route.is_uplink();
    if (old->route != from && !(anew && may_replace(*old, segment))) {
      ++counters_.frames_not_ours;
      return;
    }
    if (!may_replace(*old, segment)) return on_time_wait_segment(*old, segment);
    if (l == nullptr) {  // another kernel may listen, if this entry came with its group
      if (!from.is_uplink() || !hand_on(key, true)) return on_time_wait_segment(*old, segment);
      return time_wait_.erase(*old);
    }
  }
  if (l != nullptr && old == nullptr && segment.has(tcp_ack)) {
    if (const auto syn = check_cookie(key, segment))
      return open_by_cookie(static_cast<u32>(l - listeners_.data()), key, *syn, segment, from);
  }
  // A SYN that reopens what is in TIME_WAIT here is this stack's.
  const bool own = opens && l != nullptr && old != nullptr;
  const bool meant = opens && l != nullptr && !l->quiet;
  if (from.is_uplink() && !own && (meant ? hand_on_opening(key) : hand_on(key, opens))) return;
  if (l == nullptr) return reset_for(key, segment, from);
  on_listen_segment(static_cast<u32>(l - listeners_.data()), key, segment, from, old);
}

// RFC 9293 section 3.10.7.3.
void TcpStack::on_segment_syn_sent(Tcb& t, const TcpSegment& s) {
  TcbCold& cold = table_.cold(t);
  const bool acked = s.has(tcp_ack);
  if (acked && (s.acknowledgment <= cold.initial_send || s.acknowledgment > t.send_max))
    return reset_for(t.key, s, t.route);
  if (s.has(tcp_rst)) {
    if (acked) fail(t, ECONNREFUSED);
    return;
  }
  if (!s.has(tcp_syn)) return;
  negotiate(t, s);
  t.receive_edge = t.receive_next + std::min<u32>(t.receive_buffer, 0xffff);
  // RFC 3168 section 6.1.1: ECE alone agrees to what the SYN asked; both are a reflection.
  if (acked && options_.ecn == Ecn::ask && t.retries == 0 &&
      (s.flags & (tcp_ece | tcp_cwr)) == tcp_ece)
    t.set(flag_ecn);
  if (!acked) {  // simultaneous open, section 3.5 figure 8
    t.state = TcpState::syn_received;
    t.send_next = cold.initial_send;
    t.retransmit_deadline = 0;
    return;
  }
  t.window_sequence = s.sequence;
  t.window_acknowledgment = s.acknowledgment;
  const TcbId id = t.id;
  if (!establish(t, s)) return;
  if (cold.fast_open != 0 && !on_fast_open_answer(t, s)) return;
  ack_soon(t);
  if (s.has(tcp_urg) && (!alive(t, id) || !on_urgent(t, s))) return;
  if (s.payload.empty() && !s.has(tcp_fin)) return;
  TcpSegment rest = s;
  rest.sequence += 1;
  rest.flags &= static_cast<u8>(~tcp_syn);
  if (alive(t, id)) receive_text(t, rest);
}

// What a SYN says about its sender: sequence numbers and options.
void TcpStack::negotiate(Tcb& t, const TcpSegment& syn) {
  TcbCold& cold = table_.cold(t);
  cold.initial_receive = syn.sequence;
  t.receive_next = syn.sequence + 1;
  if (syn.has_timestamps) {
    t.set(flag_timestamps);
    t.timestamp_recent = syn.timestamp_value;
    cold.timestamp_recent_ms = now_ms_;
  }
  if (syn.has_window_scale) {
    t.set(flag_window_scaling);
    t.send_scale = syn.window_scale;
  }
  if (syn.sack_permitted) t.set(flag_sack);
  // RFC 9293 section 3.7.1: 536 without the option. The floor keeps a hostile peer from asking for
  // a byte a frame.
  const u32 peer_mss = std::max<u32>(syn.mss == 0 ? 536 : syn.mss, 64);
  const u32 options = syn.has_timestamps ? sizeof(TcpTimestampsOption) : 0;
  u32 mss = std::min<u32>(peer_mss, cold.advertised_mss);
  if (t.route.is_uplink())
    if (const u16 mtu = path_mtu_.find({t.key.remote_address}, now_ms_); mtu != 0) {
      const u32 headers = ip_header_bytes(t.key.remote().address.is_ipv6()) + sizeof(TcpHeader);
      if (mtu - headers < mss) note_lowered(t, mss - options);
      mss = std::min(mss, mtu - headers);
    }
  t.mss = static_cast<u16>(mss - options);
  t.send_window = t.send_window_max = syn.window;
  t.receive_mss = std::min<u16>(536, cold.advertised_mss);
  t.quick_acks = quick_ack_count;
  congestion::start(t, cold);
  cold.ecn_recover = cold.initial_send;
}

// Our SYN was acknowledged. False if the connection did not survive the layer's callback.
bool TcpStack::establish(Tcb& t, const TcpSegment& s) {
  TcbCold& cold = table_.cold(t);
  const TcbId id = t.id;
  if (t.retries == 0 && t.has(flag_timing_rtt))
    measure_rtt(t, static_cast<u32>(now_.ns / 1000) - cold.rtt_start_us);
  t.clear(flag_timing_rtt);
  t.send_unacknowledged = later_of(cold.initial_send + 1, t.send_unacknowledged);
  t.send_next = later_of(t.send_next, t.send_unacknowledged);
  t.send_max = later_of(t.send_max, t.send_next);
  if (t.retries > 0) t.congestion_window = t.mss;  // RFC 5681 section 3.1: the SYN was lost
  t.retries = 0;
  t.retransmit_deadline = 0;
  t.state = t.has(flag_fin_queued) ? TcpState::fin_wait_1 : TcpState::established;
  update_send_window(t, s);
  if (t.has(flag_keep_alive)) t.idle_deadline = deadline_in(cold.keep_alive_idle_ms);
  if ((cold.fast_open & fast_open_early) != 0) {
    end_early(t, false);  // the layer has it
  } else if (t.has(flag_passive)) {
    ++counters_.passive_opens;
    t.set(flag_announced);
    layer_.on_incoming(ListenerId((listeners_[cold.listener].generation << 12) | cold.listener),
                       id);
  } else {
    layer_.on_connected(id, t.cookie);
  }
  return alive(t, id);
}

// RFC 9293 section 3.10.7.4, and Linux's reading of it: a segment that ends at RCV.NXT or begins at
// the right edge is let through for its ACK; its text is trimmed to nothing.
bool TcpStack::check_acceptable(Tcb& t, const TcpSegment& s) {
  if (t.has(flag_timestamps) && !s.has(tcp_rst)) {
    if (!s.has_timestamps) return false;  // RFC 7323 section 3.2
    if (timestamp_before(s.timestamp_value, t.timestamp_recent) &&
        now_ms_ - table_.cold(t).timestamp_recent_ms < paws_idle_ms) {
      ++counters_.paws_dropped;
      answer_unacceptable(t, s);
      return false;
    }
  }
  if (s.sequence + s.length() >= t.receive_next && s.sequence <= t.receive_edge) [[likely]]
    return true;
  answer_unacceptable(t, s);
  return false;
}

// RFC 5961 sections 3.2 and 4.2; and what else is rare. False: the segment ends here.
bool TcpStack::handle_reset_and_syn(Tcb& t, const TcpSegment& s) {
  if (s.has(tcp_rst)) {
    if (s.sequence != t.receive_next) {
      challenge_ack(t);
      return false;
    }
    const bool early = (table_.cold(t).fast_open & fast_open_early) != 0;
    if (early) end_early(t, true);
    if (t.state == TcpState::syn_received && t.has(flag_passive) && !early) {
      forget(t);
    } else {
      fail(t, t.state == TcpState::syn_received && !early ? ECONNREFUSED
              : t.state == TcpState::close_wait           ? EPIPE
                                                          : ECONNRESET);
    }
    return false;
  }
  if (s.has(tcp_syn)) {
    if (t.state == TcpState::syn_received && !s.has(tcp_ack) &&
        s.sequence == table_.cold(t).initial_receive) {
      repeat_syn(t);  // our SYN-ACK was lost
      return false;
    }
    // The SYN-ACK of a simultaneous open repeats the SYN we have (section 3.5 figure 8, lines 6 and
    // 7).
    if (t.state == TcpState::syn_received && s.has(tcp_ack) && s.payload.empty() &&
        s.sequence + 1 == t.receive_next && s.acknowledgment == t.send_max)
      return true;
    challenge_ack(t);
    return false;
  }
  if (!s.has(tcp_ack)) return false;
  // News of urgent data without data does not wait for the ACK field, of which it wants only that
  // it is acceptable; with data its turn comes in on_segment().
  const bool alone = s.has(tcp_urg) && s.length() == 0 && s.acknowledgment <= t.send_max &&
                     s.acknowledgment >= t.send_unacknowledged - t.send_window_max;
  return !alone || on_urgent(t, s);
}

void TcpStack::on_segment(Tcb& t, const TcpSegment& s) {
  if (!check_acceptable(t, s)) return;
  if ((s.flags & (tcp_rst | tcp_syn | tcp_ack | tcp_urg)) != tcp_ack && !handle_reset_and_syn(t, s))
    return;
  // RFC 7323 section 4.3.
  if (t.has(flag_timestamps) && s.timestamp_value != t.timestamp_recent &&
      !timestamp_before(s.timestamp_value, t.timestamp_recent) && s.sequence <= t.last_ack_sent) {
    t.timestamp_recent = s.timestamp_value;
    table_.cold(t).timestamp_recent_ms = now_ms_;
  }
  if (t.has(flag_ecn) && ((s.flags & (tcp_ece | tcp_cwr)) != 0 || s.congestion_experienced))
      [[unlikely]]
    on_ecn(t, s);
  const TcbId id = t.id;
  if (t.state == TcpState::syn_received) {
    const TcbCold& cold = table_.cold(t);
    if (s.acknowledgment <= cold.initial_send || s.acknowledgment > t.send_max)
      return reset_for(t.key, s, t.route);
    if (t.has(flag_passive) && (cold.fast_open & fast_open_early) == 0 && !admit(t)) return;
    t.window_sequence = s.sequence;
    t.window_acknowledgment = s.acknowledgment;
    if (!establish(t, s)) return;
  }
  if (!process_ack(t, s)) return;
  if (s.length() == 0 || !alive(t, id)) return;
  if ((s.flags & (tcp_syn | tcp_urg)) != 0) [[unlikely]] {
    if (s.has(tcp_syn) || !on_urgent(t, s)) return;
  }
  receive_text(t, s);
}

bool TcpStack::deliver(Tcb& t, std::span<const std::byte> payload) {
  const TcbId id = t.id;
  const u32 bytes = static_cast<u32>(payload.size());
  t.unread += bytes;
  const std::size_t taken = layer_.on_data(id, t.cookie, payload);
  if (!alive(t, id)) return false;
  VERIFY(taken <= bytes);
  const u32 refused = bytes - static_cast<u32>(taken);
  t.unread -= std::min(refused, t.unread);
  t.receive_next += static_cast<u32>(taken);
  TcbCold& cold = table_.cold(t);
  cold.bytes_received += taken;
  if (refused != 0) t.set(flag_ack_now);
  if (cold.bytes_received >= right_size_from) fit_receive_buffer(t, cold);
  return refused == 0;
}

// False if the layer took less than there is, or the connection is gone.
bool TcpStack::deliver_reassembled(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  for (;;) {
    const auto run = reassembly_.front(cold, t.receive_next);
    if (run.empty()) return true;
    if (!deliver(t, run)) return false;
  }
}

// The layer made room: what it refused of the reassembled bytes may go to it now. False if the
// connection is gone.
bool TcpStack::offer_refused(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  if (ReassemblyPool::empty(cold) || reassembly_.front(cold, t.receive_next).empty()) return true;
  const TcbId id = t.id;
  deliver_reassembled(t);
  if (!alive(t, id)) return false;
  t.set(flag_ack_now);
  if (t.has(flag_peer_fin_known) && t.receive_next == cold.peer_fin) on_fin(t);
  return alive(t, id);
}

// Data for a socket that is closed, or shut both ways (RFC 9293 section 3.10.4, Linux
// tcp_rcv_state_process): nobody will read it.
void TcpStack::refuse_data(Tcb& t) {
  emit_reset(t);
  fail(t, ECONNRESET);
}

// What of the text up to `end` an out-of-order piece holds already; empty: nothing.
SackBlock TcpStack::piece_before(const Tcb& t, SequenceNumber end) const {
  SackBlock pieces[max_sack_blocks];
  const u32 count = reassembly_.sack_blocks(table_.cold(t), t.receive_next, pieces);
  for (const SackBlock& piece : std::span(pieces).first(count))
    if (piece.start < end) return {piece.start, earlier_of(piece.end, end)};
  return {end, end};
}

// RFC 9293 section 3.10.7.4, seventh and eighth: segment text and FIN.
void TcpStack::receive_text(Tcb& t, const TcpSegment& s) {
  if (t.state != TcpState::established && t.state != TcpState::fin_wait_1 &&
      t.state != TcpState::fin_wait_2) {
    return t.set(flag_ack_now);  // behind the peer's FIN: an old duplicate
  }
  TcbCold& cold = table_.cold(t);
  const TcbId id = t.id;
  if (t.has(flag_keep_alive)) cold.last_receive_ms = now_ms_;
  SequenceNumber sequence = s.sequence;
  auto payload = s.payload;
  bool fin = s.has(tcp_fin);
  const SequenceNumber end = sequence + static_cast<u32>(payload.size());
  if (sequence < t.receive_next) {  // trim to the window, left and right
    const u32 old = t.receive_next - sequence;
    if (old > payload.size() || (old == payload.size() && !fin)) return report_duplicate(t, s);
    payload = payload.subspan(old);
    sequence = t.receive_next;
  }
  SackBlock twice{s.sequence, sequence};  // RFC 2883 section 4: the part that came before
  if (end > t.receive_edge) {
    const u32 room = t.receive_edge - sequence;
    payload = payload.first(std::min<std::size_t>(payload.size(), room));
    fin = false;
    t.set(flag_ack_now);
  }
  const bool shut = t.has(flag_closed) || (t.has(flag_receive_shut) && t.has(flag_fin_queued));
  if (!payload.empty() && shut) return refuse_data(t);
  if (sequence != t.receive_next) {  // RFC 5681 section 4.2: a duplicate ACK at once, one a segment
    const auto kept = reassembly_.insert(cold, sequence, payload);
    if (fin && kept.whole) {
      t.set(flag_peer_fin_known);
      cold.peer_fin = end;
    }
    const SackBlock duplicate{sequence, sequence + static_cast<u32>(payload.size())};
    emit_ack(t, kept.duplicate ? &duplicate : nullptr);
    return;
  }
  bool all = true;
  if (!payload.empty()) {
    if (twice.start >= twice.end && !ReassemblyPool::empty(cold)) twice = piece_before(t, end);
    all = deliver(t, payload);
    if (!alive(t, id)) return;
    if (all && !ReassemblyPool::empty(cold)) {
      all = deliver_reassembled(t);
      if (!alive(t, id)) return;
      t.set(flag_ack_now);  // the gap is filled: RFC 5681 section 4.2
    }
    schedule_ack(t, static_cast<u32>(payload.size()));
    const bool ends = fin || (t.has(flag_peer_fin_known) && t.receive_next == cold.peer_fin);
    if (twice.start < twice.end && t.has(flag_sack) && !ends) emit_ack(t, &twice);
  }
  if ((fin && all && t.receive_next == end) ||
      (t.has(flag_peer_fin_known) && t.receive_next == cold.peer_fin))
    on_fin(t);
}

void TcpStack::on_fin(Tcb& t) {
  const TcbId id = t.id;
  t.receive_next += 1;
  t.set(flag_peer_fin);
  reassembly_.clear(table_.cold(t));
  const TcpState was = t.state;
  t.state = was == TcpState::established  ? TcpState::close_wait
            : was == TcpState::fin_wait_1 ? TcpState::closing
                                          : TcpState::time_wait;
  if (was == TcpState::established) {
    ack_soon(t);  // our own FIN often follows at once
  } else {
    t.set(flag_ack_now);
  }
  layer_.on_peer_closed(id, t.cookie);
  if (!alive(t, id)) return;
  if (t.state == TcpState::time_wait) enter_time_wait(t);
}

}  // namespace cob::net
