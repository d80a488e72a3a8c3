// What the shim offers to programs that know it: call/ask_as.h. Any thread, each for itself.
#include "shim/names.h"

extern "C" {
__attribute__((visibility("default"))) void cob_ask_as(const cob::call::AskAs* whom);
__attribute__((visibility("default"))) void cob_opened_status(struct statx* status);
}

void cob_ask_as(const cob::call::AskAs* whom) { cob::shim::ask_as(whom); }
void cob_opened_status(struct statx* status) {
  cob::shim::fill_statx(cob::shim::opened_status(), status);
}
