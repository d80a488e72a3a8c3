// Workload: which connections come when, for which flow group, and how long each is served.
// Model: an open loop of Poisson arrivals; everything from one seed, so that every scheme sees the
// same connections. A value made once for a run.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/types.h"

namespace cob::sim::angel {

enum class Service : u8 { constant, exponential, bimodal, heavy };
// even: every group alike. skew16, skew4: 80 % of connections in 16 or 4 of the 4,096 groups.
// zipfN: the n-th group's weight is n^-N/10. slowed: one kernel serves at a quarter of the speed.
// hung: one kernel's programs stop for good after a fifth of the run. step: the load doubles
// half-way.
enum class Arrival : u8 { even, skew16, skew4, zipf09, zipf11, zipf13, slowed, hung, step };

inline constexpr u16 groups = 4'096;

struct Case {
  Arrival arrival = Arrival::even;
  Service service = Service::bimodal;
  u16 kernels = 64;
  double load = 0.8;  // of what all threads can serve; of step the second half's
  u32 connections = 100'000;
  u64 seed = 1;
};

struct Arriving {
  i64 at_ns = 0;
  u32 service_ns = 0;
  u32 hash = 0;   // of its addresses and ports, as Linux's listeners have it
  u16 group = 0;  // as Snap Bean has it
};

std::vector<Arriving> make_workload(const Case& c);
double mean_service_ns(Service service);
// The bound on p99 that throughput is taken at.
i64 bound_ns(Service service);
const char* name(Service service);
const char* name(Arrival arrival);

}  // namespace cob::sim::angel
