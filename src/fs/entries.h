// Entries of a directory as they travel: packed, the same bytes on every ISA. getdents64(2).
// Model:  inode u64 | next i64 | type u8 | name_bytes u16 | name, without NUL    each
// little-endian, unaligned, one behind the other. The reader takes nothing for granted. Values.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/types.h"

namespace cob::fs {

struct Entry {
  u64 inode = 0;
  i64 next = 0;  // the directory's position behind this entry
  u8 type = 0;   // DT_*, as Linux's numbers
  std::string_view name;
};

inline constexpr std::size_t entry_head_bytes = 19;
inline constexpr std::size_t max_entry_name = 1'024;  // as FUSE's
// That there is always room for one.
inline constexpr std::size_t min_entries_bytes = entry_head_bytes + max_entry_name + 8;

// Reads packed entries. A malformed one ends it: bad().
class EntryReader {
 public:
  explicit EntryReader(std::span<const std::byte> bytes) : left_(bytes) {}
  std::optional<Entry> next();
  bool bad() const { return bad_; }

 private:
  std::span<const std::byte> left_;
  bool bad_ = false;
};

// Appends to `into`; false: no room, nothing was written.
bool pack_entry(const Entry& entry, std::span<std::byte> into, std::size_t& used);

// What getdents64(2) wrote, packed in place; how many bytes are left of it. Never more.
std::size_t pack_host_entries(std::span<std::byte> bytes);

}  // namespace cob::fs
