// Planned arrivals and their answers as files, between the measuring command and the generator:
// a line an arrival. Values; any thread.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bench/connections/generator.h"
#include "bench/samples.h"

namespace cob::bench {

// False: the file cannot be written.
bool write_plan(const std::string& path, std::span<const PlannedArrival> plan);
// Fails where the file is not there, a line is none, or the times do not ascend.
Outcome<std::vector<PlannedArrival>> read_plan(const std::string& path);
// In nanoseconds; -1: it failed.
bool write_answers(const std::string& path, std::span<const i64> answered_ns);
// Fails unless there are `count`.
Outcome<std::vector<i64>> read_answers(const std::string& path, std::size_t count);

}  // namespace cob::bench
