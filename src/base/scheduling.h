// Scheduling wishes towards the host: short time slices, so that a wake-up comes before a computing
// neighbour's slice ends. Model: sched_setattr(2), sched_runtime of a SCHED_OTHER task is its EEVDF
// slice (Linux 6.12 and later; ignored before). No privilege, and no greater share of the core:
// only sooner turns, more often. The calling thread and its children.
#pragma once

namespace cob {

inline constexpr unsigned short_slice_us = 100;  // the least that Linux grants

void ask_for_short_slices();

}  // namespace cob
