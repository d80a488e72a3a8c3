// The door: how a host hands an island what they meet by: one end of a socket pair, on which
// Rendezvous introduces them, and the arena. Model: one datagram with two descriptors, over a pair
// that the island's process inherits, or over a connection to the place where it serves.
#pragma once

#include <optional>
#include <vector>

#include "base/passing.h"
#include "offload/arena.h"

namespace cob::offload {

inline constexpr const char* door_variable = "COB_OFFLOAD_DOOR";

struct Knock {
  Fd socket;  // for Rendezvous::meet()
  Arena arena;
  std::vector<int> cores;  // that the host wishes
};

// EAGAIN as send_datagram().
Result<void> knock(FdRef door, FdRef socket, const Arena& arena, const std::vector<int>& cores);
// EPROTO: not a knock; as Arena::open(). ECONNRESET: the host has gone. EAGAIN: nothing yet.
Result<Knock> hear_knock(FdRef door);

}  // namespace cob::offload
