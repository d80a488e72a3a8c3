// The check mode, COB_CHECK=1: after interposed calls the shim's table is compared with the host's.
// Model: a number in the table is an eventfd whose count is the entry's token, and a number whose
// eventfd has a token of ours is in the table; anything else is said on stderr and ends the
// program. Small tables are looked at after every call that changes descriptors, larger ones and
// other calls more seldom. Any thread; other threads' calls in flight are given time before a
// difference counts.
#pragma once

#include "shim/contract.h"

namespace cob::shim {

extern bool check_mode __attribute__((visibility("hidden")));
void check_start(char** environment);       // looks for COB_CHECK
void check_tables(const char* call);        // after calls that change descriptors
void check_now_and_then(const char* call);  // after the others

}  // namespace cob::shim
