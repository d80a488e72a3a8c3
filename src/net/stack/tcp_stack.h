// TcpStack: the Stack. Its methods lie in the files the RFCs' seams suggest: ip, tcp_receive,
// tcp_ack, tcp_recovery, tcp_send, tcp_segment, tcp_timer, tcp_listen, tcp_connection, and udp;
// congestion control is congestion.h. Model: on_frame() changes state and marks TCBs; poll() runs
// timers and then flushes every marked TCB once, so ACKs, data and FINs of one turn share segments.
// Only what must not wait (RST, duplicate and challenge ACKs) leaves from on_frame(). Owned by one
// kernel's loop.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "net/stack/address_names.h"
#include "net/stack/arp.h"
#include "net/stack/fast_open_cache.h"
#include "net/stack/fragments.h"
#include "net/stack/ipv6_interface.h"
#include "net/stack/keyed_hash.h"
#include "net/stack/neighbours.h"
#include "net/stack/path_mtu.h"
#include "net/stack/reassembly.h"
#include "net/stack/sack_scoreboard.h"
#include "net/stack/stack.h"
#include "net/stack/tcb_table.h"
#include "net/stack/time_wait.h"
#include "net/stack/timer_wheel.h"
#include "net/stack/udp.h"
#include "net/wire/icmp.h"
#include "net/wire/icmpv6.h"
#include "net/wire/tcp.h"

namespace cob::net {

constexpr u32 ip_header_bytes(bool ipv6) {
  return ipv6 ? u32{sizeof(Ipv6Header)} : u32{sizeof(Ipv4Header)};
}

struct Listener {
  Endpoint local;
  u32 backlog = 0;
  u32 accept_queue = 0;  // established, not accepted() yet
  u32 syn_queue = 0;     // SYN_RECEIVED
  u32 generation = 0;
  u32 next_same_port = no_slot;
  u32 first_child = no_slot;  // TCBs of both queues
  u16 max_segment_bytes = 0;  // 0: the route's
  bool open = false;
  bool quiet = false;
  // RFC 7413 section 5.1: early connections whose handshake has not ended, and
  // those of them that were reset lately, which count too: they may have been
  // forged.
  u32 most_early = 0, early = 0, reset_early = 0, reset_early_ms = 0;
};

class TcpStack final : public Stack {
 public:
  TcpStack(const StackOptions& options, Device& device, SocketLayer& layer);

  void on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags, Time now) override;
  FramePlace look_up(std::span<const std::byte> frame) const override;
  void fetch(FramePlace place) const override;
  void poll(Time now) override;
  Time next_deadline() const override;

  void set_others(OtherStacks& others) override { others_ = &others; }
  void tell_flows() override;
  bool any_flow(Port local, const FlowPredicate& wanted) const override;
  std::size_t take_time_wait(u32& cursor, u32 places, const FlowPredicate& leaves,
                             std::span<MovedTimeWait> out) override;
  Result<void> put_time_wait(const MovedTimeWait& moved) override;
  void drop_time_wait(Endpoint local, Endpoint remote) override;

  Result<ListenerId> listen(Endpoint local, u32 backlog) override;
  void set_backlog(ListenerId listener, u32 backlog) override;
  void set_quiet(ListenerId listener, bool quiet) override;
  void set_max_segment(ListenerId listener, u16 bytes) override;
  void set_fast_open(ListenerId listener, u32 most) override;
  ListenerInfo info(ListenerId listener) const override;
  void close_listener(ListenerId listener) override;
  bool accepted(TcbId tcb) override;

  Result<TcbId> connect(const ConnectOptions& options) override;
  bool waits_for_data(TcbId tcb) const override;
  void set_cookie(TcbId tcb, u64 cookie) override;
  void send_available(TcbId tcb, std::size_t bytes) override;
  void mark_urgent(TcbId tcb) override;
  void receive_consumed(TcbId tcb, std::size_t bytes) override;
  void set_receive_buffer(TcbId tcb, u32 bytes) override;
  void set_no_delay(TcbId tcb, bool on) override;
  void set_cork(TcbId tcb, bool on) override;
  void set_keep_alive(TcbId tcb, bool on, Duration idle, Duration interval, u32 probes) override;
  void set_limits(TcbId tcb, const TcbLimits& limits) override;
  void set_congestion_control(TcbId tcb, CongestionControl control) override;
  void shutdown_send(TcbId tcb) override;
  void shutdown_receive(TcbId tcb) override;
  void close(TcbId tcb) override;
  void abort(TcbId tcb) override;
  void route_lost(Route route) override;
  // tcp_move.cc
  void set_moved(MovedFlows& moved) override { moved_ = &moved; }
  Result<MovedConnection> take_out(TcbId tcb, bool with_pieces) override;
  Result<TcbId> take_in(const MovedConnection& moved, u64 cookie, ListenerId listener) override;
  bool may_take_out(TcbId tcb) const override;
  Result<void> may_take_in(const MovedConnection& moved) const override;
  MovedFacts facts_of(const MovedConnection& moved) const override;
  std::vector<TcbId> handshakes(ListenerId listener) const override;
  bool reroute(Endpoint local, Endpoint remote, Route from, Route to) override;

  Result<UdpId> udp_open(Endpoint local, bool reuse_port, u64 cookie) override;
  void udp_close(UdpId id) override;
  void udp_connect(UdpId id, Endpoint local, Endpoint remote) override;
  Result<void> udp_join(UdpId id, Ipv4Address group) override;
  Result<void> udp_leave(UdpId id, Ipv4Address group) override;
  bool udp_port_in_use(Port port) const override;
  Result<void> udp_send(const UdpSend& send, std::span<const UdpPiece> pieces) override;
  u32 path_mtu(Ipv4Address remote, Route route) const override;

  Result<TcbInfo> info(TcbId tcb) const override;
  u32 congestion_window(TcbId tcb) const override;
  const StackCounters& counters() const override;
  bool tuple_in_use(Endpoint local, Endpoint remote, Time now) const override;
  // listing.cc
  std::size_t list_connections(u32& cursor, u32 places, std::span<TcbEntry> out) const override;
  std::size_t list_time_wait(u32& cursor, u32 places, std::span<TimeWaitInfo> out) const override;
  std::size_t list_neighbours(u32& cursor, u32 places, std::span<NeighbourInfo> out) const override;

  AddressNames& names() override { return names_; }
  const AddressNames& names() const override { return names_; }
  bool is_own_ipv6(Ipv4Address name) const override { return names_.is_own(name); }
  Ipv4Address ipv6_source_for(Ipv4Address remote) const override;
  bool reaches_ipv6(Ipv4Address remote) const override;
  OwnAddress own_address(u32 place) const override;
  u32 own_addresses_version() const override { return own_version_; }
  std::size_t list_ipv6_routes(std::span<Ipv6RouteInfo> out) const override;

 private:
  TcbInfo describe(const Tcb& t) const;
  std::optional<NeighbourInfo> neighbour_at(u32 place) const;

  // ip.cc: frames in and out.
  struct OutgoingFrame {
    std::span<std::byte> bytes;  // empty: the frame is dropped
    MacAddress destination;
    bool checksums = true;
    bool parked = false;    // waits in the ARP cache for its destination
    u16 segment_bytes = 0;  // FrameFlags
  };
  void set_now(Time now);
  bool is_local(Ipv4Address address, Route from) const;
  bool is_broadcast(Ipv4Address address) const;
  void on_arp(std::span<const std::byte> packet);
  void on_icmp(const Ipv4Packet& packet, Route from);
  void on_icmp_error(const IcmpError& error, Route from);
  void on_packet_too_big(Tcb& t, const IcmpError& error);
  void note_lowered(const Tcb& t, u32 full_mss);
  void raise_segments();
  void send_arp(Ipv4Address target, const MacAddress* reply_to);
  void poll_arp();
  std::optional<Ipv4Address> next_hop(Ipv4Address destination) const;
  OutgoingFrame open_frame(Route to, Ipv4Address destination, std::size_t bytes, TcbId tcb);
  // False: no room.
  bool send_frame(const OutgoingFrame& frame);
  // What was asked may have to be asked again, though nothing else happens.
  void mind_neighbours() {
    if (arp_.waiting() || neighbours_.waiting()) quiet_until_ = {};
  }
  bool has_route(Ipv4Address destination) const {
    return destination.is_ipv6() ? reaches_ipv6(destination) : next_hop(destination).has_value();
  }
  void send_parked(std::span<std::byte> frame);
  void on_unreachable(TcbId tcb);
  u16 route_mss(Route route, bool ipv6) const;
  // What keyed hashes take of a flow's addresses, of whichever family.
  u64 address_words(const FlowKey& key) const {
    if (!key.remote().address.is_ipv6()) [[likely]]
      return key.addresses();
    return siphash(secret_, names_.word(key.local().address), names_.word(key.remote().address));
  }
  bool refusal_allowed(Route from);
  u32 segmented_payload(const Tcb& t) const;
  bool hand_on(const FlowKey& key, bool opens);
  bool hand_on_opening(const FlowKey& key);
  bool hand_on_datagram(Endpoint local, Endpoint remote, Route from);

  // ip_fragments.cc
  void expire_fragments();
  u16 next_identification();
  u32 next_identification_ipv6();
  void join_datagram(const UdpSend& send, std::span<const UdpPiece> pieces,
                     std::size_t payload_bytes);
  Result<void> send_fragments(const UdpSend& send, std::span<const UdpPiece> pieces,
                              std::size_t payload_bytes, std::size_t mtu);
  void tell_lost(const Fragments::Lost& lost);
  // ipv6.cc
  void on_ipv6(std::span<const std::byte> bytes, const MacAddress& destination, Route from,
               bool verify);
  bool is_for_us(const Ipv6Packet& packet, Route from) const;
  void on_upper_ipv6(const Ipv6Packet& packet, Route from, bool verify);
  OutgoingFrame open_frame_ipv6(Ipv4Address destination, std::size_t bytes, TcbId tcb);
  Ipv6Header ipv6_header(const Ipv6Fields& fields) const;
  void send_packet_ipv6(const Ipv6Address& destination, Route to,
                        std::span<const std::byte> packet);
  void send_link_ipv6(const MacAddress& destination, std::span<const std::byte> packet);
  void tell_source_ipv6(const Ipv6Packet& packet, std::span<const std::byte> bytes, u8 type,
                        u8 code, u32 word, Route from);
  void poll_ipv6();
  void sweep_names();

  // icmpv6.cc
  void on_icmpv6(const Ipv6Packet& packet, Route from, bool verify);
  void on_echo_ipv6(const Ipv6Packet& packet, const Icmpv6Message& message, Route from);
  void on_icmpv6_error(const Icmpv6Message& message, Route from);
  void on_neighbour_message(const Ipv6Packet& packet, const Icmpv6Message& message);
  void on_solicitation(const Ipv6Packet& packet, const NeighborSolicitation& solicitation);
  void on_advertisement(const NeighborAdvertisement& advertisement);
  void on_router_advertisement(const Ipv6Packet& packet, const RouterAdvertisement& advertisement);
  bool on_redirect(const Ipv6Packet& packet, const Redirect& redirect);
  void on_group_message(const Ipv6Packet& packet, const Icmpv6Message& message);
  void solicit(const Ipv6Address& target, const MacAddress* to);
  void detect_duplicate(const Ipv6Address& target);
  void solicit_routers();
  void on_own_address_gone(u32 place);

  // udp.cc
  std::size_t datagram_mtu(const UdpSend& send) const;
  bool may_refuse();
  void on_udp(const Ipv4Packet& packet, Route from, bool verify_checksum);
  void refuse_datagram(const Ipv4Packet& packet, Route from, Port source_port);
  void on_datagram_refused(const IcmpError& error, Route from);

  // tcp_segment.cc: segments out.
  struct SynOptions {
    TcpSynOptions fixed;
    TcpFastOpenOption fast_open;  // behind it
    u32 fast_open_bytes = 0;
  };
  struct SegmentFields {
    FlowKey key;
    Route route;
    SequenceNumber sequence, acknowledgment;
    u16 window = 0;
    u8 flags = 0;
    bool timestamps = false;
    u16 urgent_pointer = 0;  // with tcp_urg
    u32 timestamp_value = 0, timestamp_echo = 0;
    const SynOptions* syn_options = nullptr;
    bool sack_permitted = false;
    u8 sack_blocks = 0;
    u8 ecn = 0;                           // of the IP header
    const TcpSackOption* sack = nullptr;  // REQUIRES: sack_blocks > 0 makes it fit
    TcbId tcb = no_tcb;
  };
  bool transmit(const SegmentFields& fields, Tcb* payload_of, u32 payload_offset,
                u32 payload_bytes);
  void finish_ipv6(const SegmentFields& fields, TcpHeader& tcp, u32 tcp_bytes,
                   const OutgoingFrame& out);
  bool emit(Tcb& t, SequenceNumber sequence, u32 bytes, u8 flags);
  bool emit_ack(Tcb& t, const SackBlock* duplicate);
  u32 fill_sack(const Tcb& t, const SackBlock* duplicate, TcpSackOption& option) const;
  bool emit_syn(Tcb& t);
  void emit_reset(const Tcb& t);
  void reset_for(const FlowKey& key, const TcpSegment& segment, Route route);

  // tcp_window.cc
  u16 advertise_window(Tcb& t);
  bool window_update_due(const Tcb& t) const;
  void fit_receive_buffer(Tcb& t, TcbCold& cold);
  u32 timestamp_now(const Tcb& t) const { return now_ms_ + t.timestamp_offset; }

  // tcp_receive.cc: segment arrives, RFC 9293 section 3.10.7.
  void on_tcp(const Ipv4Packet& packet, Route from, bool verify_checksum);
  void on_segment_without_tcb(const FlowKey& key, u32 hash, const TcpSegment& segment, Route from);
  void on_segment(Tcb& t, const TcpSegment& segment);
  void on_segment_syn_sent(Tcb& t, const TcpSegment& segment);
  bool check_acceptable(Tcb& t, const TcpSegment& segment);
  bool handle_reset_and_syn(Tcb& t, const TcpSegment& segment);
  void receive_text(Tcb& t, const TcpSegment& segment);
  bool deliver(Tcb& t, std::span<const std::byte> payload);
  bool deliver_reassembled(Tcb& t);
  bool offer_refused(Tcb& t);
  void on_fin(Tcb& t);
  void answer_unacceptable(Tcb& t, const TcpSegment& segment);
  void challenge_ack(Tcb& t);
  bool is_too_old(const Tcb& t, SequenceNumber ack) const;
  SackBlock piece_before(const Tcb& t, SequenceNumber end) const;
  bool take_challenge_token();
  void report_duplicate(Tcb& t, const TcpSegment& segment);
  void schedule_ack(Tcb& t, u32 payload_bytes);
  void ack_soon(Tcb& t);
  void poll_soft_acks();
  bool may_replace(const TimeWaitEntry& entry, const TcpSegment& syn) const;
  void on_time_wait_segment(TimeWaitEntry& entry, const TcpSegment& segment);
  bool establish(Tcb& t, const TcpSegment& segment);
  void refuse_data(Tcb& t);
  void negotiate(Tcb& t, const TcpSegment& syn);

  // tcp_ack.cc: the ACK field, windows, recovery.
  bool process_ack(Tcb& t, const TcpSegment& segment);
  void on_new_ack(Tcb& t, const TcpSegment& segment);
  void on_duplicate_ack(Tcb& t);
  void update_send_window(Tcb& t, const TcpSegment& segment);
  SequenceNumber acceptable_sequence(const Tcb& t) const;
  bool on_fin_acked(Tcb& t);
  void start_recovery(Tcb& t);
  void on_ecn(Tcb& t, const TcpSegment& segment);

  // tcp_recovery.cc: loss recovery by the scoreboard.
  bool process_sack(Tcb& t, const TcpSegment& segment);
  u32 slow_start_growth(Tcb& t, u32 acked, u32 rtt_us);
  void on_needless_retransmission(Tcb& t, const SackBlock& named);
  void detect_losses(Tcb& t);
  void on_fine_timer(Tcb& t);
  void arm_probe(Tcb& t);
  void send_probe(Tcb& t);
  void judge_probe(Tcb& t, const TcpSegment& segment, bool duplicate);
  u32 reorder_window_us(const Tcb& t) const;
  void apply_prr(Tcb& t, u32 delivered, bool safe);
  bool resend_lost(Tcb& t);
  bool send_again(Tcb& t, const Scoreboard::Piece& piece);
  void note_sent(Tcb& t, SequenceNumber at);
  void send_all_again(Tcb& t);
  void release_scoreboard(Tcb& t);
  Scoreboard& board(const Tcb& t) { return boards_[table_.cold(t).scoreboard]; }
  const Scoreboard& board(const Tcb& t) const { return boards_[table_.cold(t).scoreboard]; }

  // tcp_send.cc: output.
  void touch(Tcb& t);
  void flush_output();
  bool flush_output_of(TcbId id);
  bool output(Tcb& t);
  bool output_handshake(Tcb& t);
  bool output_data(Tcb& t);
  bool may_send(const Tcb& t, u32 bytes, bool last, bool fin) const;
  bool send_piece(Tcb& t, u32 bytes, bool fin);
  void arm_after_output(Tcb& t);

  // tcp_urgent.cc
  bool on_urgent(Tcb& t, const TcpSegment& segment);
  bool in_urgent_mode(const Tcb& t) const;
  u16 urgent_pointer(Tcb& t, SequenceNumber sequence);

  // tcp_timer.cc
  void sync_timer(Tcb& t);
  void on_timer(u32 slot);
  bool on_retransmit_timer(Tcb& t);
  bool on_idle_timer(Tcb& t);
  u32 retransmit_interval_ms(const Tcb& t) const;
  u32 deadline_in(u32 ms) const { return now_ms_ + ms != 0 ? now_ms_ + ms : 1; }
  void start_retransmit_timer(Tcb& t, RetransmitTimer kind);
  bool user_timeout_over(const TcbCold& cold) const;
  void measure_rtt(Tcb& t, u32 rtt_us);

  // tcp_listen.cc: passive opens and their queues.
  Listener* listener_for(Ipv4Address address, Port port);
  Listener* listener(ListenerId id);
  bool wait_for_fin(Tcb& t);
  void on_listen_segment(u32 slot, const FlowKey& key, const TcpSegment& segment, Route from,
                         TimeWaitEntry* old);
  void take_syn(Tcb& t, u32 slot, const TcpSegment& syn);
  bool admit(Tcb& t);
  void link_child(Tcb& t, u32 slot);
  void unlink_child(Tcb& t);

  // tcp_cookie.cc
  void send_cookie(const Listener& l, const FlowKey& key, const TcpSegment& syn, Route route);
  std::optional<TcpSegment> check_cookie(const FlowKey& key, const TcpSegment& segment);
  void open_by_cookie(u32 slot, const FlowKey& key, const TcpSegment& syn, const TcpSegment& ack,
                      Route route);
  u32 cookie_minute() const { return static_cast<u32>(now_tick_ / 60'000); }

  // tcp_fast_open.cc
  u64 fast_open_value(const FlowKey& key, u64 period) const;
  void take_fast_open(Tcb& t, u32 slot, const TcpSegment& syn);
  u32 ask_fast_open(Tcb& t, SynOptions& options);
  void answer_fast_open(const Tcb& t, SynOptions& options);
  void on_syn_data_sent(Tcb& t, u32 bytes);
  bool on_fast_open_answer(Tcb& t, const TcpSegment& syn_ack);
  void end_early(Tcb& t, bool reset);
  void repeat_syn(Tcb& t);
  bool output_early(Tcb& t);
  bool must_wait_for_data(const Tcb& t, const TcbCold& cold) const;

  // tcp_move.cc
  void go_on(Tcb& t);

  // tcp_connection.cc: birth and death.
  Tcb* create_tcb(const FlowKey& key, Route route, u16 max_segment_bytes);
  u16 own_mss(Route route, bool ipv6, u16 most) const;
  void choose_initial_sequence(Tcb& t);
  void start_sequence(Tcb& t, SequenceNumber initial);
  void forget(Tcb& t);
  void fail(Tcb& t, int error);
  void finish(Tcb& t);
  void enter_time_wait(Tcb& t);
  bool reusable(const TimeWaitEntry& entry, u32 now_ms) const;
  bool alive(const Tcb& t, TcbId id) const { return t.id == id; }

  Time next_event() const;

  // ACKs to unacceptable segments of one connection, as Linux.
  static constexpr u32 answer_interval_ms = 500;
  static constexpr u32 fin_wait_2_ms = 60'000;     // Linux tcp_fin_timeout
  static constexpr u32 refusals_a_second = 1'000;  // datagrams from the uplink
  static constexpr u32 most_receive_window = 0xffffu << receive_window_scale;
  static constexpr u32 right_size_from = 64 * 1024;    // bytes received: what is short needs none
  static constexpr u32 max_send_buffer = 1u << 30;     // bytes a connection may have announced
  static constexpr u32 reassembly_pieces = 32 * 1024;  // of 2 KiB

  StackOptions options_;
  Device& device_;
  SocketLayer& layer_;
  OtherStacks* others_ = nullptr;
  MovedFlows* moved_ = nullptr;
  std::span<const std::byte> frame_;  // from the uplink, during its on_frame()
  FrameFlags frame_flags_;
  mutable StackCounters counters_;  // the gauges are filled in by counters()

  mutable Time latest_;  // the last instant heard of, by an idle poll() too; calls of the layer
                         // catch up from it
  Time now_;
  u32 now_ms_ = 1;
  u32 now_us_ = 0;
  // The wheel's ticks divide a millisecond, and are short beside the round trips of a cob.
  static constexpr u32 wheel_tick_ns = 62'500;
  static constexpr u32 wheel_ticks_per_ms = 1'000'000 / wheel_tick_ns;
  u64 now_tick_ = 0;  // now_ms_ before truncation

  HashKey secret_;
  AddressNames names_;
  TcbTable table_;
  TimeWaitTable time_wait_;
  TimerWheel wheel_;
  ReassemblyPool reassembly_;
  UdpTable udp_;
  ScoreboardPool boards_;
  Ipv6Interface ipv6_;
  NeighbourCache neighbours_;
  u32 own_version_ = 1;
  ArpCache arp_;
  Fragments fragments_;
  PathMtu path_mtu_;
  // Connections whose segments a path's limit made smaller, in the order in which they try larger
  // ones. Full: the newest keeps its size.
  struct Lowered {
    TcbId tcb;
    u32 full_mss, due_ms;
  };
  static constexpr std::size_t lowered_capacity = 4'096;
  std::deque<Lowered> lowered_;
  FastOpenCache fast_open_;
  std::vector<TcbId> output_list_, flushing_;  // TCBs to look at; each at most once
  std::deque<TcbId> blocked_;  // had no room in the device: tried again in their order
  Time quiet_until_;           // poll() has nothing to do before, if the lists are empty
  std::vector<Listener> listeners_;
  LazyArray<u16> listener_of_port_;  // slot + 1 of the first listener on the port
  // ACKs that wait a moment for a segment to ride on: in order of their deadlines, as all wait
  // equally long. A ring of soft_ack_capacity; full: the ACK leaves at the next flush.
  struct SoftAck {
    TcbId tcb;
    Time deadline;
  };
  static constexpr u32 soft_ack_capacity = 4'096;
  static constexpr Duration soft_ack_delay = Duration::microseconds(100);
  LazyArray<SoftAck> soft_acks_;
  u32 soft_ack_head_ = 0, soft_ack_tail_ = 0;
  static constexpr u64 cookie_domain = 1u << 30;  // of the secret's uses, beside the ISN's
  Time cookies_end_;  // cookies are taken only while one may be out, so that nobody guesses else
  u32 challenge_tokens_ = 0;
  u32 challenge_second_ = 0;
  std::vector<std::byte> whole_datagram_;  // what send_fragments() cuts
  u16 next_identification_ = 0;            // 0: none was chosen yet
  u64 cut_ipv6_ = 0;                       // datagrams of IPv6 that left in fragments
  u32 refusals_ = 0;                       // in refusal_second_
  u32 refusal_second_ = 0;
  u64 random_ = 0;
};

}  // namespace cob::net
