// Arrivals and service times; workload.h.
#include "sim/angel/workload.h"

#include <algorithm>
#include <cmath>

namespace cob::sim::angel {
namespace {

constexpr double short_ns = 50e3, long_ns = 5e6, long_share = 0.005;  // bimodal
// Bounded Pareto.
constexpr double heavy_shape = 1.3, heavy_least_ns = 20e3, heavy_most_ns = 20e6;

double uniform(Random& random) {
  return (static_cast<double>(random.next() >> 11) + 0.5) * 0x1p-53;
}
double exponential(Random& random, double mean) { return -mean * std::log(uniform(random)); }

double service_ns(Service service, Random& random) {
  switch (service) {
    case Service::constant:
      return short_ns;
    case Service::exponential:
      return exponential(random, short_ns);
    case Service::bimodal:
      return uniform(random) < long_share ? long_ns : short_ns;
    case Service::heavy: {
      const double ratio = std::pow(heavy_least_ns / heavy_most_ns, heavy_shape);
      return heavy_least_ns * std::pow(1 - uniform(random) * (1 - ratio), -1 / heavy_shape);
    }
  }
  return 0;
}

// Cumulated weights of the groups, in an order that the seed gives.
class GroupChoice {
 public:
  GroupChoice(Arrival arrival, Random& random) : order_(groups), cumulated_(groups) {
    for (u16 g = 0; g < groups; ++g) order_[g] = g;
    for (std::size_t i = groups - 1; i > 0; --i) std::swap(order_[i], order_[random.below(i + 1)]);
    double sum = 0;
    for (std::size_t i = 0; i < groups; ++i) cumulated_[i] = sum += weight(arrival, i);
    for (double& c : cumulated_) c /= sum;
  }
  u16 draw(Random& random) const {
    const auto at = std::ranges::lower_bound(cumulated_, uniform(random));
    const auto i = static_cast<std::size_t>(at - cumulated_.begin());
    return order_[std::min<std::size_t>(i, groups - 1)];
  }

 private:
  static double weight(Arrival arrival, std::size_t i) {
    const auto few = [i](std::size_t n) {
      return i < n ? 0.8 / static_cast<double>(n) : 0.2 / static_cast<double>(groups - n);
    };
    const auto zipf = [i](double s) { return std::pow(static_cast<double>(i + 1), -s); };
    switch (arrival) {
      case Arrival::skew16:
        return few(16);
      case Arrival::skew4:
        return few(4);
      case Arrival::zipf09:
        return zipf(0.9);
      case Arrival::zipf11:
        return zipf(1.1);
      case Arrival::zipf13:
        return zipf(1.3);
      default:
        return 1;
    }
  }
  std::vector<u16> order_;
  std::vector<double> cumulated_;
};

}  // namespace

double mean_service_ns(Service service) {
  switch (service) {
    case Service::bimodal:
      return short_ns * (1 - long_share) + long_ns * long_share;
    case Service::heavy: {
      const double a = heavy_shape, l = heavy_least_ns, h = heavy_most_ns;
      return std::pow(l, a) / (1 - std::pow(l / h, a)) * a / (a - 1) *
             (std::pow(l, 1 - a) - std::pow(h, 1 - a));
    }
    default:
      return short_ns;
  }
}

i64 bound_ns(Service service) {
  switch (service) {
    case Service::constant:
      return 250'000;
    case Service::exponential:
      return 500'000;
    case Service::bimodal:
      return 10'000'000;
    case Service::heavy:
      return 5'000'000;
  }
  return 0;
}

std::vector<Arriving> make_workload(const Case& c) {
  Random random(c.seed);
  const GroupChoice group(c.arrival, random);
  std::vector<Arriving> made(c.connections);
  const double gap = mean_service_ns(c.service) / (c.load * c.kernels);
  // Time runs at half the rate until the step; both halves last equally long.
  const std::size_t step_at = c.arrival == Arrival::step ? made.size() / 3 : 0;
  double now = 0;
  for (std::size_t i = 0; i < made.size(); ++i) {
    now += exponential(random, i < step_at ? 2 * gap : gap);
    made[i] = {.at_ns = static_cast<i64>(now),
               .service_ns = static_cast<u32>(service_ns(c.service, random)),
               .hash = static_cast<u32>(random.next()),
               .group = group.draw(random)};
  }
  return made;
}

const char* name(Service service) {
  switch (service) {
    case Service::constant:
      return "constant";
    case Service::exponential:
      return "exponential";
    case Service::bimodal:
      return "bimodal";
    case Service::heavy:
      return "heavy";
  }
  return "?";
}

const char* name(Arrival arrival) {
  switch (arrival) {
    case Arrival::even:
      return "even";
    case Arrival::skew16:
      return "skew16";
    case Arrival::skew4:
      return "skew4";
    case Arrival::zipf09:
      return "zipf09";
    case Arrival::zipf11:
      return "zipf11";
    case Arrival::zipf13:
      return "zipf13";
    case Arrival::slowed:
      return "slowed";
    case Arrival::hung:
      return "hung";
    case Arrival::step:
      return "step";
  }
  return "?";
}

}  // namespace cob::sim::angel
