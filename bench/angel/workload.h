// The arrivals of a case: times of a Poisson process, service times, and client addresses and ports
// chosen by the flow groups to which they belong. The same for the same seed.
// Values; any thread.
#pragma once

#include <vector>

#include "base/types.h"
#include "bench/angel/cases.h"
#include "bench/connections/generator.h"
#include "net/wire/address.h"

namespace cob::bench {

// Who asks, and whom: what a connection's flow group is made of.
struct Clients {
  u32 first_address = 0;  // in the host's order; the others follow it
  u32 addresses = 8;
  net::Endpoint server{};  // any: its part of the hash is 0
};

// With skew so many groups, side by side, get hot_percent of the connections.
inline constexpr u32 hot_groups = 16, hot_percent = 80;

std::vector<PlannedArrival> make_workload(const AngelCase& wanted, const Clients& clients,
                                          double seconds, u64 seed);

}  // namespace cob::bench
