// Why an uplink's port could not be opened. A value.
#pragma once

#include <string>

namespace cob::net {

struct PortFailure {
  int code = 0;      // a Linux errno
  std::string text;  // with the remedy, in words for the user
};

}  // namespace cob::net
