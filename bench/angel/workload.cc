// Drawing the arrivals of workload.h.
// A hot client's address and port come again only when all other hot ones have had their turn.
// Values; any thread.
#include "bench/angel/workload.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "bench/connections/exchange.h"
#include "net/snap_bean/steering.h"

namespace cob::bench {

namespace {

constexpr u32 first_port = 1'024, ports = 65'536 - first_port;

struct Client {
  u32 address;
  u16 port;
};

// In (0, 1].
double uniform(u64& state) { return (static_cast<double>(next_random(state) >> 11) + 1) * 0x1p-53; }

// Shuffled.
std::vector<Client> clients_of_hot_groups(const Clients& clients, u64& state) {
  const net::Toeplitz toeplitz;
  std::vector<Client> found;
  for (u32 i = 0; i < clients.addresses; ++i) {
    for (u32 port = first_port; port < first_port + ports; ++port) {
      const net::Endpoint source{net::Ipv4Address{clients.first_address + i},
                                 Port(static_cast<u16>(port))};
      if (net::flow_group(toeplitz.hash(source, clients.server)) < hot_groups)
        found.push_back({source.address.value, static_cast<u16>(port)});
    }
  }
  for (std::size_t i = found.size(); i > 1; --i)
    std::swap(found[i - 1], found[next_random(state) % i]);
  return found;
}

u32 service_ns(const AngelCase& wanted, u64& state) {
  if (wanted.bimodal) return static_cast<u32>(1e3 * (uniform(state) <= 0.005 ? long_us : short_us));
  // Beyond it a request would be refused; one in 22,000.
  return static_cast<u32>(std::min(-std::log(uniform(state)) * wanted.mean_us * 1e3,
                                   static_cast<double>(most_work_ns)));
}

}  // namespace

std::vector<PlannedArrival> make_workload(const AngelCase& wanted, const Clients& clients,
                                          double seconds, u64 seed) {
  u64 state = seed;
  const std::vector<Client> hot =
      wanted.skew ? clients_of_hot_groups(clients, state) : std::vector<Client>{};
  std::size_t next_hot = 0;
  std::vector<PlannedArrival> plan;
  for (double at = 0;;) {
    const double rate = wanted.per_s * (wanted.steps && at >= seconds / 2 ? 2 : 1);
    at -= std::log(uniform(state)) / rate;
    if (at >= seconds) return plan;
    const u64 drawn = next_random(state);
    Client client{clients.first_address + static_cast<u32>(drawn >> 32) % clients.addresses,
                  static_cast<u16>(first_port + static_cast<u32>(drawn) % ports)};
    if (wanted.skew && next_random(state) % 100 < hot_percent)
      client = hot[next_hot++ % hot.size()];
    plan.push_back({.at_ns = static_cast<i64>(at * 1e9),
                    .work_ns = service_ns(wanted, state),
                    .source_address = client.address,
                    .source_port = client.port});
  }
}

}  // namespace cob::bench
