// Sides, cobs and output of `cob bench angel`; the rounds are angel/comparison.h.
// Used by the measuring command's only thread.
#include "bench/angel.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "bench/angel/comparison.h"

namespace cob::bench {

int angel_main(const Options& options) {
  const auto cases = chosen_angel_cases(options);
  if (!cases) return fail(options.json, 2, cases.why());
  const std::string program = helper_program(options, "cob-bench-connections");
  if (program.empty()) {
    return fail(options.json, 2,
                fmt::format("cob-bench-connections is missing beside {}", options.cob));
  }
  Interrupts interrupts;
  int status = 0;
  {
    const TemporaryDirectory folder;
    const auto network = OwnNetwork::make();
    if (!network) return fail(options.json, 2, network.why() + " (takes root)");
    AngelComparison comparison({.program = program,
                                .folder = folder.path(),
                                .options = &options,
                                .network = &*network,
                                .interrupts = &interrupts});
    std::optional<AngelCob> cobs[2];
    for (const auto& [number, key, policies] :
         {std::tuple{0, "angel", "all"}, std::tuple{1, "hash", "none"}}) {
      if (options.linux_only) continue;
      auto up = AngelCob::bring_up(options, *network, number, policies, interrupts);
      if (!up) {
        comparison.missing(key, up.why());
        continue;
      }
      cobs[number].emplace(std::move(*up));
      comparison.add(AngelSide(key, *cobs[number]));
    }
    for (const char* mode : {"shared", "reuseport", "affinity", "hermes"})
      comparison.add(AngelSide(std::string("linux_") + mode, mode));
    const bool well = comparison.measure(*cases, cobs[0] ? &*cobs[0] : nullptr);
    status = interrupts.seen() ? 130 : well ? 0 : 1;
    fmt::print("{}Medians over the rounds; {} s a measurement, {} workers.\n", comparison.tables(),
               options.seconds, options.workers);
    if (!comparison.report().write(options.json)) status = std::max(status, 1);
  }
  end_all_children();
  return status;
}

}  // namespace cob::bench
