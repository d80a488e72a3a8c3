// A plain loop, shared with an island: what was
//   #pragma omp parallel for
//   for (u64 i = 0; i < n; ++i) y[i] += 2 * x[i];
// is a parallel_for over Arrays. Model: the island is this program again. One thread here.
#include <offload/island.h>
#include <offload/parallel_for.h>

#include <cstdio>

using namespace cob;
using namespace cob::offload;

namespace {

Result<void> work(const TaskSet& tasks) {
  auto island = TRY(Island::start(tasks));
  constexpr u64 n = 1'000'000;
  auto xs = TRY(Array<double>::create(island->host(), n));
  auto ys = TRY(Array<double>::create(island->host(), n));
  double *x = xs.data(), *y = ys.data();
  for (u64 i = 0; i < n; ++i) x[i] = static_cast<double>(i);
  for (int round = 0; round < 100; ++round)
    TRY(parallel_for(island->host(), {0, n, n / 16}, [=](u64 i) { y[i] += 2 * x[i]; }));
  double sum = 0;
  for (const double one : ys) sum += one;
  std::printf("sum %.0f\n", sum);
  return {};
}

}  // namespace

int main() {
  const TaskSet none;
  serve_if_started(none);
  const auto done = work(none);
  if (done.is_error()) std::printf("%s\n", done.error().what);
  return done.is_error() ? 1 : 0;
}
