// Segments out: one function builds every frame, in place in the device's buffer. RFC 9293 section
// 3.1, RFC 7323.
// Model: the headers are one fixed-size struct stored at once; payload is read by the layer
// straight into the frame; checksums only where the route's wire needs them.
// Owned by the Stack's loop.
#include <algorithm>
#include <cstring>

#include "net/stack/tcp_stack.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"

namespace cob::net {
namespace {

struct Headers {
  EthernetHeader ethernet;
  Ipv4Header ip;
  TcpHeader tcp;
};
static_assert(sizeof(Headers) == 54);

}  // namespace

bool TcpStack::transmit(const SegmentFields& f, Tcb* payload_of, u32 payload_offset,
                        u32 payload_bytes) {
  const u32 syn_bytes =
      f.syn_options != nullptr ? u32{sizeof(TcpSynOptions)} + f.syn_options->fast_open_bytes : 0;
  const u32 timestamp_bytes = f.timestamps ? u32{sizeof(TcpTimestampsOption)} : 0;
  const bool sack_permitted_alone_due = f.sack_permitted && !f.timestamps;
  const u32 sack_bytes = f.sack_blocks > 0          ? TcpSackOption::bytes(f.sack_blocks)
                         : sack_permitted_alone_due ? u32{sizeof(Be32)}
                                                    : 0;
  const u32 option_bytes = syn_bytes + timestamp_bytes + sack_bytes;
  const bool ipv6 = Ipv4Address{f.key.remote_address}.is_ipv6();
  const u32 fixed_bytes =
      u32{sizeof(Headers)} + (ipv6 ? u32{sizeof(Ipv6Header) - sizeof(Ipv4Header)} : 0);
  const u32 header_bytes = fixed_bytes + option_bytes;
  OutgoingFrame out =
      open_frame(f.route, {f.key.remote_address}, header_bytes + payload_bytes, f.tcb);
  if (out.bytes.empty()) return false;
  if (payload_of != nullptr && payload_bytes > payload_of->mss) out.segment_bytes = payload_of->mss;
  const u32 tcp_bytes = u32{sizeof(TcpHeader)} + option_bytes + payload_bytes;
  Headers h{.ethernet = {out.destination, options_.mac, ethernet_type_ipv4},
            .ip = emit_ipv4({{f.key.local_address},
                             {f.key.remote_address},
                             ip_protocol_tcp,
                             static_cast<u16>(tcp_bytes),
                             f.ecn},
                            out.checksums),
            .tcp = {.source_port = f.key.local_port,
                    .destination_port = f.key.remote_port,
                    .sequence = f.sequence.value,
                    .acknowledgment = f.acknowledgment.value,
                    .data_offset = static_cast<u8>((sizeof(TcpHeader) + option_bytes) << 2),
                    .flags = f.flags,
                    .window = f.window,
                    .checksum = {},
                    .urgent_pointer = f.urgent_pointer}};
  std::byte* at = out.bytes.data() + fixed_bytes;
  if (f.syn_options != nullptr) {
    std::memcpy(at, &f.syn_options->fixed, sizeof(TcpSynOptions));
    at += sizeof(TcpSynOptions);
    if (f.syn_options->fast_open_bytes > 0) [[unlikely]] {
      std::memcpy(at, f.syn_options->fast_open.data, f.syn_options->fast_open_bytes);
      at += f.syn_options->fast_open_bytes;
    }
  }
  if (f.timestamps) {
    TcpTimestampsOption option{.value = f.timestamp_value, .echo = f.timestamp_echo};
    if (f.sack_permitted) option.nop_nop_kind_length = sack_permitted_before_timestamps;
    std::memcpy(at, &option, sizeof option);
    at += sizeof option;
  }
  if (sack_bytes > 0) [[unlikely]] {
    if (f.sack_blocks > 0) {
      std::memcpy(at, f.sack, sack_bytes);
    } else {
      const Be32 option = sack_permitted_alone;
      std::memcpy(at, &option, sizeof option);
    }
    at += sack_bytes;
  }
  if (payload_bytes > 0)
    layer_.read_send_buffer(payload_of->id, payload_of->cookie, payload_offset,
                            {at, payload_bytes});
  if (ipv6) [[unlikely]] {
    finish_ipv6(f, h.tcp, tcp_bytes, out);
  } else {
    if (out.checksums) {
      u64 sum = checksum_pseudo_header({f.key.local_address}, {f.key.remote_address},
                                       ip_protocol_tcp, static_cast<u16>(tcp_bytes));
      sum = checksum_add(sum, std::as_bytes(std::span(&h.tcp, 1)));
      h.tcp.checksum.as_it_lies = checksum_fold(checksum_add(sum, out.bytes.subspan(sizeof h)));
    }
    std::memcpy(out.bytes.data(), &h, sizeof h);
  }
  if (!send_frame(out)) return false;
  ++counters_.segments_out;
  return true;
}

// The headers of a segment whose options and payload are in place.
void TcpStack::finish_ipv6(const SegmentFields& f, TcpHeader& tcp, u32 tcp_bytes,
                           const OutgoingFrame& out) {
  struct HeadersIpv6 {
    EthernetHeader ethernet;
    Ipv6Header ip;
    TcpHeader tcp;
  } h{.ethernet = {out.destination, options_.mac, ethernet_type_ipv6},
      .ip = emit_ipv6({.source = names_.address({f.key.local_address}),
                       .destination = names_.address({f.key.remote_address}),
                       .protocol = ip_protocol_tcp,
                       .payload_bytes = static_cast<u16>(tcp_bytes),
                       .hop_limit = ipv6_.hop_limit(),
                       .traffic_class = f.ecn}),
      .tcp = tcp};
  static_assert(sizeof h == sizeof(Headers) + sizeof(Ipv6Header) - sizeof(Ipv4Header));
  if (out.checksums) {
    u64 sum = checksum_pseudo_header(h.ip.source, h.ip.destination, ip_protocol_tcp, tcp_bytes);
    sum = checksum_add(sum, std::as_bytes(std::span(&h.tcp, 1)));
    h.tcp.checksum.as_it_lies = checksum_fold(checksum_add(sum, out.bytes.subspan(sizeof h)));
  }
  std::memcpy(out.bytes.data(), &h, sizeof h);
}

// The blocks of the next ACK (RFC 2018 section 4), behind the duplicate it is to report, if any
// (RFC 2883 section 4); how many.
u32 TcpStack::fill_sack(const Tcb& t, const SackBlock* duplicate, TcpSackOption& option) const {
  SackBlock blocks[max_sack_blocks];
  const u32 most = t.has(flag_timestamps) ? max_sack_blocks - 1 : max_sack_blocks;
  u32 count = 0;
  if (duplicate != nullptr) blocks[count++] = *duplicate;
  count += reassembly_.sack_blocks(table_.cold(t), t.receive_next,
                                   std::span(blocks).subspan(count, most - count));
  // A FIN behind a gap has a number too.
  const SequenceNumber fin = table_.cold(t).peer_fin;
  bool untold = t.has(flag_peer_fin_known) && fin > t.receive_next;
  for (std::size_t i = duplicate != nullptr ? 1 : 0; untold && i < count; ++i) {
    if (blocks[i].end != fin) continue;
    blocks[i].end += 1;
    untold = false;
  }
  if (untold && count < most) blocks[count++] = {fin, fin + 1};
  for (std::size_t i = 0; i < count; ++i) {
    option.edges[2 * i] = blocks[i].start.value;
    option.edges[2 * i + 1] = blocks[i].end.value;
  }
  option.length = static_cast<u8>(2 + 8 * count);
  return count;
}

// RFC 9293 section 3.10.7.4 takes no ACK from beyond the window: where the peer has made that
// smaller than what is under way, the ACK lies at its edge, as Linux's (tcp_acceptable_seq). Less
// than a grain of the scale beyond is only rounding.
SequenceNumber TcpStack::acceptable_sequence(const Tcb& t) const {
  const SequenceNumber edge = t.send_unacknowledged + t.send_window;
  if (t.send_max < edge + (1u << t.send_scale) || t.state < TcpState::established) [[likely]]
    return t.send_max;
  return edge;
}

// An ACK that must not wait: of an out-of-order segment, or of a `duplicate`.
bool TcpStack::emit_ack(Tcb& t, const SackBlock* duplicate) {
  if (!t.has(flag_sack)) return emit(t, t.send_max, 0, tcp_ack);
  TcpSackOption option;
  const u32 blocks = fill_sack(t, duplicate, option);
  const SequenceNumber sequence = acceptable_sequence(t);
  const u16 urgent = t.has(flag_urgent) ? urgent_pointer(t, sequence) : u16{0};
  const int flags = tcp_ack | (t.has(flag_ecn_echo) ? tcp_ece : 0) | (urgent != 0 ? tcp_urg : 0);
  if (!transmit({.key = t.key,
                 .route = t.route,
                 .sequence = sequence,
                 .acknowledgment = t.receive_next,
                 .window = advertise_window(t),
                 .flags = static_cast<u8>(flags),
                 .timestamps = t.has(flag_timestamps),
                 .urgent_pointer = urgent,
                 .timestamp_value = timestamp_now(t),
                 .timestamp_echo = t.timestamp_recent,
                 .sack_blocks = static_cast<u8>(blocks),
                 .sack = &option,
                 .tcb = t.id},
                nullptr, 0, 0))
    return false;
  t.last_ack_sent = t.receive_next;
  t.flags &= ~u32{flag_ack_now | flag_ack_soft};
  t.ack_deadline = 0;
  return true;
}

bool TcpStack::emit(Tcb& t, SequenceNumber sequence, u32 bytes, u8 flags) {
  // While pieces are missing every ACK says which are not (RFC 2018 section 4); data segments are
  // full, and carry none.
  if (bytes == 0 && flags == tcp_ack && t.has(flag_sack) && sequence == t.send_max &&
      (!ReassemblyPool::empty(table_.cold(t)) || t.has(flag_peer_fin_known)))
    return emit_ack(t, nullptr);
  if (bytes == 0 && flags == tcp_ack && sequence == t.send_max) sequence = acceptable_sequence(t);
  const u32 offset = bytes > 0 ? sequence - t.send_unacknowledged : 0;
  u8 ecn = 0;
  u16 urgent = 0;
  if ((t.flags & (flag_ecn | flag_urgent)) != 0) [[unlikely]] {
    if (t.has(flag_ecn_echo)) flags |= tcp_ece;
    // New data only (RFC 3168 sections 6.1.2, 6.1.4 and 6.1.5).
    if (t.has(flag_ecn) && bytes > 0 && sequence == t.send_max) {
      ecn = ip_ecn_ect0;
      if (t.has(flag_cwr_due)) flags |= tcp_cwr;
    }
    if (t.has(flag_urgent)) urgent = urgent_pointer(t, sequence);
    if (urgent != 0) flags |= tcp_urg;
  }
  if (!transmit({.key = t.key,
                 .route = t.route,
                 .sequence = sequence,
                 .acknowledgment = t.receive_next,
                 .window = advertise_window(t),
                 .flags = flags,
                 .timestamps = t.has(flag_timestamps),
                 .urgent_pointer = urgent,
                 .timestamp_value = timestamp_now(t),
                 .timestamp_echo = t.timestamp_recent,
                 .ecn = ecn,
                 .tcb = t.id},
                &t, offset, bytes))
    return false;
  if ((flags & tcp_cwr) != 0) [[unlikely]]
    t.clear(flag_cwr_due);
  t.last_ack_sent = t.receive_next;
  t.flags &= ~u32{flag_ack_now | flag_ack_soft};
  t.ack_deadline = 0;
  return true;
}

bool TcpStack::emit_syn(Tcb& t) {
  const TcbCold& cold = table_.cold(t);
  const bool answer = t.state == TcpState::syn_received;
  // A SYN offers everything; a SYN-ACK to a peer's SYN agrees to what that offered (RFC 7323
  // sections 2.2 and 3.2).
  const bool scaling = !answer || t.has(flag_window_scaling);
  SynOptions options;
  options.fixed.mss = cold.advertised_mss;
  options.fixed.scale = receive_window_scale;
  if (!scaling) options.fixed.scale_kind = options.fixed.scale_length = options.fixed.scale = 1;
  u32 data = 0;
  if (cold.fast_open != 0) [[unlikely]] {
    if (!answer) data = ask_fast_open(t, options);
    if (answer) answer_fast_open(t, options);
  }
  const u32 window = std::min<u32>(t.receive_buffer, 0xffff);  // never scaled in a SYN
  // RFC 3168 section 6.1.1.1: a SYN that got no answer asks no more.
  const bool ask = !answer && options_.ecn == Ecn::ask && t.retries == 0;
  const u32 ecn_flags = ask ? tcp_ece | tcp_cwr : answer && t.has(flag_ecn) ? tcp_ece : 0;
  if (!transmit({.key = t.key,
                 .route = t.route,
                 .sequence = cold.initial_send,
                 .acknowledgment = answer ? t.receive_next : SequenceNumber{},
                 .window = static_cast<u16>(window),
                 .flags = static_cast<u8>((answer ? tcp_syn | tcp_ack : tcp_syn) | ecn_flags),
                 .timestamps = !answer || t.has(flag_timestamps),
                 .timestamp_value = timestamp_now(t),
                 .timestamp_echo = answer ? t.timestamp_recent : 0,
                 .syn_options = &options,
                 .sack_permitted = !answer || t.has(flag_sack),
                 .tcb = t.id},
                data > 0 ? &t : nullptr, 0, data))
    return false;
  if (data > 0) on_syn_data_sent(t, data);
  if (answer) {
    t.receive_edge = later_of(t.receive_edge, t.receive_next + window);
    t.last_ack_sent = t.receive_next;
  }
  t.clear(flag_ack_now);
  return true;
}

// RFC 9293 section 3.10.5 (ABORT): acceptable to the peer because it lies at its RCV.NXT, if
// nothing was lost.
void TcpStack::emit_reset(const Tcb& t) {
  ++counters_.resets_out;
  transmit({.key = t.key,
            .route = t.route,
            .sequence = t.send_max,
            .acknowledgment = t.receive_next,
            .flags = tcp_rst | tcp_ack,
            .timestamps = t.has(flag_timestamps),
            .timestamp_value = timestamp_now(t),
            .timestamp_echo = t.timestamp_recent},
           nullptr, 0, 0);
}

// RFC 9293 section 3.5.2 groups 1 and 2: the reset takes its sequence number from the offending
// segment.
void TcpStack::reset_for(const FlowKey& key, const TcpSegment& segment, Route route) {
  if (segment.has(tcp_rst)) return;
  ++counters_.resets_out;
  const bool acked = segment.has(tcp_ack);
  transmit({.key = key,
            .route = route,
            .sequence = acked ? segment.acknowledgment : SequenceNumber{0},
            .acknowledgment = acked ? SequenceNumber{0} : segment.sequence + segment.length(),
            .flags = static_cast<u8>(acked ? tcp_rst : tcp_rst | tcp_ack)},
           nullptr, 0, 0);
}

}  // namespace cob::net
