// The messages by which a program finds a file of another island (types 73 to 79).
// docs/descriptors.md, 7 and 8.
// Model: paths are sent as they were written, behind a share's root or an open directory's handle,
// to one kernel of the storing island. Open flags are those of open_flags.h; modes, XATTR_*,
// RENAME_* and errnos Linux's numbers. Values; flat structs, checked by message/flat.h.
#pragma once

#include "descriptor/handle.h"
#include "descriptor/protocol.h"
#include "fs/status.h"
#include "message/flat.h"

namespace cob::fs {

using descriptor::HandleField;

// The share of descriptors that programs passed (descriptors.md, 5): nothing is below them.
inline constexpr u32 passed_share = 0xfffe;
inline constexpr u32 max_path_bytes = 4'095;       // PATH_MAX without its NUL
inline constexpr u32 max_groups = 1'000;           // a program in more: refused
inline constexpr u32 max_credentials = 1'024;      // a kernel tells
inline constexpr u32 max_value_bytes = 64 * 1024;  // of an extended attribute

// Who asks, told once and then named by `number`, below max_credentials; told again it is changed.
// Tail: supplementary groups, 4 bytes each.
struct TellCredentials {
  static constexpr message::MessageType type{73};
  static constexpr std::size_t max_tail = std::size_t{max_groups} * 4;
  message::le<u32> number;
  message::le<u32> uid;
  message::le<u32> gid;
  message::le<u32> groups;
};

// Where a path begins: an open directory (or, with an empty path, anything open), or, if its
// generation is 0, the root of `share`.
struct Place {
  HandleField directory;
  message::le<u32> share;
};

// Tail: the path. As open(2) in all that it tells; close_on_exec and no_terminal mean nothing here.
// What would wait for an event (a FIFO's other end to be opened for reading): EAGAIN.
struct Open {
  static constexpr message::MessageType type{74};
  static constexpr std::size_t max_tail = max_path_bytes;
  Place place;
  message::le<u32> credentials;
  message::le<u32> flags;
  message::le<u16> mode;
  message::le<u16> umask;
  message::le<u32> reserved;
};
// With `outside` nothing was opened: the path leads out of the share, and the tail is the path to
// go on with on the asker's own tree: absolute, or behind the share's root, beginning with "..".
struct Opened {
  static constexpr message::MessageType type{75};
  static constexpr std::size_t max_tail = message::max_message_bytes - 256;
  HandleField handle;
  message::le<u64> grant;
  message::le<u64> file_lease;
  message::le<u16> home;  // the kernel that `handle` is of
  message::Flag outside;
  u8 reserved_a;
  message::le<u32> reserved_b;
  Status status;
};

// What is done with a name. known().
enum class NameCall : u16 {
  status = 0,      // AT_SYMLINK_NOFOLLOW in `flags`; the reply's value is a Status
  access = 1,      // `mode`: R_OK, W_OK, X_OK; by the credentials named
  make_directory,  // `mode`
  make_node,  // `mode` with S_IFIFO, S_IFSOCK, S_IFREG; `number` the device of S_IFCHR, S_IFBLK
  unlink,
  remove_directory,
  rename,            // to the second path; `flags`: RENAME_*
  link,              // as the second path; AT_SYMLINK_FOLLOW in `flags`
  symlink,           // the value is what it says
  read_link,         // the reply's value
  change_mode,       // `mode`; nofollow: EOPNOTSUPP for a link
  change_owner,      // `uid`, `gid`, ~0: stays; AT_SYMLINK_NOFOLLOW
  set_times,         // the value is two TimeFields; UTIME_NOW, UTIME_OMIT; AT_SYMLINK_NOFOLLOW
  truncate,          // `number` bytes
  filesystem,        // the reply's value is a FilesystemStatus
  get_attribute,     // the value is its name; `number` the room; AT_SYMLINK_NOFOLLOW
  set_attribute,     // the second path is its name, the value the value; XATTR_* above flag_bits
  list_attributes,   // `number` the room
  remove_attribute,  // the value is its name
  name,  // with an empty path: the reply's value is the directory's name now, behind the share's
         // root; ENOENT: it is removed, or has left the share
};
constexpr bool known(NameCall call) { return call <= NameCall::name; }

// In `flags`: Linux's AT_SYMLINK_NOFOLLOW or AT_SYMLINK_FOLLOW, as the call has it; of the calls
// that have flags of their own (rename, set_attribute) those in the lower byte.
inline constexpr u32 no_follow = 0x100, follow = 0x400, own_flags = 0xff;

// Tail, or the first bytes of the loan: the path, the second path, the value.
struct Name {
  static constexpr message::MessageType type{76};
  static constexpr std::size_t max_tail = 4'096;
  static constexpr bool may_lend = true;
  Place place;
  Place second_place;
  message::le<u32> credentials;
  message::le<NameCall> call;
  message::le<u16> umask;
  message::le<u32> flags;
  message::le<u32> mode;
  message::le<u32> uid;
  message::le<u32> gid;
  message::le<u64> number;
  message::le<u16> path_bytes;
  message::le<u16> second_bytes;
  message::le<u32> value_bytes;
};
// Tail, or the first `bytes` of the loan: the value. With `outside` it is as Opened's; `second`: it
// was the second path.
struct Named {
  static constexpr message::MessageType type{77};
  static constexpr std::size_t max_tail = 4'096;
  static constexpr bool may_lend = true;
  message::le<u64> number;  // a size, where a size was asked
  message::le<u32> bytes;
  message::Flag outside;
  message::Flag second;
  message::le<u16> reserved;
};

// The entry to the kernel that is the file's home; the descriptor itself goes by SCM_RIGHTS between
// the two, marked with `number`. The description is held by `holder` from then on.
struct Adopt {
  static constexpr message::MessageType type{78};
  message::le<u64> number;
  message::le<u16> holder;
  message::le<u16> reserved_a;
  message::le<u32> reserved_b;
};
struct Adopted {
  static constexpr message::MessageType type{79};
  HandleField handle;
  message::le<u64> grant;
  message::le<u64> file_lease;
};

static_assert(message::FlatMessage<TellCredentials> && message::FlatMessage<Open> &&
              message::FlatMessage<Opened> && message::FlatMessage<Name> &&
              message::FlatMessage<Named> && message::FlatMessage<Adopt> &&
              message::FlatMessage<Adopted>);

}  // namespace cob::fs
