// The messages between a description's home and its holders (types 48 to 72). docs/descriptors.md,
// 2, 3, 5 and 8.
// Model: the home alone has the host's descriptor; a session's end is the other side's death, so
// a message names neither epoch nor session. Values; flat structs, checked by message/flat.h.
#pragma once

#include "descriptor/handle.h"
#include "message/flat.h"

namespace cob::descriptor {

inline constexpr u32 max_tail_bytes = 4'096;    // of data in a message; more is lent
inline constexpr u32 max_data_bytes = 1 << 20;  // of one operation; a longer one is done in part

struct HandleField {
  message::le<u32> slot;
  message::le<u32> generation;
};
constexpr HandleField field_of(Handle h) { return {h.slot, h.generation}; }
constexpr Handle handle_of(const HandleField& f) { return {f.slot, f.generation}; }

// Where an operation takes place. What a peer sends may be no member: known().
enum class Where : u8 {
  offset = 0,    // at the description's own, by a holder that has no token; moves it
  position = 1,  // at `position`; moves nothing
  token = 2,     // at `position`, by the holder of grant `grant`, who moves the offset itself
  append = 3,    // a write behind the last byte (the host's O_APPEND); by token if `grant` is not 0
};
constexpr bool known(Where where) { return where <= Where::append; }

// What all operations may be answered with: ENOENT, the asker does not hold it; EKEYEXPIRED,
// `grant` rests here no more: ask with Where::offset; EIO, also once for an offset that a death
// took along; EAGAIN, it would wait for an event; ENOBUFS, the home has too much waiting;
// EPROTO, no such operation.
struct Read {
  static constexpr message::MessageType type{52};
  HandleField handle;
  message::le<u64> position;
  message::le<u64> grant;
  message::le<u32> bytes;
  message::le<Where> where;
  message::le<u8> reserved_a;
  message::le<u16> reserved_b;
};
// The bytes are the tail, or the first `bytes` of the loan.
struct ReadReply {
  static constexpr message::MessageType type{53};
  static constexpr std::size_t max_tail = max_tail_bytes;
  static constexpr bool may_lend = true;
  message::le<u32> bytes;
  message::le<u32> reserved;
  message::le<u64> grant;       // not 0: the offset rests with the asker from now on
  message::le<u64> offset;      // behind the operation; of Where::offset and Where::append
  message::le<u64> file_lease;  // not 0: the asker may cache the file under it
  message::le<u64> file_size;   // as long as that lasts
  message::Flag covered;        // these bytes too
  u8 reserved_a;
  message::le<u16> reserved_b;
  message::le<u32> reserved_c;
};

// The bytes are the tail, or the first `bytes` of the loan.
struct Write {
  static constexpr message::MessageType type{54};
  static constexpr std::size_t max_tail = max_tail_bytes;
  static constexpr bool may_lend = true;
  HandleField handle;
  message::le<u64> position;
  message::le<u64> grant;
  message::le<u32> bytes;
  message::le<Where> where;
  message::le<u8> reserved_a;
  message::le<u16> reserved_b;
};
struct Written {
  static constexpr message::MessageType type{55};
  message::le<u32> bytes;
  message::le<u32> reserved;
  message::le<u64> grant;
  message::le<u64> offset;
};

// lseek(2). Where::offset and, for what asks the file (END, DATA, HOLE), Where::token.
struct Seek {
  static constexpr message::MessageType type{56};
  HandleField handle;
  message::le<i64> distance;
  message::le<u64> grant;
  message::le<u32> whence;
  message::le<Where> where;
  message::le<u8> reserved_a;
  message::le<u16> reserved_b;
};
struct Sought {
  static constexpr message::MessageType type{57};
  message::le<u64> offset;
  message::le<u64> grant;
};

// Home to holder: the offset is wanted. ENOENT: dropped meanwhile (the drop has said it).
struct Recall {
  static constexpr message::MessageType type{58};
  HandleField handle;
  message::le<u64> grant;
};
struct Returned {
  static constexpr message::MessageType type{59};
  message::le<u64> offset;
};

// Of all tokens and file leases between the two. See lease.h.
struct Renew {
  static constexpr message::MessageType type{60};
  message::le<u32> reserved;
};
struct Renewed {
  static constexpr message::MessageType type{61};
  message::Flag fenced;  // the home has given up on them: they are gone
};

// Tail: handles, eight bytes each, at most max_handles. The holder has references to them from now
// on. Reply: as many bytes, 1: held, 0: ended.
inline constexpr u32 max_handles = 500;
struct Hold {
  static constexpr message::MessageType type{48};
  static constexpr std::size_t max_tail = max_handles * sizeof(HandleField);
  message::le<u32> count;
};
struct Held {
  static constexpr message::MessageType type{49};
  static constexpr std::size_t max_tail = max_handles;
  message::le<u32> count;
};

// The holder's last reference is gone; with `grant` the offset comes home. Answered when what the
// close does is done.
struct Drop {
  static constexpr message::MessageType type{50};
  HandleField handle;
  message::le<u64> grant;
  message::le<u64> offset;
};
struct Dropped {
  static constexpr message::MessageType type{51};
  message::le<i32> result;  // 0 or -errno, as of close(2)
};

static_assert(message::FlatMessage<Read> && message::FlatMessage<ReadReply> &&
              message::FlatMessage<Write> && message::FlatMessage<Written> &&
              message::FlatMessage<Seek> && message::FlatMessage<Sought> &&
              message::FlatMessage<Recall> && message::FlatMessage<Returned> &&
              message::FlatMessage<Renew> && message::FlatMessage<Renewed> &&
              message::FlatMessage<Hold> && message::FlatMessage<Held> &&
              message::FlatMessage<Drop> && message::FlatMessage<Dropped>);

}  // namespace cob::descriptor
