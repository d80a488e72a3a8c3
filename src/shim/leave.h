// The program goes to another kernel by itself: one that no image can bring it to, since its arena
// cannot (another island), or since it has files of other islands. docs/moving.md, 10.
// Model: whoever makes a call, or wakes from a wait of the shim's, finds that the kernel asks for
// it, and does it for all threads: the descriptions are held there under the names that they have
// here, and only when all are, and the locks are handed over, each number is given its new one.
// Until then nothing has changed. Any thread.
#pragma once

#include "shim/arena.h"

namespace cob::shim {

extern const u32* leave_word __attribute__((visibility("hidden")));  // ArenaHeader::leave, or zeros
extern u32 leave_seen __attribute__((visibility("hidden")));  // what was answered; 0: nothing here
extern u32 leaves __attribute__((visibility("hidden")));      // how often it went; atomic

void leave_slow();
inline bool leave_asked() {
  const u32 asked = load(*load(leave_word));
  return asked != 0 && asked != load(leave_seen);
}
inline void leave_if_asked() {
  if (leave_asked()) [[unlikely]]
    leave_slow();
}
bool may_leave();  // there are several islands
// The arena is the program's from now on; null: it has none.
void follow_leave_word(const Arena* arena);
void forget_leave();  // a forked child

}  // namespace cob::shim
