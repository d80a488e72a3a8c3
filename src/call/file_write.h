// How file_write names more chunks than its slot has room for. docs/calls.md, "Files".
// Shared by kernel and shim: plain C++, no libstdc++.
#pragma once

#include <linux/types.h>

namespace cob::call {

// In a file_write's flags: a[2] is one chunk, which lists the chunks of the data, u32 each.
inline constexpr __u16 file_write_listed = 2;
inline constexpr __u32 chunks_in_file_write = 8;      // in the slot
inline constexpr __u32 max_listed_file_chunks = 128;  // 256 KiB

}  // namespace cob::call
