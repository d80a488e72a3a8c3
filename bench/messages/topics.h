// The topics of `cob bench messages`: each measures its figures beside their floors, in turns.
// Model: run() takes about `seconds` and gives one round's figures; the command repeats and takes
// medians. Used by the measuring command's only thread.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bench/messages/pair.h"

namespace cob::bench {

struct TopicRun {
  std::array<int, 2> cores = {};
  double seconds = 0;
  Interrupts& interrupts;
};

Outcome<Findings> measure_round_trips(const TopicRun& run);
Outcome<Findings> measure_one_way(const TopicRun& run);
Outcome<Findings> measure_multicast(const TopicRun& run);
Outcome<Findings> measure_bulk(const TopicRun& run);
Outcome<Findings> measure_loans(const TopicRun& run);
Outcome<Findings> measure_sleeping(const TopicRun& run);
Outcome<Findings> measure_hogs(const TopicRun& run);
Outcome<Findings> measure_sizes(const TopicRun& run);
Outcome<Findings> measure_window_link(const TopicRun& run);
Outcome<Findings> measure_socket_link(const TopicRun& run);

// A line of the table. Keys are the JSON's; "" where there is nothing to show.
struct Row {
  const char* title;
  const char* key;
  const char* p99 = "";
  const char* ratio = "";  // to the floor
};

struct Topic {
  const char* name;  // for --only
  double share;      // of a round's seconds
  Outcome<Findings> (*measure)(const TopicRun& run);
  std::vector<Row> rows;
};

std::span<const Topic> topics();

}  // namespace cob::bench
