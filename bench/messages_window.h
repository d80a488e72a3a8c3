// What a window link costs beside a coherent one: the same messengers, processes and cores, in
// turns. Model: two pinned, spinning processes; the window is two mappings of one memfd with
// one-sided rights. One thread each.
#pragma once

#include "base/result.h"
#include "base/types.h"

namespace cob::bench {

struct LinkCost {
  double round_trip_p50_ns = 0;  // typed request and reply, one line each way; medians of turns
  double round_trip_p99_ns = 0;
  double one_way_per_s = 0;  // one line each, flushed every 64
  double page_ns = 0;        // one way, messages of 4 KiB
};

struct WindowResult {
  LinkCost coherent, window;
  double round_trip_ratio = 0;  // window to coherent: medians of the turns' ratios
  double one_way_ratio = 0;     // of times
  double page_ratio = 0;        // of times
};

// Takes about `seconds`. ENOTSUP if this process may run on fewer than two cores.
Result<WindowResult> measure_window(double seconds);

}  // namespace cob::bench
