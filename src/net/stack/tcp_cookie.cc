// SYN cookies: RFC 4987 section 3.6, encoded as Linux does.
// Model: the SYN-ACK's sequence number is the SYN queue's entry. Its top byte counts minutes, the
// rest hides the MSS under a keyed hash of the 4-tuple and the minute; the low bits of its
// timestamp keep what else the SYN offered, and without timestamps nothing else is agreed to. Any
// kernel of the cob can check it. Owned by the Stack's loop.
#include <algorithm>
#include <array>

#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr u32 hidden_mask = 0x00ff'ffff;
// What peers announce: RFC 1122's default, tunnels, PPPoE, Ethernet, FDDI, jumbo frames, a cob.
constexpr std::array<u16, 8> segment_sizes{536, 1'220, 1'300, 1'440, 1'460, 4'312, 8'960, 65'495};

// The low bits of the timestamp: window scale (15: none), SACK permitted, ECN.
constexpr u32 offer_bits = 6;
constexpr u32 offer_mask = (1u << offer_bits) - 1;
constexpr u32 no_scale = 15, offer_sack = 1u << 4, offer_ecn = 1u << 5;

u32 cookie_hash(HashKey key, u64 addresses, const FlowKey& flow, u64 minute) {
  return static_cast<u32>(siphash(key, addresses, flow.ports() | minute << 32));
}

}  // namespace

// The SYN queue is full: an answer that leaves nothing behind here.
void TcpStack::send_cookie(const Listener& l, const FlowKey& key, const TcpSegment& syn,
                           Route route) {
  const u16 advertised = own_mss(route, key.remote().address.is_ipv6(), l.max_segment_bytes);
  const u16 peer_mss = syn.mss == 0 ? segment_sizes[0] : syn.mss;
  u32 size = 0;
  while (size + 1 < segment_sizes.size() && segment_sizes[size + 1] <= peer_mss) ++size;
  const u32 minute = cookie_minute();
  const u32 sequence =
      cookie_hash(secret_, address_words(key), key, cookie_domain) + syn.sequence.value +
      (minute << 24) +
      ((cookie_hash(secret_, address_words(key), key, cookie_domain + 1 + minute) + size) &
       hidden_mask);
  const bool ecn = options_.ecn != Ecn::off && syn.has(tcp_ece) && syn.has(tcp_cwr);
  u32 stamp = 0;
  if (syn.has_timestamps) {
    const u32 offer = (syn.has_window_scale ? syn.window_scale : no_scale) |
                      (syn.sack_permitted ? offer_sack : 0) | (ecn ? offer_ecn : 0);
    stamp = (now_ms_ & ~offer_mask) | offer;
    if (stamp > now_ms_) stamp -= offer_mask + 1;  // never ahead of what the connection will send
    stamp += static_cast<u32>(siphash(secret_, address_words(key), key.ports()) >> 32);
  }
  const bool scaling = syn.has_timestamps && syn.has_window_scale;
  SynOptions options;
  options.fixed = {.mss = advertised,
                   .nop = 1,
                   .scale_kind = scaling ? u8{3} : u8{1},
                   .scale_length = scaling ? u8{3} : u8{1},
                   .scale = scaling ? receive_window_scale : u8{1}};
  cookies_end_ = now_ + syn_cookie_life;
  if (transmit(
          {.key = key,
           .route = route,
           .sequence = {sequence},
           .acknowledgment = syn.sequence + 1,
           .window = static_cast<u16>(std::min(options_.receive_window_bytes, 0xffffu)),
           .flags = static_cast<u8>(tcp_syn | tcp_ack | (ecn && syn.has_timestamps ? tcp_ece : 0)),
           .timestamps = syn.has_timestamps,
           .timestamp_value = stamp,
           .timestamp_echo = syn.timestamp_value,
           .syn_options = &options,
           .sack_permitted = syn.has_timestamps && syn.sack_permitted},
          nullptr, 0, 0)) {
    ++counters_.cookies_sent;
    if (others_ != nullptr && route.is_uplink()) others_->on_cookie(key.local(), key.remote());
  }
}

// An ACK without a connection, for a listener: the SYN that it answers for, if it brings a cookie
// back in time.
std::optional<TcpSegment> TcpStack::check_cookie(const FlowKey& key, const TcpSegment& s) {
  if (now_ >= cookies_end_ || (s.flags & (tcp_syn | tcp_ack | tcp_rst)) != tcp_ack)
    return std::nullopt;
  TcpSegment syn;
  syn.sequence = s.sequence - 1;
  const u32 hidden = s.acknowledgment.value - 1 - syn.sequence.value -
                     cookie_hash(secret_, address_words(key), key, cookie_domain);
  // The minute's low byte; this one and the one before are good.
  const u32 age = (cookie_minute() - (hidden >> 24)) & 0xff;
  const u32 minute = cookie_minute() - age;
  const u32 size =
      (hidden - cookie_hash(secret_, address_words(key), key, cookie_domain + 1 + minute)) &
      hidden_mask;
  if (age > 1 || size >= segment_sizes.size()) {
    ++counters_.cookies_failed;
    return std::nullopt;
  }
  ++counters_.cookies_received;
  syn.flags = tcp_syn;
  syn.mss = segment_sizes[size];
  syn.window = s.window;
  if (s.has_timestamps) {
    const u32 offset = static_cast<u32>(siphash(secret_, address_words(key), key.ports()) >> 32);
    const u32 offer = (s.timestamp_echo - offset) & offer_mask;
    syn.has_timestamps = true;
    syn.timestamp_value = s.timestamp_value;
    syn.has_window_scale = (offer & 15) != no_scale;
    if (syn.has_window_scale)
      syn.window_scale = static_cast<u8>(std::min(offer & 15, u32{max_window_scale}));
    syn.sack_permitted = (offer & offer_sack) != 0;
    if ((offer & offer_ecn) != 0 && options_.ecn != Ecn::off) syn.flags |= tcp_ece | tcp_cwr;
  }
  return syn;
}

// The connection as it would be had `syn` found room in the queue, and now its ACK comes.
void TcpStack::open_by_cookie(u32 slot, const FlowKey& key, const TcpSegment& syn,
                              const TcpSegment& ack, Route route) {
  Listener& l = listeners_[slot];
  Tcb* t = l.accept_queue > l.backlog ? nullptr : create_tcb(key, route, l.max_segment_bytes);
  if (t == nullptr) {
    ++counters_.accept_overflows;  // as in Linux the client believes in it until it sends
    return;
  }
  t->timestamp_offset = static_cast<u32>(siphash(secret_, address_words(key), key.ports()) >> 32);
  start_sequence(*t, ack.acknowledgment - 1);
  take_syn(*t, slot, syn);
  t->send_next = t->send_max = ack.acknowledgment;
  t->receive_edge = t->receive_next + std::min(t->receive_buffer, 0xffffu);
  t->last_ack_sent = t->receive_next;
  const TcbId id = t->id;
  on_segment(*t, ack);
  if (alive(*t, id)) touch(*t);
}

}  // namespace cob::net
