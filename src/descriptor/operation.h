// Home::Operation: one operation that a holder asked for, from its message to its answer.
// Model: it waits at its entry, or is under way at the object, which uses its buffers. Owned by the
// entry while it waits, by the object's callback while it is under way.
#pragma once

#include <array>

#include "descriptor/home.h"

namespace cob::descriptor {

enum class OperationKind : u8 { read, write, seek, change };

struct Home::Operation {
  KernelId asker{0};
  u32 slot = 0;
  u32 generation = 0;
  OperationKind kind = OperationKind::read;
  Where where = Where::offset;
  bool abandoned = false;  // its asker has gone before it was begun
  u64 position = 0;
  u64 grant = 0;
  u64 file_lease = 0;  // of a read: the asker had it when the read began
  i64 distance = 0;
  int whence = 0;
  u32 bytes = 0;
  message::Loan loan;                           // of a long write
  message::Buffer room;                         // for a long read
  std::move_only_function<Result<u64>()> call;  // of a change
  std::variant<std::monostate, message::ReplyToken<ReadReply>, message::ReplyToken<Written>,
               message::ReplyToken<Sought>, Object::Done>
      reply;
  std::array<std::byte, max_tail_bytes> small;  // what is shorter

  bool by_token() const { return where == Where::token || (where == Where::append && grant != 0); }
  // Takes its turn among the operations at the offset.
  bool at_offset() const { return where != Where::position && !by_token(); }
};

}  // namespace cob::descriptor
