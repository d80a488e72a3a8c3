// Passive opens: RFC 9293 section 3.10.7.2, with Linux's two bounded queues (listen(2)).
// Model: a TCB in SYN_RECEIVED counts in the SYN queue, an established one in the accept queue
// until accepted(). Accept queue full: SYNs and final ACKs are dropped, so the peer tries again.
// SYN queue full: SYNs are dropped.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr u32 slot_bits = 12;
constexpr u32 max_listeners = 1u << slot_bits;
constexpr u32 min_syn_queue = 128;

}  // namespace

Result<ListenerId> TcpStack::listen(Endpoint local, u32 backlog) {
  if (local.port.value == 0) return Error::of(EINVAL, "listen: port 0");
  if (!local.address.is_any() && local.address != options_.address &&
      !local.address.is_loopback() && !names_.is_own(local.address))
    return Error::of(EADDRNOTAVAIL, "listen: not an address of this cob");
  const u16 first = listener_of_port_[local.port.value];
  for (u32 s = first == 0 ? no_slot : first - 1u; s != no_slot; s = listeners_[s].next_same_port) {
    if (listeners_[s].local.address == local.address) return Error::of(EADDRINUSE, "listen");
  }
  u32 slot = 0;
  while (slot < listeners_.size() && listeners_[slot].open) ++slot;
  if (slot == max_listeners) return Error::of(ENOBUFS, "listen: too many listeners");
  if (slot == listeners_.size()) listeners_.emplace_back();
  Listener& l = listeners_[slot];
  const u32 generation = std::max(1u, (l.generation + 1) & (~0u >> slot_bits));
  l = {.local = local,
       .backlog = backlog,
       .generation = generation,
       .next_same_port = first == 0 ? no_slot : first - 1u,
       .open = true};
  listener_of_port_[local.port.value] = static_cast<u16>(slot + 1);
  cookies_end_ = latest_ + syn_cookie_life;  // this kernel's, before it was started again
  return ListenerId((generation << slot_bits) | slot);
}

Listener* TcpStack::listener(ListenerId id) {
  const u32 slot = id.value & (max_listeners - 1);
  if (slot >= listeners_.size()) return nullptr;
  Listener& l = listeners_[slot];
  return l.open && l.generation == id.value >> slot_bits ? &l : nullptr;
}

// Those that overlap stand beside each other if the layer says so (SO_REUSEPORT); the most precise
// is asked, as Linux's compute_score() has it: 0.0.0.0 before a dual :: for IPv4.
Listener* TcpStack::listener_for(Ipv4Address address, Port port) {
  const u16 first = listener_of_port_[port.value];
  Listener* best = nullptr;
  for (u32 s = first == 0 ? no_slot : first - 1u; s != no_slot; s = listeners_[s].next_same_port) {
    Listener& l = listeners_[s];
    if (!l.local.address.overlaps(address)) continue;
    if (best == nullptr || l.local.address.precision() > best->local.address.precision()) best = &l;
  }
  return best;
}

void TcpStack::set_backlog(ListenerId id, u32 backlog) {
  if (Listener* l = listener(id)) l->backlog = backlog;
}

void TcpStack::set_quiet(ListenerId id, bool quiet) {
  if (Listener* l = listener(id)) l->quiet = quiet;
}

void TcpStack::set_max_segment(ListenerId id, u16 bytes) {
  if (Listener* l = listener(id)) l->max_segment_bytes = bytes;
}

void TcpStack::set_fast_open(ListenerId id, u32 most) {
  if (Listener* l = listener(id)) l->most_early = most;
}

ListenerInfo TcpStack::info(ListenerId id) const {
  const Listener* l = const_cast<TcpStack*>(this)->listener(id);
  if (l == nullptr) return {};
  return {.accept_queue = l->accept_queue, .syn_queue = l->syn_queue, .backlog = l->backlog};
}

void TcpStack::close_listener(ListenerId id) {
  Listener* l = listener(id);
  if (l == nullptr) return;
  while (l->first_child != no_slot) {
    Tcb& t = table_.at(l->first_child);
    emit_reset(t);
    forget(t);
  }
  const u32 slot = id.value & (max_listeners - 1);
  u16& first = listener_of_port_[l->local.port.value];
  if (first == slot + 1) {
    first = static_cast<u16>(l->next_same_port == no_slot ? 0 : l->next_same_port + 1);
  } else {
    u32 s = first - 1u;
    while (listeners_[s].next_same_port != slot) s = listeners_[s].next_same_port;
    listeners_[s].next_same_port = l->next_same_port;
  }
  l->open = false;
}

bool TcpStack::accepted(TcbId id) {
  Tcb* t = table_.get(id);
  if (t != nullptr && t->has(flag_in_accept_queue)) unlink_child(*t);
  return t != nullptr;
}

void TcpStack::on_listen_segment(u32 slot, const FlowKey& key, const TcpSegment& s, Route from,
                                 TimeWaitEntry* old) {
  Listener& l = listeners_[slot];
  if (s.has(tcp_rst)) return;
  if (s.has(tcp_ack)) return reset_for(key, s, from);
  if (!s.has(tcp_syn) || s.has(tcp_fin)) return;
  if (l.accept_queue > l.backlog) {
    ++counters_.accept_overflows;
    return;
  }
  if (l.syn_queue >= std::max(l.backlog, min_syn_queue)) [[unlikely]] {
    // A cookie's number cannot be kept beyond an old incarnation's.
    if (old == nullptr) return send_cookie(l, key, s, from);
    ++counters_.accept_overflows;
    return;
  }
  Tcb* t = create_tcb(key, from, l.max_segment_bytes);
  if (t == nullptr) {
    ++counters_.accept_overflows;
    return;
  }
  choose_initial_sequence(*t);
  if (old != nullptr) {  // RFC 6191: beyond everything the old incarnation sent
    const SequenceNumber beyond = old->send_next + 65'537;
    TcbCold& cold = table_.cold(*t);
    if (cold.initial_send < beyond) start_sequence(*t, beyond);
    time_wait_.erase(*old);
  }
  take_syn(*t, slot, s);
  touch(*t);
  if (s.has_fast_open && l.most_early > 0) [[unlikely]]
    take_fast_open(*t, slot, s);
}

// A passive open begins: into the SYN queue.
void TcpStack::take_syn(Tcb& t, u32 slot, const TcpSegment& syn) {
  t.state = TcpState::syn_received;
  t.set(flag_passive);
  negotiate(t, syn);
  if (options_.ecn != Ecn::off && syn.has(tcp_ece) && syn.has(tcp_cwr)) t.set(flag_ecn);
  t.receive_edge = t.receive_next;
  link_child(t, slot);
  ++listeners_[slot].syn_queue;
}

// The handshake's last ACK: from the SYN queue to the accept queue. False if that is full.
bool TcpStack::admit(Tcb& t) {
  Listener& l = listeners_[table_.cold(t).listener];
  if (l.accept_queue > l.backlog) {
    ++counters_.accept_overflows;
    return false;
  }
  --l.syn_queue;
  ++l.accept_queue;
  t.set(flag_in_accept_queue);
  return true;
}

void TcpStack::link_child(Tcb& t, u32 slot) {
  Listener& l = listeners_[slot];
  TcbCold& cold = table_.cold(t);
  cold.listener = slot;
  cold.listener_next = l.first_child;
  cold.listener_previous = no_slot;
  const u32 self = table_.slot_of(t);
  if (l.first_child != no_slot) table_.cold(table_.at(l.first_child)).listener_previous = self;
  l.first_child = self;
}

void TcpStack::unlink_child(Tcb& t) {
  TcbCold& cold = table_.cold(t);
  if (cold.listener == no_slot) return;
  Listener& l = listeners_[cold.listener];
  if (cold.listener_previous == no_slot) {
    l.first_child = cold.listener_next;
  } else {
    table_.cold(table_.at(cold.listener_previous)).listener_next = cold.listener_next;
  }
  if (cold.listener_next != no_slot)
    table_.cold(table_.at(cold.listener_next)).listener_previous = cold.listener_previous;
  --(t.has(flag_in_accept_queue) ? l.accept_queue : l.syn_queue);
  t.clear(flag_in_accept_queue);
  cold.listener = no_slot;
}

}  // namespace cob::net
