// Stack: one kernel's TCP and UDP over IPv4 and IPv6 (RFC 9293, RFC 768 and the RFCs named in the
// parts). It reads no clock and does no I/O of its own: frames and `now` come in by on_frame() and
// poll(), frames go out through a Device, and stream bytes live with the SocketLayer, which the
// stack asks for bytes to (re)send and hands received bytes to. Owned by one kernel's loop; nothing
// here is thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "net/snap_bean/device.h"
#include "net/wire/address.h"
#include "net/wire/ipv6.h"

namespace cob::net {

using TcbId = Distinct<struct TcbIdTag,
                       u32>;  // slot and generation: a stale id is refused, never reused by chance
using ListenerId = Distinct<struct ListenerIdTag, u32>;
inline constexpr TcbId no_tcb{0};
using UdpId = Distinct<struct UdpIdTag, u32>;  // likewise
inline constexpr UdpId no_udp{0};
inline constexpr u32 max_udp_groups = 20;  // of a socket; ip(7), igmp_max_memberships

enum class TcpState : u8 {  // RFC 9293 section 3.3.2
  closed,
  syn_sent,
  syn_received,
  established,
  fin_wait_1,
  fin_wait_2,
  close_wait,
  closing,
  last_ack,
  time_wait,
};

// A datagram as it came: from `remote` to `local`.
struct UdpReceived {
  Endpoint local{}, remote{};
  u8 type_of_service = 0;
  u8 time_to_live = 0;
};

// One to be sent. The route is the caller's choice, as for ConnectOptions.
struct UdpSend {
  Endpoint local{}, remote{};
  Route route{};
  u8 type_of_service = 0;
  u8 time_to_live = 64;
  bool whole = false;           // longer than the path carries: EMSGSIZE, not fragments
  bool cut_by_routers = false;  // without DF; of IPv4
  bool link_only = false;       // only the link counts, not what is known of the path behind it
  u16 most_bytes = 0;           // IPv6 packets are to be no longer; 0: as the path carries
};
using UdpPiece = std::span<const std::byte>;  // may be written by others meanwhile: read once

class AddressNames;  // address_names.h

// What the owner of the sockets provides. Callbacks come from inside on_frame(), poll() and the
// calls below; they may call send_available, receive_consumed, close, abort and set_* for any
// connection, but not destroy the stack. `cookie` is the value given by set_cookie (0 until then).
class SocketLayer {
 public:
  virtual ~SocketLayer() = default;

  // A passive open finished its handshake (it counts against the listener's backlog until
  // accepted()).
  virtual void on_incoming(ListenerId listener, TcbId tcb) = 0;
  // An active open finished its handshake.
  virtual void on_connected(TcbId tcb, u64 cookie) = 0;
  // In-order payload. Returns the bytes taken, from the front. Less than payload.size() means the
  // layer's buffer is full: the rest is treated as not received (it will be retransmitted).
  virtual std::size_t on_data(TcbId tcb, u64 cookie, std::span<const std::byte> payload) = 0;
  // The layer takes so much in a round trip that a receive buffer of `wanted` bytes would let the
  // peer send faster. Returns how large it is now; not more than before: it stays (its user chose
  // it, or memory is short).
  virtual u32 grow_receive_buffer(TcbId tcb, u64 cookie, u32 wanted) = 0;
  // The peer has urgent data (RFC 9293 section 3.8.5): the last byte of them, the mark, lies
  // `ahead` bytes behind what on_data took; `byte`: that one, if it came with the news. A mark is
  // told of again with each segment that says so, until on_data has taken it.
  virtual void on_urgent(TcbId, u64 /*cookie*/, u32 /*ahead*/, std::optional<std::byte> /*byte*/) {}
  // The peer's FIN was reached: no more on_data.
  virtual void on_peer_closed(TcbId tcb, u64 cookie) = 0;
  // The peer acknowledged `bytes` more of the stream: they leave the front of the send buffer.
  virtual void on_acked(TcbId tcb, u64 cookie, std::size_t bytes) = 0;
  // Copy out [offset, offset + out.size()) of the send buffer, offset counted from the first
  // unacknowledged byte. REQUIRES: within what send_available announced. Called for first
  // transmission and retransmission.
  virtual void read_send_buffer(TcbId tcb, u64 cookie, std::size_t offset,
                                std::span<std::byte> out) = 0;
  // The connection failed: ECONNREFUSED, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, EPIPE ... The TCB is
  // gone after the call.
  virtual void on_error(TcbId tcb, u64 cookie, int error) = 0;
  // Orderly end: both FINs exchanged and ours acknowledged (TIME_WAIT, if any, is the stack's own
  // compact entry). The TCB is gone after the call. Not called after on_error or abort().
  virtual void on_closed(TcbId tcb, u64 cookie) = 0;

  // A datagram for the socket; the layer queues or drops it.
  virtual void on_datagram(u64 cookie, const UdpReceived& from,
                           std::span<const std::byte> payload) = 0;
  // What a connected socket sent was refused: ECONNREFUSED, ENOPROTOOPT. The socket lives on.
  virtual void on_datagram_error(u64 cookie, int error) = 0;

  // Names of IPv6 addresses that are not marked may be given to others.
  virtual void mark_names(AddressNames&) const {}
};

// RFC 9438, or RFC 5681 and 6582; both with the same loss recovery.
enum class CongestionControl : u8 { cubic, new_reno };

// RFC 3168; Linux's tcp_ecn 0, 2 and 1.
enum class Ecn : u8 { off, when_asked, ask };

// The other stacks behind the same uplink: a connection is one stack's, but its frames may come to
// another (docs/network.md). Called from inside on_frame(), poll() and the calls; must not call the
// stack. Frames are Ethernet, valid during the call only, and may change meanwhile.
class OtherStacks {
 public:
  virtual ~OtherStacks() = default;
  // A segment from the uplink came for which there is no connection here and, if it `opens` one (a
  // SYN), no listener. True: it is theirs, or shall not be answered; false: this stack answers it.
  virtual bool hand_on(Endpoint local, Endpoint remote, bool opens,
                       std::span<const std::byte> frame, FrameFlags flags) = 0;
  // A SYN from the uplink came for a listener of this stack, of a connection that is not in
  // TIME_WAIT here. True: another's listener shall have it, or has the connection.
  virtual bool hand_on_opening(Endpoint, Endpoint, std::span<const std::byte>, FrameFlags) {
    return false;
  }
  // A datagram for `local` came from the uplink, or news of one that it sent. True: it is theirs.
  virtual bool hand_on_datagram(Endpoint local, Endpoint remote, std::span<const std::byte> frame,
                                FrameFlags flags) = 0;
  // An ARP packet for our address came from the uplink: all may learn from it.
  virtual void share(std::span<const std::byte> frame, FrameFlags flags) = 0;
  // A connection by the uplink begins here, or is over (or in TIME_WAIT).
  virtual void on_flow(Endpoint local, Endpoint remote, bool begins) = 0;
  // A SYN of the uplink was answered with a cookie, and nothing of it is kept.
  virtual void on_cookie(Endpoint, Endpoint) {}
  // As SocketLayer's.
  virtual void mark_names(AddressNames&) const {}
};

// A connection on its way to another kernel of the island (docs/moving.md): whom it joins, and what
// take_out() wrote of it, which where it arrives is nobody's word.
struct MovedConnection {
  Endpoint local{}, remote{};
  Route route{};
  std::vector<std::byte> state;
};

struct MovedFacts {
  u32 announced_bytes = 0;  // of its send buffer
  bool waits = false;       // in a listener's queue
  bool passive = false;     // came from a listener
};

// A connection by the uplink in TIME_WAIT on its way to the kernel that its frames now come to.
// Where it arrives it is nobody's word.
struct MovedTimeWait {
  Endpoint local{}, remote{};
  u32 send_next = 0, receive_next = 0;  // sequence numbers behind both FINs
  u32 receive_window_bytes = 0;
  u32 timestamp_recent = 0, timestamp_sent = 0, timestamp_offset = 0;  // RFC 7323, ms
  u32 left_ms = 0;  // at most TIME_WAIT's 60,000, RFC 9293 section 3.4.2
  bool timestamps = false;
  u8 window_scale = 0;  // at most 14
  bool operator==(const MovedTimeWait&) const = default;
};

// A SYN cookie is good in its minute and the next (RFC 4987 section 3.6).
inline constexpr Duration syn_cookie_life = Duration::seconds(120);

// Who knows where connections and ports have moved. Called from inside on_frame(); must not call
// the stack. Frames as OtherStacks'.
class MovedFlows {
 public:
  virtual ~MovedFlows() = default;
  // A segment for which there is no connection here. True: it is taken care of.
  virtual bool hand_on_moved(Endpoint local, Endpoint remote, bool opens, bool listened, Route from,
                             std::span<const std::byte> frame, FrameFlags flags) = 0;
  // True: the connection is on its way here or away from here. An older one of the same ends that
  // waits out its time here (TIME_WAIT) must not answer for it.
  virtual bool under_way(Endpoint local, Endpoint remote) = 0;
  // A datagram for which there is no socket here. True: it is taken care of.
  virtual bool hand_on_moved_datagram(Endpoint local, Endpoint remote, Route from,
                                      std::span<const std::byte> frame, FrameFlags flags) = 0;
  // A segment of a connection of this stack came from a kernel that is not its peer's. True: that
  // kernel had the connection before, and hands on what still comes to it.
  virtual bool hands_on(Endpoint local, Endpoint remote, Route from) = 0;
};

struct Ipv6Options {
  bool on = false;
  Ipv6Address address{};  // of prefix_bits; 0: none but those of routers
  u8 prefix_bits = 0;
  Ipv6Address gateway{};       // any: what routers advertise
  bool autoconfigure = false;  // addresses from routers' prefixes (RFC 4862)
  bool link_local = true;      // an address of the link
  // The cob's own, for identifiers by RFC 7217, the link-local one's too; zeros: by the MAC address
  // (RFC 4291 appendix A).
  u64 identifier_key[2] = {};
};

// One of the cob's IPv6 addresses, under the name first_own_name + its place.
struct OwnAddress {
  Ipv6Address address{};  // any: the place is free
  u8 prefix_bits = 0;
  bool tentative = false, deprecated = false, automatic = false;
  u32 valid_s = 0, preferred_s = 0;  // left; 0xffff'ffff: for ever
};
struct Ipv6RouteInfo {
  Ipv6Address destination{};
  u8 prefix_bits = 0;
  Ipv6Address router{};  // any: on the link
  u32 left_s = 0;        // 0xffff'ffff: for ever
};

struct StackOptions {
  Ipv4Address address{};  // the cob's one address
  u8 prefix_bits = 24;
  Ipv4Address gateway{};  // 0.0.0.0: none
  MacAddress mac{};       // the cob's one MAC
  u64 secret[2] = {};     // cob-wide: ISN (RFC 6528) and timestamp offsets come from it
  Ipv6Options ipv6{};
  // Reaction when full: connect gives ENOBUFS, a SYN is dropped and counted.
  u32 max_connections = 65'536;
  u32 max_time_wait = 131'072;  // reaction when full: the oldest entry is given up
  // Connections with more than one segment in flight that know what arrived of it (SACK, RACK); 3
  // KiB each while it lasts. Reaction when full: NewReno.
  u32 max_scoreboards = 4'096;
  CongestionControl congestion = CongestionControl::cubic;  // of new connections
  Ecn ecn = Ecn::when_asked;
  // What a connection may promise at first; SocketLayer::grow_receive_buffer makes it more.
  u32 receive_window_bytes = 256 * 1024;
};

struct ConnectOptions {
  Endpoint local{};
  Endpoint remote{};
  Route route{};  // inside(kernel that holds the listener), or uplink
  u64 cookie = 0;
  u16 max_segment_bytes = 0;  // TCP_MAXSEG: below the route's MSS, both ways; 0: the route's
  // RFC 7413: the SYN asks for a cookie, or carries one and the first data; then it waits for these
  // (waits_for_data()).
  bool fast_open = false;
};

// How long a connection bears what does not go on; tcp(7).
struct TcbLimits {
  // TCP_USER_TIMEOUT, RFC 5482 section 3: data unacknowledged, or unsent before a closed window,
  // for this long ends the connection with ETIMEDOUT, in place of the usual count of
  // retransmissions and keep-alive probes. Zero: off.
  Duration user_timeout{};
  u8 syn_retries = 0;          // TCP_SYNCNT; 0: the usual 6
  u8 fin_wait_2_s = 0;         // TCP_LINGER2: of a closed connection; 0: the usual 60
  bool no_fin_wait_2 = false;  // TCP_LINGER2 below 0
  bool any() const {
    return user_timeout.ns != 0 || syn_retries != 0 || fin_wait_2_s != 0 || no_fin_wait_2;
  }
  bool operator==(const TcbLimits&) const = default;
};

// What a connection waits for, of what tcp(7) and ss(8) name.
enum class WaitKind : u8 { nothing, retransmit, persist, cork, keep_alive, fin_wait_2 };
enum class CongestionState : u8 { open, recovery, loss };  // RFC 6582; after a timeout

struct TcbInfo {
  TcpState state = TcpState::closed;
  Endpoint local{}, remote{};
  Route route{};
  CongestionControl congestion_control = CongestionControl::cubic;
  bool sack = false, ecn = false;  // agreed on
  bool syn_data = false;           // its SYN's data was taken
  u32 mss = 0, congestion_window_bytes = 0, slow_start_threshold_bytes = 0;
  u32 smoothed_rtt_us = 0, rtt_variance_us = 0, retransmit_timeout_us = 0;
  u32 send_window_bytes = 0, receive_window_bytes = 0, retransmits = 0;
  u64 bytes_sent = 0, bytes_received = 0;
  u32 unacked_bytes = 0, unsent_bytes = 0;
  WaitKind waits_for = WaitKind::nothing;  // the earliest
  u32 wait_ms = 0;                         // until then
  u8 retries = 0;                          // of the running retransmission
  CongestionState congestion_state = CongestionState::open;
  bool timestamps = false, window_scaling = false;  // RFC 7323: agreed on
  u8 send_scale = 0;                                // the peer's window shift
};

// One of list_connections(), list_time_wait(), list_neighbours().
struct TcbEntry {
  TcbId id;
  u64 cookie = 0;
  TcbInfo info;
};
struct TimeWaitInfo {
  Endpoint local{}, remote{};
  Route route{};
  u32 left_ms = 0;
};
struct NeighbourInfo {
  Ipv4Address address;
  Ipv6Address ipv6{};     // not any: in its place
  MacAddress mac{};       // of one that has answered
  bool answered = false;  // false: asked, silent so far
  bool fresh = false;     // heard of lately
  u32 heard_ms = 0;       // ago
};

struct ListenerInfo {
  u32 accept_queue = 0, syn_queue = 0, backlog = 0;
};

struct StackCounters {
  u64 frames_in = 0, frames_out = 0, frames_malformed = 0, frames_not_ours = 0, checksum_errors = 0;
  u64 segments_in = 0, segments_out = 0, segments_retransmitted = 0, resets_in = 0, resets_out = 0;
  u64 active_opens = 0, passive_opens = 0, accept_overflows = 0, paws_dropped = 0,
      challenge_acks = 0;
  u64 cookies_sent = 0, cookies_received = 0, cookies_failed = 0;  // SYN cookies
  // Fast Open, as Linux counts: SYNs whose data was taken, or was not and went again; cookies asked
  // for; data taken from SYNs, or not for a wrong cookie; not for the bound on those.
  u64 fast_open_active = 0, fast_open_active_failed = 0, fast_open_asked = 0, fast_open_passive = 0,
      fast_open_passive_failed = 0, fast_open_overflows = 0;
  u64 neighbour_messages_in = 0;  // ICMPv6, RFC 4861
  u64 fragments_in = 0, reassembled = 0, reassembly_failed = 0, reassembly_timed_out = 0;
  u64 datagrams_in = 0, datagrams_out = 0;
  u64 datagrams_nobody = 0;            // for a port without a socket
  u64 datagrams_dropped_out = 0;       // the device had no room
  u64 connections = 0, time_wait = 0;  // gauges
};

class Stack {
 public:
  // `device` and `layer` outlive the stack.
  static Result<std::unique_ptr<Stack>> create(const StackOptions& options, Device& device,
                                               SocketLayer& layer);
  virtual ~Stack() = default;

  // A frame of the uplink that another kernel handed on comes from Route::uplink() with
  // flags.hops > 0.
  virtual void on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags,
                        Time now) = 0;
  // As FrameSink's.
  virtual FramePlace look_up(std::span<const std::byte> frame) const = 0;
  virtual void fetch(FramePlace place) const = 0;
  // Runs due timers and sends everything that became sendable since the last poll (ACKs, data, FINs
  // are coalesced here: data and FIN queued in one turn leave in one segment). Does not call
  // device.flush().
  virtual void poll(Time now) = 0;
  virtual Time next_deadline() const = 0;

  // Who else is behind the uplink; `others` outlives the stack. Without them all is this stack's.
  virtual void set_others(OtherStacks& others) = 0;
  // Tells `others` of every connection by the uplink anew: on_flow(begins).
  virtual void tell_flows() = 0;
  using FlowPredicate = std::function<bool(Endpoint local, Endpoint remote)>;
  // Whether `wanted` holds for a connection by the uplink, TIME_WAIT apart: looks at all of this
  // local port until it does.
  virtual bool any_flow(Port local, const FlowPredicate& wanted) const = 0;

  // tcp_time_wait.cc: TIME_WAIT entries of the uplink that go to another kernel with their flow
  // group. Takes out those for which `leaves` holds; cursor, places and result as
  // list_time_wait().
  virtual std::size_t take_time_wait(u32& cursor, u32 places, const FlowPredicate& leaves,
                                     std::span<MovedTimeWait> out) = 0;
  // It waits here for what is left of its time, or somewhat longer, never beyond a whole TIME_WAIT.
  // EPROTO: no stack took that out. EADDRINUSE: there is a connection between these ends, or one in
  // TIME_WAIT. ENOBUFS: full; no entry is given up for another kernel's.
  virtual Result<void> put_time_wait(const MovedTimeWait& moved) = 0;
  // Another kernel has opened this connection anew.
  virtual void drop_time_wait(Endpoint local, Endpoint remote) = 0;

  // Listens on local.address (0.0.0.0: any of ours). EADDRINUSE if this stack already listens
  // there.
  virtual Result<ListenerId> listen(Endpoint local, u32 backlog) = 0;
  virtual void set_backlog(ListenerId listener, u32 backlog) = 0;
  // As ConnectOptions::max_segment_bytes, for connections whose SYN comes from now on.
  virtual void set_max_segment(ListenerId listener, u16 bytes) = 0;
  // RFC 7413: so many connections may have come with data in their SYN and not ended their
  // handshake; 0: none.
  virtual void set_fast_open(ListenerId listener, u32 most) = 0;
  // While quiet, a SYN by the uplink goes to another kernel that listens, if one does; handshakes
  // that have begun end here.
  virtual void set_quiet(ListenerId listener, bool quiet) = 0;
  // Connections that wait to be accepted, and handshakes not ended, of so many.
  virtual ListenerInfo info(ListenerId listener) const = 0;
  // Stops listening; handshakes in progress and connections not yet accepted() are reset.
  virtual void close_listener(ListenerId listener) = 0;
  // The connection left the listener's queue: it no longer counts against the backlog. False: it is
  // gone, reset with its listener.
  virtual bool accepted(TcbId tcb) = 0;

  // Starts an active open; the SYN leaves at the next poll. EADDRINUSE if the 4-tuple is taken (a
  // TIME_WAIT entry is reused by RFC 6191 when its timestamp allows), ENOBUFS when the table is
  // full.
  virtual Result<TcbId> connect(const ConnectOptions& options) = 0;
  // Its SYN leaves with the first bytes announced (ConnectOptions::fast_open).
  virtual bool waits_for_data(TcbId tcb) const = 0;
  virtual void set_cookie(TcbId tcb, u64 cookie) = 0;

  // `bytes` more lie in the send buffer behind what was announced before.
  virtual void send_available(TcbId tcb, std::size_t bytes) = 0;
  // The last byte announced is urgent; what was marked before and not acknowledged no longer is.
  virtual void mark_urgent(TcbId tcb) = 0;
  // The receiver took `bytes` out of its buffer: the window may open (an update is sent as RFC
  // 9293 3.8.6.2 says).
  virtual void receive_consumed(TcbId tcb, std::size_t bytes) = 0;
  // Receive buffer size for the window; never shrinks a promised window (RFC 9293 3.8.6.2.1).
  virtual void set_receive_buffer(TcbId tcb, u32 bytes) = 0;
  virtual void set_no_delay(TcbId tcb, bool on) = 0;  // Nagle off (RFC 1122 4.2.3.4)
  virtual void set_cork(TcbId tcb, bool on) = 0;      // TCP_CORK, tcp(7)
  virtual void set_keep_alive(TcbId tcb, bool on, Duration idle, Duration interval, u32 probes) = 0;
  virtual void set_limits(TcbId tcb, const TcbLimits& limits) = 0;
  // TCP_CONGESTION, tcp(7); the window stays.
  virtual void set_congestion_control(TcbId tcb, CongestionControl control) = 0;
  // SHUT_WR: a FIN follows the bytes announced so far. Data still arrives.
  virtual void shutdown_send(TcbId tcb) = 0;
  // SHUT_RD: data still arrives, but once the send side is shut too it is answered with RST, and
  // the connection fails with ECONNRESET (RFC 1122 section 4.2.2.13, Linux tcp_rcv_state_process).
  virtual void shutdown_receive(TcbId tcb) = 0;
  // close(2): as shutdown_send, and data that arrives from now on is answered with RST (RFC
  // 9293 3.10.4, Linux tcp_close). The layer keeps the send buffer until on_closed or on_error.
  // FIN_WAIT_2 is bounded by 60 s, as Linux's orphans.
  virtual void close(TcbId tcb) = 0;
  // RST and forget at once (SO_LINGER 0, unread data at close). No callback follows.
  virtual void abort(TcbId tcb) = 0;

  // Datagram sockets. Of one port there may be several: who may share one is the caller's to say.
  // ENOBUFS: too many, in all or on the port.
  virtual Result<UdpId> udp_open(Endpoint local, bool reuse_port, u64 cookie) = 0;
  virtual void udp_close(UdpId id) = 0;
  // Only datagrams from `remote` from now on, to `local` (its port stays); a remote port of 0: from
  // anyone again.
  virtual void udp_connect(UdpId id, Endpoint local, Endpoint remote) = 0;
  // EADDRINUSE, ENOBUFS, EADDRNOTAVAIL, as IP_ADD_MEMBERSHIP and IP_DROP_MEMBERSHIP.
  virtual Result<void> udp_join(UdpId id, Ipv4Address group) = 0;
  virtual Result<void> udp_leave(UdpId id, Ipv4Address group) = 0;
  virtual bool udp_port_in_use(Port port) const = 0;
  // One frame out of the pieces, or several, each a fragment; dropped and counted when the device
  // has no room. EMSGSIZE: longer than the path carries, and it shall stay whole, or than a
  // datagram can be. ENETUNREACH: no next hop.
  virtual Result<void> udp_send(const UdpSend& send, std::span<const UdpPiece> pieces) = 0;
  // What the path to `remote` carries in one packet, as far as is known.
  virtual u32 path_mtu(Ipv4Address remote, Route route) const = 0;

  // The kernel behind an inside route is gone: its connections fail with ECONNRESET (on_error),
  // nothing is sent.
  virtual void route_lost(Route route) = 0;

  // tcp_move.cc: connections that move between the kernels of an island. `moved` outlives the
  // stack.
  virtual void set_moved(MovedFlows& moved) = 0;
  // The connection leaves without a word; its id is stale. EBUSY: just now it cannot (the layer has
  // it by Fast Open and its handshake has not ended). EINVAL: stale id.
  // `with_pieces` false: what came out of order is left behind, and comes again.
  virtual Result<MovedConnection> take_out(TcbId tcb, bool with_pieces = true) = 0;
  virtual bool may_take_out(TcbId tcb) const = 0;  // just now
  // It goes on here. `listener`: whose queue it waits in, as it did where it was; 0: none. EPROTO:
  // no stack wrote that. EADDRINUSE: there is one between these ends. ENOBUFS.
  virtual Result<TcbId> take_in(const MovedConnection& moved, u64 cookie, ListenerId listener) = 0;
  // What take_in() would say.
  virtual Result<void> may_take_in(const MovedConnection& moved) const = 0;
  // REQUIRES: may_take_in().
  virtual MovedFacts facts_of(const MovedConnection& moved) const = 0;
  // Those of the listener that the layer does not know yet: their handshakes have not ended.
  virtual std::vector<TcbId> handshakes(ListenerId listener) const = 0;
  // The peer of this connection has moved from one kernel to another; a SYN leaves again at once.
  // False: there is none, or its peer was elsewhere.
  virtual bool reroute(Endpoint local, Endpoint remote, Route from, Route to) = 0;

  // EINVAL for a stale id.
  virtual Result<TcbInfo> info(TcbId tcb) const = 0;
  // What may be in flight at a time by congestion control; 0: gone.
  virtual u32 congestion_window(TcbId tcb) const = 0;
  virtual const StackCounters& counters() const = 0;
  // For tools, piece by piece: each looks at `places` places of its table at most, from `cursor`
  // on, fills `out` from the front and returns how many. `cursor`: 0 at first; where the next call
  // goes on, 0 again behind the end. What comes or goes meanwhile may be missed.
  virtual std::size_t list_connections(u32& cursor, u32 places, std::span<TcbEntry> out) const = 0;
  virtual std::size_t list_time_wait(u32& cursor, u32 places,
                                     std::span<TimeWaitInfo> out) const = 0;
  virtual std::size_t list_neighbours(u32& cursor, u32 places,
                                      std::span<NeighbourInfo> out) const = 0;
  // IPv6: names of addresses, the cob's own, and the way to others.
  virtual AddressNames& names() = 0;
  virtual const AddressNames& names() const = 0;
  virtual bool is_own_ipv6(Ipv4Address name) const = 0;
  // What is bound to no address speaks to `remote` from here; any: there is no way.
  virtual Ipv4Address ipv6_source_for(Ipv4Address remote) const = 0;
  virtual bool reaches_ipv6(Ipv4Address remote) const = 0;
  virtual OwnAddress own_address(u32 place) const = 0;  // < max_own_addresses
  virtual u32 own_addresses_version() const = 0;        // another after each change
  virtual std::size_t list_ipv6_routes(std::span<Ipv6RouteInfo> out) const = 0;

  // True if a connection, TIME_WAIT entry (not reusable at `now`) or listener uses this local port
  // towards `remote`.
  virtual bool tuple_in_use(Endpoint local, Endpoint remote, Time now) const = 0;
};

}  // namespace cob::net
