// Where a path leads: the host's tree, or a share that another island stores. docs/descriptors.md,
// 7; path_resolution(7). Model: the arena's table of remote shares is copied at attach; a path is
// compared with it by its text, "." and "//" taken out; behind the share's path it goes to the home
// as it was written. The working directory is the host's or, in a share, a directory that is open
// at its home, at a hidden number. Without remote shares nothing is looked at. Any thread.
#pragma once

#include "shim/arena.h"
#include "shim/passage.h"

namespace cob::shim {

extern u32 remote_shares __attribute__((visibility("hidden")));  // how many; 0: all is the host's
inline constexpr u32 path_room = 4'096 + 512;
inline constexpr u32 most_turns = 40;  // ways out of shares that are followed, as Linux's links

// The kernel's table; the working directory if it is in a share. Called at each attach.
void learn_shares(const Arena* arena);
// Likewise when the program has come to another kernel: what it calls by names from now on. The
// host's working directory is what it should be if the one that it has is in no share there.
void learn_shares_anew(const Arena* arena);
// An absolute name is at or below a share that programs of that arena see as another island's.
bool is_in_shares_of(const Arena* arena, const char* name);
// Of a number of the host's; path_room. False: it has none.
bool name_of_number(int number, char* name);
// A file of that share was adopted: perhaps of none that is another island's here.
void note_passed_file(u32 share);
inline constexpr u32 passed_share = 0xfffe;  // fs/protocol.h's

// A place that a call named, and where it leads by now.
class Target {
 public:
  // `empty_is_place`: an empty path names the directory itself (AT_EMPTY_PATH).
  Target(int number, const char* name, bool empty_is_place = false) {
    aim(number, name, empty_is_place);
    if (!remote) passage_.leave();
  }
  // What is open at `number`.
  explicit Target(int number) {
    aim(number, "", true);
    if (!remote) passage_.leave();
  }
  ~Target() {
    if (held_ != nullptr) drop(held_);
  }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  bool remote = false;
  int error = 0;  // the path cannot be sent
  // Of the host: what to give its call.
  int directory = -1;
  const char* path = nullptr;  // also a remote one's: behind the share or the directory
  // Remote: the file that the path is behind, or null: the root of `share`.
  Socket* file = nullptr;
  u32 share = 0;
  u32 bytes = 0;

  // The path led out of the share, and goes on with `tail`. False: too often, too long (`error`).
  bool follow(const char* tail, u32 tail_bytes);
  // An empty second path, which its home refuses in its turn: after what is wrong with the first.
  void be_empty_beside(const Target& first);

 private:
  void aim(int number, const char* name, bool empty_is_place);
  void settle_text();

  Passage passage_{load(remote_shares) != 0};
  Object* held_ = nullptr;
  u32 turns_ = 0;
  char text_[path_room];
};

// Where the share of that number is; null: there is none.
const char* path_of_share(u32 number);
// Bytes of the share's path that an absolute name begins with; 0: it is in none.
u32 share_bytes(const char* name);
// False: the host's. Cheap without remote shares.
bool leads_to_share(int number, const char* name);

// ---- the working directory
// Of the one in a share, the name that it had last, or "" (it had none then); null: the host's.
const char* virtual_directory();
// `number`: a directory of another island, open; it is the caller's still. `name`: as above. 0 or
// an errno.
int enter_virtual_directory(int number, const char* name);
void note_virtual_directory(const char* name);
// The host's was changed: reads it.
void leave_virtual_directory();
// A reference to it. Null: it is not open: not yet, or its home or kernel has ended since.
Object* hold_virtual_directory();
// Its hidden number, or -1; it moved (give_up_number).
int virtual_directory_number();
void rename_virtual_directory(int from, int to);
// Opens it by its name, if it is not open. 0 or an errno.
int open_virtual_directory();
// For images: "NUMBER:NAME", or "NAME".
inline constexpr char directory_variable[] = "COB_DIRECTORY";

}  // namespace cob::shim
