// What a kernel keeps of other islands' files where the program reads it by itself: pages of 4 KiB
// in the arena, which nobody but the kernel and this program sees. docs/calls.md, "Files".
// Model: a file that may be cached has an id, shown at its slot; a page says of which file and
// which block it is, and its version is odd while it changes. The program copies, looks that page
// and file are still the same, and then at the clock: what it copied counts if the lease of the
// file's home was good *after* the copy. Shared by kernel and shim: plain C++, no libstdc++.
#pragma once

#include <linux/types.h>

namespace cob::call {

inline constexpr __u32 cache_sets = 512, cache_ways = 8;  // of pages; a block has its set
inline constexpr __u32 cache_pages = cache_sets * cache_ways;
inline constexpr __u32 cache_page_bytes = 4'096;
inline constexpr __u32 max_cache_homes = 1'024;        // every kernel of a cob
inline constexpr __u32 max_cache_ids = 1 << 24;        // then nothing more is cached
inline constexpr __u64 max_cache_blocks = 1ULL << 40;  // of a file: what lies behind is not cached

// At a slot of the kernel's numbering, kernel-written.
struct CachedFile {
  __u32 id;    // 0: nothing of it is cached. Written last
  __u16 home;  // whose lease it hangs on
  __u16 reserved;
  __u64 size;  // of the file, as long as `id` stands
};
static_assert(sizeof(CachedFile) == 16);

struct CachedPage {
  __u64 key;  // of what it holds; 0: nothing
  __u32 version;
  __u32 reserved;
};
static_assert(sizeof(CachedPage) == 16);

constexpr __u64 cache_key(__u32 id, __u64 block) { return static_cast<__u64>(id) << 40 | block; }
constexpr __u32 cache_set(__u32 id, __u64 block) {
  return static_cast<__u32>((id * 37ULL + block) % cache_sets);
}

struct FileCacheSide {
  alignas(4096) __u64 lease_until[max_cache_homes];  // CLOCK_BOOTTIME, ns; 0: over
  alignas(4096) CachedPage page[cache_pages];
  alignas(4096) __u8 bytes[cache_pages][cache_page_bytes];
};

}  // namespace cob::call
