// Walking a table piece by piece, by place: a piece costs what it looks at and no more, and nothing
// is held between two pieces; what comes or goes meanwhile may be missed. Owned by the caller.
#pragma once

#include <algorithm>

#include "base/types.h"

namespace cob::net {

// Calls visit(place) for `places` places below `end` from the cursor on, until it says that there
// is no room; the cursor is where the next call goes on, 0 behind the end.
template <typename Visit>
void walk(u32& cursor, u32 places, u32 end, Visit visit) {
  u32 place = cursor;
  const u32 stop = end - std::min(end, place) < places ? end : place + places;
  while (place < stop && visit(place)) ++place;
  cursor = place < end ? place : 0;
}

}  // namespace cob::net
