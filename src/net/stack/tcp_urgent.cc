// Urgent data: RFC 9293 section 3.8.5, RFC 1122 section 4.2.2.4, RFC 6093.
// Model: the pointer names the byte behind the last urgent one (RFC 6093 section 3.1), of which
// there is one at a time: a newer mark takes the place of one that was not acknowledged. Sending,
// the mark is TcbCold::urgent_send, and every segment before it says so, as Linux's do
// (tcp_transmit_skb); receiving, the layer keeps it and is told of each pointer to what has not
// been taken. Owned by the Stack's loop.
#include "net/stack/tcp_stack.h"

namespace cob::net {

void TcpStack::mark_urgent(TcbId id) {
  Tcb* t = table_.get(id);
  if (t == nullptr || t->has(flag_fin_queued)) return;
  table_.cold(*t).urgent_send = t->send_end;
  t->set(flag_urgent);
  touch(*t);
}

// The flag outlives the mode until a segment is sent.
bool TcpStack::in_urgent_mode(const Tcb& t) const {
  return t.has(flag_urgent) && table_.cold(t).urgent_send > t.send_unacknowledged;
}

// Of a segment at `sequence`; 0: it has no URG flag. A mark that is too far ahead is told of by the
// newest segment alone, as far as the field goes.
u16 TcpStack::urgent_pointer(Tcb& t, SequenceNumber sequence) {
  if (!in_urgent_mode(t)) {
    t.clear(flag_urgent);
    return 0;
  }
  constexpr u32 farthest = 0xffff;
  const SequenceNumber behind = table_.cold(t).urgent_send;
  if (sequence >= behind) return 0;
  const u32 distance = behind - sequence;
  if (distance <= farthest) return static_cast<u16>(distance);
  return sequence + farthest > t.send_max ? u16{farthest} : u16{0};
}

// RFC 9293 section 3.10.7.4, sixth. False if the connection did not survive the layer's callback.
bool TcpStack::on_urgent(Tcb& t, const TcpSegment& s) {
  const bool reads = t.state == TcpState::established || t.state == TcpState::fin_wait_1 ||
                     t.state == TcpState::fin_wait_2;
  if (!reads || t.has(flag_closed)) return true;
  const u32 pointer = s.urgent_pointer.get();
  const SequenceNumber mark = s.sequence + (pointer == 0 ? 0 : pointer - 1);
  if (mark < t.receive_next) return true;
  const u32 index = mark - (s.sequence + (s.has(tcp_syn) ? 1u : 0u));
  std::optional<std::byte> byte;
  if (index < s.payload.size()) byte = s.payload[index];
  const TcbId id = t.id;
  layer_.on_urgent(id, t.cookie, mark - t.receive_next, byte);
  return alive(t, id);
}

}  // namespace cob::net
