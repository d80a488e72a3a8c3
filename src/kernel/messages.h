// The messages that kernels of one cob send each other about ports, listeners, datagram sockets
// and the uplink's connections (types 16 to 31).
// Model: a port's home kernel (port % kernels) grants or refuses claims; who is reached at one is
// told to all.
// An address is host byte order's value, or what wire_address.h says of IPv6's.
// Values; flat structs, checked at compile time by message/flat.h.
#pragma once

#include <array>

#include "message/flat.h"

namespace cob::kernel {

struct ClaimMessage {
  static constexpr message::MessageType type{16};
  message::le<u32> address;
  message::le<u32> handle;
  message::le<u16> port;
  message::le<u16> flags;  // 1 reuse address, 2 reuse port, 4 listening, 8 datagrams
  message::le<u32> reserved;
  message::le<u64> ipv6_first, ipv6_second;
  message::le<u64> group;  // PortClaim::group
};
struct ClaimReply {
  static constexpr message::MessageType type{17};
  message::le<i32> result;  // 0 or -errno
};
struct UnclaimMessage {
  static constexpr message::MessageType type{18};
  message::le<u32> address;
  message::le<u32> handle;
  message::le<u16> port;
  message::le<u16> flags;  // 8 datagrams
  message::le<u32> reserved;
  message::le<u64> ipv6_first, ipv6_second;
};
// Also of a datagram socket that is bound.
struct ListenerMessage {
  static constexpr message::MessageType type{19};
  message::le<u32> address;
  message::le<u16> port;
  message::le<u16> flags;  // 1: listens now, else no more; 2 reuse port, 8 datagrams
  message::le<u64> ipv6_first, ipv6_second;
};
// A connection by the uplink whose owner, by the steering tables, is the receiver, is the sender's.
struct FlowMessage {
  static constexpr message::MessageType type{20};
  message::le<u32> local_address;  // the cob's
  message::le<u32> remote_address;
  message::le<u16> local_port;
  message::le<u16> remote_port;
  message::le<u32> begins;  // 0: it is over
  message::le<u64> local_ipv6_first, local_ipv6_second, remote_ipv6_first, remote_ipv6_second;
};
// The sender has told all of those by the tables as they are after so many changes.
struct SteeredMessage {
  static constexpr message::MessageType type{21};
  message::le<u32> changes;
};

// The sender has the claim (docs/moving.md) that `former_handle` of kernel `former` was.
struct SucceedMessage {
  static constexpr message::MessageType type{22};
  message::le<u32> address;
  message::le<u32> handle;
  message::le<u16> port;
  message::le<u16> flags;  // ClaimMessage's
  message::le<u32> former_handle;
  message::le<u16> former;
  message::le<u16> reserved0;
  message::le<u32> reserved1;
  message::le<u64> ipv6_first, ipv6_second;
  message::le<u64> group;
};
// The other end of a connection of the receiver's was the sender's, and is `kernel`'s now.
struct ReroutedMessage {
  static constexpr message::MessageType type{23};
  message::le<u32> local_address;  // the receiver's
  message::le<u32> remote_address;
  message::le<u16> local_port;
  message::le<u16> remote_port;
  message::le<u16> kernel;
  message::le<u16> reserved;
  message::le<u64> local_ipv6_first, local_ipv6_second, remote_ipv6_first, remote_ipv6_second;
};

// A connection by the uplink in TIME_WAIT, whose owner by the steering tables is now the receiver
// (net::MovedTimeWait).
struct TimeWaitMessage {
  static constexpr message::MessageType type{24};
  message::le<u32> local_address;  // the cob's
  message::le<u32> remote_address;
  message::le<u16> local_port;
  message::le<u16> remote_port;
  message::le<u32> send_next, receive_next;  // sequence numbers
  message::le<u32> receive_window_bytes;
  message::le<u32> timestamp_recent, timestamp_sent, timestamp_offset;
  message::le<u32> left_ms;
  message::le<u16> timestamps;  // 1: agreed on
  message::le<u16> window_scale;
  message::le<u32> reserved;
  message::le<u64> local_ipv6_first, local_ipv6_second, remote_ipv6_first, remote_ipv6_second;
};

// SettingsPart of a listener.
struct JoinedSettings {
  message::le<u32> keep_alive_idle_s, keep_alive_interval_s, keep_alive_probes;
  message::le<u32> congestion, defer_accept_s, fast_open_queue;
  message::le<u32> max_segment_bytes, urgent_inline;
  message::le<u32> syn_retries, fin_wait_2_s, no_fin_wait_2, reserved;
  message::le<u64> user_timeout_ms;
};
// A listener that programs of several kernels hold (parts.h). The sender is to have a part of the
// one with this token; the reply tells what it is. ENOENT: it is not known there, or not listening.
struct JoinMessage {
  static constexpr message::MessageType type{25};
  message::le<u64> token;
};
struct JoinReply {
  static constexpr message::MessageType type{26};
  message::le<u64> group;
  message::le<u32> address;
  message::le<u16> port;
  message::le<u16> switches;  // move_switches.h
  message::le<u64> ipv6_first, ipv6_second;
  message::le<u32> backlog;
  message::le<u32> has;  // 1: settings, 2: memory
  message::le<u32> receive_limit, send_limit;
  JoinedSettings settings;
  std::array<message::le<u64>, 6> memory;
};
// What happens to the sender's part, and is to happen to the receiver's.
enum class PartNews : u32 {
  state =
      1,     // a[0]: 1: there is a part, 2: programs there ask for its connections, 4: say likewise
  option,    // a[0..3]: as Op::set_option
  memory,    // a[0..5]: as Op::remember
  listen,    // a[0]: backlog
  shutdown,  // for reading
};
struct PartMessage {
  static constexpr message::MessageType type{27};
  message::le<u64> token;
  message::le<u32> news;
  message::le<u32> reserved;
  std::array<message::le<u64>, 6> a;
};

static_assert(message::FlatMessage<JoinMessage> && message::FlatMessage<JoinReply> &&
              message::FlatMessage<PartMessage>);
static_assert(message::FlatMessage<SucceedMessage> && message::FlatMessage<ReroutedMessage>);
static_assert(message::FlatMessage<FlowMessage> && message::FlatMessage<SteeredMessage> &&
              message::FlatMessage<TimeWaitMessage>);
static_assert(message::FlatMessage<ClaimMessage> && message::FlatMessage<ClaimReply> &&
              message::FlatMessage<UnclaimMessage> && message::FlatMessage<ListenerMessage>);

}  // namespace cob::kernel
