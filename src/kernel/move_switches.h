// The switches of a description as an image has them: one list for who writes it and who makes the
// socket anew. Values; no thread of their own.
#pragma once

#include "base/types.h"

namespace cob::kernel {

// The bools of a description, in the order of DescriptionPart::switches.
template <typename D, typename F>
void for_each_switch(D& d, F f) {
  f(0, d.bound, [&](bool on) { d.bound = on; });
  f(1, d.port_given, [&](bool on) { d.port_given = on; });
  f(2, d.listened, [&](bool on) { d.listened = on; });
  f(3, d.deferred, [&](bool on) { d.deferred = on; });
  f(4, d.accept_counted, [&](bool on) { d.accept_counted = on; });
  f(5, d.receive_fixed, [&](bool on) { d.receive_fixed = on; });
  f(6, d.send_fixed, [&](bool on) { d.send_fixed = on; });
  f(7, d.no_delay, [&](bool on) { d.no_delay = on; });
  f(8, d.cork, [&](bool on) { d.cork = on; });
  f(9, d.keep_alive, [&](bool on) { d.keep_alive = on; });
  f(10, d.linger_reset, [&](bool on) { d.linger_reset = on; });
  f(11, d.reuse_address, [&](bool on) { d.reuse_address = on; });
  f(12, d.reuse_port, [&](bool on) { d.reuse_port = on; });
}

}  // namespace cob::kernel
