// TableChanges: how often a cob's steering tables were changed, so that a kernel that misses a
// connection knows whether to wait for news of it (docs/network.md).
// Model: one word of shared memory, counted up before and after each change by the tables' one
// writer, so it is odd meanwhile; a frame that went by the new tables is seen after the first. The
// writer's and each reader's thread.
#pragma once

#include "base/memory.h"
#include "message/shared_word.h"

namespace cob::net {

inline constexpr std::size_t table_changes_bytes = 4'096;

class TableChangesWriter {
 public:
  static Result<TableChangesWriter> create() {
    return TableChangesWriter(
        TRY(create_memory("cob-changes", table_changes_bytes, Writers::creator)));
  }
  FdRef fd() const { return shared_.fd.ref(); }
  // REQUIRES: called before the tables change, and when they have.
  void count() {
    auto* word = reinterpret_cast<u32*>(shared_.mapping.data());
    message::store_release(*word, *word + 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
  }

 private:
  explicit TableChangesWriter(SharedMemory shared) : shared_(std::move(shared)) {}
  SharedMemory shared_;
};

class TableChangesReader {
 public:
  // EPERM, EMSGSIZE: base/memory.h.
  static Result<TableChangesReader> open(FdRef fd) {
    return TableChangesReader(
        TRY(map_foreign(fd, table_changes_bytes, Writers::creator, Access::read)));
  }
  u32 count() const {
    return message::load_acquire(*reinterpret_cast<const u32*>(mapping_.data()));
  }

 private:
  explicit TableChangesReader(Mapping mapping) : mapping_(std::move(mapping)) {}
  Mapping mapping_;
};

}  // namespace cob::net
