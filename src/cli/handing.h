// The caller's descriptors for a program on another island than the caller's; docs/descriptors.md,
// 5. Model: each open description that stays open over exec is handed to a kernel of the caller's
// island, which passes it to the program's; its numbers get placeholders of one name each. The
// process that becomes the program, before it does.
#pragma once

#include <sys/types.h>

#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/types.h"
#include "cli/control_client.h"

namespace cob::cli {

struct HandOver {
  int giver = -1;     // a kernel of the caller's island
  int to = -1;        // the program's
  pid_t program = 0;  // as the supervisor knows it
};

struct HandedOver {
  bool any = false;   // the program has something to adopt
  Fd standard_error;  // the caller's, for what is to be said after all; closed by exec
  std::vector<std::pair<int, u64>> names;
};

// What cannot go is closed and told on stderr. Failure: the kernels do not take them.
HandedOver hand_over_descriptors(ControlClient& client, const HandOver& how);
// A number of a program on another machine: a placeholder's, or without a name a memory device's
// (null(4)), by its minor number.
struct NumberElsewhere {
  int number = -1;
  u64 name = 0;
  u32 device = 0;
};
struct NumbersElsewhere {
  std::vector<NumberElsewhere> numbers;
  Fd standard_error;  // as above
};
// Likewise for a program on another machine: this process keeps none of its numbers, so that pipes
// end when the program ends.
NumbersElsewhere hand_over_numbers(ControlClient& client, const HandOver& how);
// The placeholders get their names: the last thing before exec, as a shim in this process would
// take them for its own.
void name_placeholders(const HandedOver& handed);

}  // namespace cob::cli
