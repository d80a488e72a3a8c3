// What is measured, the same for every side: kernels over sizes, and NAS EP, IS, CG, FT in classes
// S and W, each verified. Model: an Engine has arrays that host and device share as its interface
// allows best, and run<K>(n, grain, arguments...), which returns when the results can be read.
// Loops of kernels are template code over it; one thread. NAS-95-020 and its reference values.
#pragma once

#include "bench/offload/nas.h"

namespace cob::bench::offload {

template <typename Engine>
double measure_kernel(Engine& engine, const std::string& name, ulong bytes, double seconds) {
  const ulong n = bytes / 4;
  auto x = engine.template array<float>(n), y = engine.template array<float>(n),
       z = engine.template array<float>(n);
  for (ulong i = 0; i < n; ++i) {
    engine.at(x)[i] = static_cast<float>(i % 7);
    engine.at(y)[i] = 1;
    engine.at(z)[i] = 0;
  }
  const auto side = static_cast<ulong>(std::sqrt(static_cast<double>(n)));
  const auto timed = [&](ulong length, auto once) {
    const ulong parts = tuned_parts(engine.parts(), length, once);
    return median_us(seconds, [&] { once(parts); });
  };
  if (name == "launch") return timed(1, [&](ulong) { engine.template run<nothing>(1, 1, x); });
  if (name == "vector_add") {
    const double us = timed(
        n, [&](ulong parts) { engine.template run<vector_add>(n, grain_of(n, parts), x, y, z); });
    for (ulong i = 0; i < n; ++i)
      require(engine.at(z)[i] == static_cast<float>(i % 7) + 1, "wrong sum");
    return us;
  }
  if (name == "saxpy") {
    ulong runs = 0;
    const double us = timed(n, [&](ulong parts) {
      engine.template run<saxpy>(n, grain_of(n, parts), x, y, runs++ % 2 == 0 ? 1.F : -1.F);
    });
    for (ulong i = 0; i < n; ++i)
      require(engine.at(y)[i] == 1 + static_cast<float>(runs % 2 * (i % 7)), "wrong saxpy");
    return us;
  }
  if (name == "sgemm") {
    const double us = timed(side, [&](ulong parts) {
      engine.template run<sgemm>(side, grain_of(side, parts), x, y, z, side);
    });
    for (ulong i = 0; i < side; i += 5) {  // b is all ones
      float sum = 0;
      for (ulong k = 0; k < side; ++k) sum += engine.at(x)[i * side + k];
      require(std::fabs(engine.at(z)[i * side + side / 2] - sum) <= 1e-3F * sum + 1e-3F,
              "wrong product");
    }
    return us;
  }
  if (name == "stencil") {
    const double us = timed(side, [&](ulong parts) {
      engine.template run<stencil>(side, grain_of(side, parts), x, y, side);
    });
    const float* f = engine.at(x);
    const ulong i = side / 2 * side + side / 2;
    require(std::fabs(engine.at(y)[i] -
                      0.2F * (f[i] + f[i - 1] + f[i + 1] + f[i - side] + f[i + side])) < 1e-4F,
            "wrong stencil");
    return us;
  }
  if (name != "histogram") fail("no such case");
  auto keys = engine.template array<uchar>(bytes);
  auto bins = engine.template array<uint>(64 * 256);
  for (ulong i = 0; i < bytes; ++i) engine.at(keys)[i] = static_cast<uchar>(i * 7);
  std::vector<uint> total(256);
  const double us = timed(bytes, [&](ulong parts) {
    const ulong grain = grain_of(bytes, parts);
    engine.template run<histogram>(bytes, grain, keys, bins, grain);
    std::ranges::fill(total, 0U);
    for (ulong p = 0; p * grain < bytes; ++p)
      for (ulong b = 0; b < 256; ++b) total[b] += engine.at(bins)[p * 256 + b];
  });
  for (const uint count : total) require(count == bytes / 256, "wrong histogram");
  return us;
}

template <typename Engine>
double measure(Engine& engine, const std::string& name, ulong bytes, double seconds) {
  for (const bool w : {false, true}) {
    const std::string letter = w ? "_w" : "_s";
    // With all threads and with one: what is faster counts, for every side.
    const auto better = [&](auto run) {
      engine.alone(true);
      const double alone = run();
      engine.alone(false);
      return engine.threads() > 1 ? std::min(alone, run()) : alone;
    };
    if (name == "ep" + letter) return better([&] { return measure_ep(engine, w, seconds); });
    if (name == "is" + letter) return better([&] { return measure_is(engine, w, seconds); });
    if (name == "cg" + letter) return better([&] { return measure_cg(engine, w, seconds); });
    if (name == "ft" + letter) return better([&] { return measure_ft(engine, w, seconds); });
  }
  return measure_kernel(engine, name, bytes, seconds);
}

// argv: CASE BYTES SECONDS
template <typename Engine>
int measure_main(Engine& engine, int argc, char** argv) {
  if (argc < 4) fail("usage: CASE BYTES SECONDS");
  std::printf("us=%.6f\n", measure(engine, argv[1], std::strtoul(argv[2], nullptr, 10),
                                   std::strtod(argv[3], nullptr)));
  return 0;
}

}  // namespace cob::bench::offload
