// The key of a cob's IPv6 interface identifiers (RFC 7217 section 5: secret_key), which outlives
// the cob: a file of 32 hexadecimal digits that only its owner reads, made when it is not there.
// Values; no owner.
#pragma once

#include <array>
#include <string>

#include "base/types.h"

namespace cob::cli {

struct IdentifierKey {
  std::array<u64, 2> words{};  // not zeros
  std::string warning;         // why it will be another one next time; "": it will not
};

// `path`: "" stands for cob/NAME.ipv6-key in $XDG_STATE_HOME or ~/.local/state; if that cannot be
// made or written the key is of this time only. Throws Failure{exit_state}: the file is no key,
// others can read it, or one that was named cannot be made.
IdentifierKey identifier_key(const std::string& name, const std::string& path);

}  // namespace cob::cli
