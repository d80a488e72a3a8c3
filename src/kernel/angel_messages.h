// The messages by which kernels of an island give each other connections that nobody has accepted
// (types 80 to 84); docs/angel.md, "Taking". Addresses as in messages.h. Values; flat structs.
#pragma once

#include "message/flat.h"

namespace cob::kernel {

// Connections wait at the sender's listener, and the receiver shows that somebody waits at its own.
struct NudgeMessage {
  static constexpr message::MessageType type{80};
  message::le<u64> listener;  // load_board.h, key_of
};

// A thread of the sender waits there: the receiver may give connections, the oldest first.
struct TakeMessage {
  static constexpr message::MessageType type{81};
  message::le<u32> address;
  message::le<u16> port;
  message::le<u16> most;
  message::le<u64> ipv6_first, ipv6_second;
};
struct TakeReply {
  static constexpr message::MessageType type{82};
  message::le<u32> given;  // so many TakenMessages came before
};

// A connection. It is the sender's until it has read `accepted`, then the receiver's.
struct TakenMessage {
  static constexpr message::MessageType type{83};
  static constexpr std::size_t max_tail = 3'840;  // the stack's state, then what is unread
  message::le<u32> move;                          // the sender's name for it
  message::le<u32> listener_address;
  message::le<u32> local_address;
  message::le<u32> remote_address;
  message::le<u16> listener_port;
  message::le<u16> local_port;
  message::le<u16> remote_port;
  message::le<u16> route_kernel;  // net::Route's
  message::le<u32> came_us;       // Description's
  message::le<u16> flags;         // TakenConnection's
  message::le<u16> state_bytes;
  message::le<u64> listener_ipv6_first, listener_ipv6_second;
  message::le<u64> local_ipv6_first, local_ipv6_second;
  message::le<u64> remote_ipv6_first, remote_ipv6_second;
};

enum class TakeStep : u32 {
  accepted = 1,  // taker -> giver: it is held here, and can be taken in
  refused,       // taker -> giver: it is not, and cannot
  go,            // giver -> taker: it is yours
  kept,          // giver -> taker: it is not
};
struct TakeWord {
  static constexpr message::MessageType type{84};
  message::le<u32> move;
  message::le<u32> step;
};

static_assert(message::FlatMessage<NudgeMessage> && message::FlatMessage<TakeMessage> &&
              message::FlatMessage<TakeReply> && message::FlatMessage<TakenMessage> &&
              message::FlatMessage<TakeWord>);

}  // namespace cob::kernel
