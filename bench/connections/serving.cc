// Waiting for the server of serving.h: it prints "ready". Used by the measuring command's only
// thread.
#include "bench/connections/serving.h"

#include <utility>

#include "bench/server_case.h"

namespace cob::bench {

Outcome<Child> start_serving(const SpawnOptions& options, Interrupts& interrupts) {
  using Started = Outcome<Child>;
  write_text(options.output, "");  // what an earlier server said is not this one's
  auto child = Child::spawn(options);
  if (!child) return child;
  for (int attempt = 0; attempt < 1'000; ++attempt) {
    const std::string said = read_text(options.output);
    if (said.find("ready\n") != std::string::npos) return child;
    const auto ended = child->wait(0.005, interrupts);
    if (ended) return Started::failed(last_line(said + read_text(options.output)));
    if (interrupts.seen()) return Started::failed("interrupted");
  }
  return Started::failed("the server does not get ready");
}

}  // namespace cob::bench
