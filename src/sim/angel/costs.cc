// Costs as JSON, and what they are made of; costs.h.
#include "sim/angel/costs.h"

#include <array>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "net/angel/policy.h"

namespace cob::sim::angel {
namespace {

struct Field {
  const char* key;
  i64 Costs::* value;
};
constexpr std::array fields{Field{"connection_ns", &Costs::connection_ns},
                            Field{"forward_ns", &Costs::forward_ns},
                            Field{"hop_ns", &Costs::hop_ns},
                            Field{"move_ns", &Costs::move_ns},
                            Field{"wake_ns", &Costs::wake_ns},
                            Field{"preempt_ns", &Costs::preempt_ns},
                            Field{"board_ns", &Costs::board_ns}};

using Json = nlohmann::json;

// What a decision costs for each kernel it looks at, the lines being in the cache.
double judging_ns() {
  using namespace net::angel;
  constexpr u16 kernels = 64;
  constexpr int decisions = 20'000;
  std::vector<Peer> peers;
  for (u16 k = 1; k < kernels; ++k) {
    peers.push_back({.kernel = KernelId(k), .listens = true});
    peers.back().listener.waiting = k % 8 == 0 ? 1 : 0;
  }
  Settings settings;
  settings.window = settings.window_max = UINT32_MAX;
  settings.share_burst = settings.redirect_burst = UINT32_MAX / 4;
  Policy policy(KernelId(0), kernels, settings, 1);
  const KernelLoad load;
  const ListenerLoad listener{.queued = 9};
  ListenerState state;
  const auto before = std::chrono::steady_clock::now();
  Time now{1'000'000'000'000};
  for (int i = 0; i < decisions; ++i) {
    now = now + Duration::microseconds(50);
    for (Peer& p : peers) p.load.published_ns = static_cast<u64>(now.ns);
    policy.place({load, listener, state}, peers, now);
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - before;
  return took.count() / decisions / (kernels - 1);
}

}  // namespace

Result<Costs> parse_costs(const std::string& json) {
  const Json read = Json::parse(json, nullptr, false);
  Costs costs;
  for (const Field& f : fields) {
    if (!read.is_object() || !read.contains(f.key) || !read[f.key].is_number())
      return Error(EINVAL);
    const double value = read[f.key].get<double>();
    if (!(value >= 0 && value <= 1e9)) return Error(EINVAL);
    costs.*f.value = std::llround(value);
  }
  return costs;
}

std::string costs_json(const Costs& costs) {
  Json out;
  for (const Field& f : fields) out[f.key] = costs.*f.value;
  return out.dump(2) + "\n";
}

Result<Costs> calibrate(const std::vector<std::string>& benches, std::string& missing) {
  Json all = Json::object();
  for (const std::string& text : benches) {
    const Json one = Json::parse(text, nullptr, false);
    if (!one.is_object()) return missing = "a flat JSON object", Error(EINVAL);
    all.update(one);
  }
  const auto figure = [&](const char* key) {
    if (all.contains(key) && all[key].is_number()) return all[key].get<double>();
    missing = key;
    return 0.0;
  };
  constexpr double fetches_under_way = 4;
  // A frame forwarded is one line sent after each flush, and as much for looking its entry up.
  const double forward = 2e9 / std::max(figure("oneway_64b_per_s"), 1.0);
  const Costs costs{
      .connection_ns = std::llround(figure("conn_cob_server_core_us") * 1e3),
      .forward_ns = std::llround(forward),
      .hop_ns = std::llround(figure("bare_ns") / 2),
      .move_ns = std::llround(figure("connection_move_us_p50") * 1e3),
      .wake_ns = std::llround(figure("sleeping_rtt_p50_us") * 1e3 / 2),
      .preempt_ns = std::llround(figure("hog_server_rtt_p50_us") * 1e3 / 2),
      .board_ns = std::llround(figure("line_ns") / 2 / fetches_under_way + judging_ns()),
  };
  if (!missing.empty()) return Error(EINVAL);
  return costs;
}

}  // namespace cob::sim::angel
