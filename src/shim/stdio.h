// stdio on cob sockets: fdopen(3), fileno(3), fclose(3), freopen(3), dprintf(3), and
// stdin/stdout/stderr while 0/1/2 are cob sockets. Model: libc's streams read and write numbers by
// system calls of their own, past every interposed name, so a stream over a cob socket is a
// fopencookie(3) stream whose functions call the interposed read and write on its number. The
// variables stdin, stdout, stderr point to such streams for as long as the number is a cob socket;
// what was buffered moves along. Any thread; streams lock themselves, the variables are changed by
// the thread that changed the number.
#pragma once

#include <stdio.h>

#include "shim/contract.h"

namespace cob::shim {

extern u32 standard_cob
    __attribute__((visibility("hidden")));  // bit n: the variable of number n points to our stream
void follow_standard_streams_slow(u32 now);

inline void follow_standard_streams() {
  const u32 now = (is_cob(0) ? 1U : 0U) | (is_cob(1) ? 2U : 0U) | (is_cob(2) ? 4U : 0U);
  if (now != standard_cob) [[unlikely]]
    follow_standard_streams_slow(now);
}

}  // namespace cob::shim
