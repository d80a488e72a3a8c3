// Handle: names a description in the table of the kernel that is its home. docs/descriptors.md, 1.
// Model: slot and generation; a generation is never used again in the home's life, and another
// life's begin elsewhere. Values.
#pragma once

#include "base/types.h"

namespace cob::descriptor {

struct Handle {
  u32 slot = 0;
  u32 generation = 0;  // 0: names nothing

  constexpr bool operator==(const Handle&) const = default;
  constexpr explicit operator bool() const { return generation != 0; }
};

// Of one description, one grant of its offset to a holder; 0: none.
using Grant = Distinct<struct GrantTag, u64>;

}  // namespace cob::descriptor
