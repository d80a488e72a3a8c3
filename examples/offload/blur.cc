// Attaches to an island that has the task `blur` and runs it ten times, each launch after the one
// before, without waiting in between: blur PLACE.
#include "blur.h"

#include <offload/island.h>

#include <cstdio>

using namespace cob;
using namespace cob::offload;

namespace {

Result<void> work(const char* place) {
  const TaskSet none;  // this program cannot run the task itself
  auto island = TRY(Island::attach(none, place));
  Host& host = island->host();
  auto task = TRY(host.find(blur));
  constexpr u64 n = 9;
  auto a = TRY(host.buffer<float>(n)), b = TRY(host.buffer<float>(n));
  TRY(a.overwrite())[n / 2] = 1;
  Future last;
  for (int round = 0; round < 10; ++round) {
    const Future after[] = {last};
    const std::span<const Future> before(after, last.valid() ? 1 : 0);
    auto& from = round % 2 == 0 ? a : b;
    auto& to = round % 2 == 0 ? b : a;
    last = host.launch(task, {.range = {0, n, 3}, .after = before}, from, to);
  }
  TRY(last.wait());
  for (const float one : TRY(a.read())) std::printf("%.3f ", static_cast<double>(one));
  std::printf("\n");
  return {};
}

}  // namespace

int main(int count, char** words) {
  if (count != 2) return 2;
  const auto done = work(words[1]);
  if (done.is_error()) std::printf("%s\n", done.error().what);
  return done.is_error() ? 1 : 0;
}
