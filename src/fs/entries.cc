// Packing and its inverse. An entry of ours is shorter than the host's, so packing is in place.
#include "fs/entries.h"

#include <dirent.h>

#include <cstddef>
#include <cstring>

#include "message/flat_fields.h"

namespace cob::fs {
namespace {

using message::le;

template <typename T>
T read_at(std::span<const std::byte> bytes, std::size_t at) {
  le<T> field;
  std::memcpy(&field, bytes.data() + at, sizeof(field));
  return field.get();
}

template <typename T>
void write_at(std::byte* at, T value) {
  const le<T> field = value;
  std::memcpy(at, &field, sizeof(field));
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= max_entry_name &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

}  // namespace

std::optional<Entry> EntryReader::next() {
  if (bad_ || left_.empty()) return std::nullopt;
  bad_ = true;
  if (left_.size() < entry_head_bytes) return std::nullopt;
  const std::size_t name_bytes = read_at<u16>(left_, 17);
  if (left_.size() - entry_head_bytes < name_bytes) return std::nullopt;
  const Entry entry{
      .inode = read_at<u64>(left_, 0),
      .next = read_at<i64>(left_, 8),
      .type = read_at<u8>(left_, 16),
      .name = {reinterpret_cast<const char*>(left_.data()) + entry_head_bytes, name_bytes}};
  if (!is_name(entry.name)) return std::nullopt;
  bad_ = false;
  left_ = left_.subspan(entry_head_bytes + name_bytes);
  return entry;
}

bool pack_entry(const Entry& entry, std::span<std::byte> into, std::size_t& used) {
  if (into.size() - used < entry_head_bytes + entry.name.size()) return false;
  std::byte* at = into.data() + used;
  write_at<u64>(at, entry.inode);
  write_at<i64>(at + 8, entry.next);
  write_at<u8>(at + 16, entry.type);
  write_at<u16>(at + 17, static_cast<u16>(entry.name.size()));
  std::memmove(at + entry_head_bytes, entry.name.data(), entry.name.size());
  used += entry_head_bytes + entry.name.size();
  return true;
}

std::size_t pack_host_entries(std::span<std::byte> bytes) {
  std::size_t used = 0;
  for (std::size_t at = 0; at < bytes.size();) {
    dirent64 head;
    std::memcpy(&head, bytes.data() + at, offsetof(dirent64, d_name));
    char* const name = reinterpret_cast<char*>(bytes.data()) + at + offsetof(dirent64, d_name);
    const Entry entry{.inode = head.d_ino,
                      .next = head.d_off,
                      .type = head.d_type,
                      .name = {name, ::strnlen(name, head.d_reclen - offsetof(dirent64, d_name))}};
    at += head.d_reclen;
    // The name moves up to `used` + 19 <= its own place: the host's head has 19 bytes too. But the
    // head must not be written over the name: it lies before it, as used <= the record's start.
    VERIFY(pack_entry(entry, bytes, used));
  }
  return used;
}

}  // namespace cob::fs
