// The kernels of kernels.inc as C++ types, and what every measurement takes: time, medians, the
// best number of parts. One thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace cob::bench::offload {

using std::fabs;
using std::log;
using std::sqrt;
using uchar = unsigned char;
using uint = unsigned;
using ulong = unsigned long;

#define GLOBAL
#define KERNEL(name, parameters, arguments)            \
  struct name {                                        \
    static constexpr const char* text = #name;         \
    template <typename... A>                           \
    static void part(ulong begin, ulong end, A... a) { \
      name##_part(begin, end, a...);                   \
    }                                                  \
    using Function = decltype(&name##_part);           \
  };
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wold-style-cast"
namespace {
#include "bench/offload/kernels.inc"
}
#pragma GCC diagnostic pop

[[noreturn]] inline void fail(const std::string& why) {
  std::printf("error=%s\n", why.c_str());
  std::exit(1);
}
inline void require(bool good, const char* what) {
  if (!good) fail(what);
}
inline double now_us() {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Median time of `once` in batches of 20 us and more, for `seconds` after a warm-up.
template <typename Once>
double median_us(double seconds, Once once) {
  double begin = now_us();
  once();
  once();
  int batch = 1;
  for (;; batch *= 2) {
    const double before = now_us();
    for (int i = 0; i < batch; ++i) once();
    if (now_us() - before > 20 || batch > (1 << 20)) break;
  }
  std::vector<double> all;
  begin = now_us();
  do {
    const double before = now_us();
    for (int i = 0; i < batch; ++i) once();
    all.push_back((now_us() - before) / batch);
  } while (now_us() - begin < seconds * 1e6 || all.size() < 3);
  std::ranges::nth_element(all, all.begin() + static_cast<long>(all.size() / 2));
  return all[all.size() / 2];
}

// The best of a few numbers of parts, each tried for a moment.
template <typename Once>
ulong tuned_parts(const std::vector<ulong>& candidates, ulong n, Once once) {
  ulong best = candidates.front();
  double best_us = 0;
  for (const ulong parts : candidates) {
    if (parts > n) continue;
    const double us = median_us(0.02, [&] { once(parts); });
    if (best_us != 0 && us >= best_us) continue;
    best_us = us;
    best = parts;
  }
  return best;
}
constexpr ulong grain_of(ulong n, ulong parts) {
  return std::max<ulong>(1, (n + parts - 1) / parts);
}

}  // namespace cob::bench::offload
