// VERIFY's last words. Any thread.
#include "base/result.h"

#include <cstdio>

namespace cob {

void verify_failed(const char* condition, std::source_location where) {
  std::fprintf(stderr, "cob: VERIFY(%s) failed at %s:%u in %s\n", condition, where.file_name(),
               where.line(), where.function_name());
  std::abort();
}

}  // namespace cob
