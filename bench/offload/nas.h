// NAS EP, IS, CG and FT, classes S and W, over an Engine (cases.h): our own code after the
// specification, NAS-95-020, each run verified by its reference values. Template code; one thread.
#pragma once

#include "bench/offload/kernels.h"

namespace cob::bench::offload {

inline bool near(double value, double reference, double tolerance) {
  return std::fabs((value - reference) / reference) <= tolerance;
}
// Seconds of one whole run are few: the least of some, in us.
template <typename Once>
double least_us(double seconds, Once once) {
  const double begin = now_us();
  double least = 1e300;
  once();
  do {
    const double before = now_us();
    once();
    least = std::min(least, now_us() - before);
  } while (now_us() - begin < seconds * 1e6);
  return least;
}

template <typename Engine>
double measure_ep(Engine& engine, bool w, double seconds) {
  const ulong batches = w ? 512 : 256;
  auto sums = engine.template array<double>(batches * 12);
  return least_us(seconds, [&] {
    engine.template run<ep>(batches, grain_of(batches, engine.many()), sums);
    double sx = 0, sy = 0;
    for (ulong b = 0; b < batches; ++b) {
      sx += engine.at(sums)[b * 12];
      sy += engine.at(sums)[b * 12 + 1];
    }
    require(near(sx, w ? -2.863319731645753e3 : -3.247834652034740e3, 1e-8) &&
                near(sy, w ? -6.320053679109499e3 : -6.958407078382297e3, 1e-8),
            "EP: wrong sums");
  });
}

template <typename Engine>
double measure_is(Engine& engine, bool w, double seconds) {
  const ulong n = w ? 1UL << 20 : 1UL << 16, values = w ? 1UL << 16 : 1UL << 11;
  const ulong parts = engine.threads(), grain = grain_of(n, parts);
  static constexpr ulong places[2][5] = {{48427, 17148, 23627, 62548, 4431},
                                         {357773, 934767, 875723, 898999, 404505}};
  static constexpr ulong ranks[2][5] = {{0, 18, 346, 64917, 65463},
                                        {1249, 11698, 1039987, 1043896, 1048018}};
  auto keys = engine.template array<uint>(n), counts = engine.template array<uint>(parts * values),
       total = engine.template array<uint>(values);
  std::vector<uint> first(n), below(values);
  double seed = 314159265.0;
  const ulong quarter = values / 4;
  for (uint& key : first) {
    double sum = 0;
    for (int i = 0; i < 4; ++i) sum += nas_random(&seed, 1220703125.0);
    key = static_cast<uint>(static_cast<double>(quarter) * sum);
  }
  return least_us(seconds, [&] {
    std::ranges::copy(first, engine.at(keys));
    for (uint iteration = 1; iteration <= 10; ++iteration) {
      engine.at(keys)[iteration] = iteration;
      engine.at(keys)[iteration + 10] = static_cast<uint>(values) - iteration;
      uint tested[5];
      for (int i = 0; i < 5; ++i) tested[i] = engine.at(keys)[places[w][i]];
      engine.template run<is_count>(n, grain, keys, counts, grain, values);
      engine.template run<is_total>(values, grain_of(values, parts), counts, total,
                                    (n + grain - 1) / grain, values);
      uint sum = 0;  // keys below each value
      for (ulong v = 0; v < values; ++v) {
        below[v] = sum;
        sum += engine.at(total)[v];
      }
      for (int i = 0; i < 5; ++i) {
        const bool low = w ? i < 2 : i <= 2;
        const long rank =
            static_cast<long>(ranks[w][i]) +
            (low ? static_cast<long>(iteration) - (w ? 2 : 0) : -static_cast<long>(iteration));
        require(static_cast<long>(below[tested[i]]) == rank, "IS: wrong rank");
      }
    }
  });
}

struct Sparse {
  std::vector<uint> rows, columns;
  std::vector<double> values;
};
// CG's matrix: sum of weighted outer products of random sparse vectors, shifted.
inline Sparse cg_matrix(ulong n, int nonzeros, double shift, double* seed) {
  const double amult = 1220703125.0, rcond = 0.1;
  ulong power = 1;
  while (power < n) power *= 2;
  std::vector<std::vector<std::pair<uint, double>>> vectors(n);
  for (ulong i = 0; i < n; ++i) {
    auto& v = vectors[i];
    while (v.size() < static_cast<ulong>(nonzeros)) {
      const double value = nas_random(seed, amult);
      const auto place = static_cast<ulong>(static_cast<double>(power) * nas_random(seed, amult));
      if (place >= n) continue;
      const auto same = [&](const auto& e) { return e.first == place; };
      if (std::ranges::any_of(v, same)) continue;
      v.emplace_back(static_cast<uint>(place), value);
    }
    const auto own = std::ranges::find_if(v, [&](const auto& e) { return e.first == i; });
    if (own != v.end()) {
      own->second = 0.5;
    } else {
      v.emplace_back(static_cast<uint>(i), 0.5);
    }
  }
  std::vector<std::vector<std::pair<uint, double>>> rows(n);
  const double ratio = std::pow(rcond, 1.0 / static_cast<double>(n));
  double size = 1;
  for (ulong i = 0; i < n; ++i, size *= ratio)
    for (const auto& [r, a] : vectors[i])
      for (const auto& [c, b] : vectors[i])
        rows[r].emplace_back(c, a * b * size + (r == c && r == i ? rcond - shift : 0));
  Sparse sparse;
  sparse.rows.push_back(0);
  for (auto& row : rows) {
    std::ranges::sort(row);
    for (const auto& [column, value] : row) {
      if (sparse.columns.size() > sparse.rows.back() && sparse.columns.back() == column) {
        sparse.values.back() += value;
      } else {
        sparse.columns.push_back(column);
        sparse.values.push_back(value);
      }
    }
    sparse.rows.push_back(static_cast<uint>(sparse.columns.size()));
  }
  return sparse;
}

template <typename Engine>
double measure_cg(Engine& engine, bool w, double seconds) {
  const ulong n = w ? 7000 : 1400, parts = engine.threads(), grain = grain_of(n, parts);
  const double shift = w ? 12 : 10;
  double seed = 314159265.0;
  nas_random(&seed, 1220703125.0);
  const Sparse sparse = cg_matrix(n, w ? 8 : 7, shift, &seed);
  const auto copied = [&]<typename T>(const std::vector<T>& from) {
    auto array = engine.template array<T>(from.size());
    std::ranges::copy(from, engine.at(array));
    return array;
  };
  auto rows = copied(sparse.rows), columns = copied(sparse.columns);
  auto a = copied(sparse.values);
  auto p = engine.template array<double>(n), q = engine.template array<double>(n),
       z = engine.template array<double>(n), r = engine.template array<double>(n),
       sums = engine.template array<double>(parts);
  std::vector<double> x(n);
  const auto sum = [&] {
    double all = 0;
    for (ulong i = 0; i * grain < n; ++i) all += engine.at(sums)[i];
    return all;
  };
  const auto run = [&](int iterations) {
    double zeta = 0;
    std::ranges::fill(x, 1.0);
    for (int iteration = 0; iteration < iterations; ++iteration) {
      double rho = 0;
      for (ulong i = 0; i < n; ++i) {
        engine.at(z)[i] = 0;
        engine.at(r)[i] = engine.at(p)[i] = x[i];
        rho += x[i] * x[i];
      }
      for (int step = 0; step < 25; ++step) {
        engine.template run<cg_multiply>(n, grain, rows, columns, a, p, q, sums, grain);
        const double alpha = rho / sum();
        engine.template run<cg_step>(n, grain, p, q, z, r, sums, grain, alpha);
        const double before = std::exchange(rho, sum());
        engine.template run<cg_direction>(n, grain, r, p, rho / before);
      }
      double xz = 0, zz = 0;
      for (ulong i = 0; i < n; ++i) {
        xz += x[i] * engine.at(z)[i];
        zz += engine.at(z)[i] * engine.at(z)[i];
      }
      zeta = shift + 1 / xz;
      for (ulong i = 0; i < n; ++i) x[i] = engine.at(z)[i] / std::sqrt(zz);
    }
    return zeta;
  };
  return least_us(seconds, [&] {
    require(std::fabs(run(15) - (w ? 10.362595087124 : 8.5971775078648)) <= 1e-10,
            "CG: wrong zeta");
  });
}

template <typename Engine>
double measure_ft(Engine& engine, bool w, double seconds) {
  static constexpr double sums[2][6][2] = {{{5.546087004964e2, 4.845363331978e2},
                                            {5.546385409189e2, 4.865304269511e2},
                                            {5.546148406171e2, 4.883910722336e2},
                                            {5.545423607415e2, 4.901273169046e2},
                                            {5.544255039624e2, 4.917475857993e2},
                                            {5.542683411902e2, 4.932597244941e2}},
                                           {{5.673612178944e2, 5.293246849175e2},
                                            {5.631436885271e2, 5.282149986629e2},
                                            {5.594024089970e2, 5.270996558037e2},
                                            {5.560698047020e2, 5.260027904925e2},
                                            {5.530898991250e2, 5.249400845633e2},
                                            {5.504159734538e2, 5.239212247086e2}}};
  const ulong nx = w ? 128 : 64, ny = w ? 128 : 64, nz = w ? 32 : 64, all = nx * ny * nz;
  auto u = engine.template array<double>(2 * all), v = engine.template array<double>(2 * all),
       factors = engine.template array<double>(all);
  const double pi = std::acos(-1.0);
  const auto roots_of = [&](ulong n) {
    auto roots = engine.template array<double>(n);
    for (ulong j = 0; j < n / 2; ++j) {
      const double angle = 2 * pi * static_cast<double>(j) / static_cast<double>(n);
      engine.at(roots)[2 * j] = std::cos(angle);
      engine.at(roots)[2 * j + 1] = std::sin(angle);
    }
    return roots;
  };
  auto rx = roots_of(nx), ry = roots_of(ny), rz = roots_of(nz);
  const auto wave = [](ulong i, ulong n) {
    const double k = static_cast<double>(i) - (i >= n / 2 ? static_cast<double>(n) : 0);
    return k * k;
  };
  for (ulong i = 0; i < all; ++i)
    engine.at(factors)[i] = std::exp(
        -4e-6 * pi * pi * (wave(i % nx, nx) + wave(i / nx % ny, ny) + wave(i / nx / ny, nz)));
  std::vector<double> start(2 * all);
  double seed = 314159265.0;
  for (double& one : start) one = nas_random(&seed, 1220703125.0);
  const auto transform = [&](auto& x, double sign) {
    const ulong parts = engine.many();
    engine.template run<ft_lines>(ny * nz, grain_of(ny * nz, parts), x, rx, nx, 1UL, 1UL, nx, sign);
    engine.template run<ft_lines>(nx * nz, grain_of(nx * nz, parts), x, ry, ny, nx, nx, nx * ny,
                                  sign);
    engine.template run<ft_lines>(nx * ny, grain_of(nx * ny, parts), x, rz, nz, nx * ny, nx * ny,
                                  0UL, sign);
  };
  return least_us(seconds, [&] {
    std::ranges::copy(start, engine.at(u));
    transform(u, 1.0);
    for (int iteration = 0; iteration < 6; ++iteration) {
      engine.template run<ft_evolve>(nz, grain_of(nz, engine.many()), u, v, factors, nx, ny);
      transform(v, -1.0);
      double re = 0, im = 0;
      for (ulong j = 1; j <= 1024; ++j) {
        const ulong i = j % nx + nx * (3 * j % ny) + nx * ny * (5 * j % nz);
        re += engine.at(v)[2 * i];
        im += engine.at(v)[2 * i + 1];
      }
      require(near(re / static_cast<double>(all), sums[w][iteration][0], 1e-12 * 1e1) &&
                  near(im / static_cast<double>(all), sums[w][iteration][1], 1e-12 * 1e1),
              "FT: wrong checksum");
    }
  });
}

}  // namespace cob::bench::offload
