// Sides, cobs and output of `cob bench connections`; the rounds are connections/comparison.h.
// A cob that cannot be had here is a side that is missing; so is a Linux mode without its
// privilege. Used by the measuring command's only thread.
#include "bench/connections.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "bench/bench.h"
#include "bench/connections/comparison.h"

namespace cob::bench {

namespace {

constexpr const char* who_closes =
    "The server closes each connection; in conn_client_closes the client; keepalive, bulk: nobody.";

// The cobs of the sides; those that are there.
struct Cobs {
  std::optional<CabledCobs> cabled;
  std::optional<PrivateCob> inside;
  std::optional<TapCob> tap, wire;
  std::optional<WiredPlace> xdp;
};

void add_cobs(const Options& options, Interrupts& interrupts, Cobs& cobs, Comparison& comparison) {
  const auto add = [&](auto& kept, const char* key, auto brought) {
    if (!brought) return comparison.missing(key, brought.why());
    kept.emplace(std::move(*brought));
    comparison.add(ConnectionSide(key, "shared", kept->place()));
  };
  // They are cobs of ours, so not beside a running one that was named.
  const auto ours = [&](auto bring) {
    using Brought = decltype(bring());
    return options.name.empty() ? bring() : Brought::failed("--name was given");
  };
  add(cobs.cabled, "cob", ours([&] { return CabledCobs::bring_up(options, interrupts); }));
  add(cobs.inside, "inside", PrivateCob::bring_up(options, interrupts));
  add(cobs.tap, "tap", ours([&] { return TapCob::bring_up(options, true, interrupts); }));
  add(cobs.wire, "wire", ours([&] { return TapCob::bring_up(options, false, interrupts); }));
  add(cobs.xdp, "xdp", ours([&] { return WiredPlace::with_cob(options, interrupts); }));
}

}  // namespace

int connections_main(const Options& options) {
  const auto cases = chosen_connection_cases(options);
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
    const Place linux_side = linux_place(options, 16);
    Cobs cobs;
    Comparison comparison({.program = program,
                           .folder = folder.path(),
                           .options = &options,
                           .interrupts = &interrupts});
    if (!options.linux_only) add_cobs(options, interrupts, cobs, comparison);
    for (const char* mode : {"shared", "reuseport", "affinity", "hermes"})
      comparison.add(ConnectionSide(std::string("linux_") + mode, mode, linux_side));
    const auto wired = WiredPlace::with_linux(options, interrupts);
    if (wired) {
      comparison.add(ConnectionSide(linux_wire, "shared", wired->place()));
    } else {
      comparison.missing(linux_wire, wired.why());
    }
    const bool well = comparison.measure(*cases);
    status = interrupts.seen() ? 130 : well ? 0 : 1;
    fmt::print("{}{}\nMedians over the rounds; {} s a measurement.\n", comparison.tables(),
               who_closes, options.seconds);
    if (!comparison.report().write(options.json)) status = std::max(status, 1);
  }
  end_all_children();
  return status;
}

}  // namespace cob::bench
