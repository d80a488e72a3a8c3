// Reads from pages. Model: file_cache.h: copy, then look that page and file are the same, then at
// the clock; what fails any of it was not read, and the kernel is asked.
#include "shim/file_cache.h"

namespace cob::shim {

using namespace call;

namespace {

i64 boot_time_ns() {
  timespec t{};
  clock_gettime(CLOCK_BOOTTIME, &t);
  return static_cast<i64>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

// False: the block is not there, or changed meanwhile.
bool copy_block(const FileCacheSide& cache, u32 id, u64 block, u32 from, size_t bytes,
                Pieces& into) {
  const u64 key = cache_key(id, block);
  const u32 first = cache_set(id, block) * cache_ways;
  for (u32 page = first; page < first + cache_ways; ++page) {
    const CachedPage& head = cache.page[page];
    if (load(head.key) != key) continue;
    const u32 version = acquire(head.version);
    if (version % 2 != 0 || load(head.key) != key) return false;
    into.copy_in(cache.bytes[page] + from, bytes);
    full_fence();  // the copy before the second look
    return load(head.version) == version;
  }
  return false;
}

}  // namespace

CachedRead cached_read(const Socket* file, size_t bytes, off_t position, Pieces& into) {
  if (file->slot < first_kernel_socket || (file->status_flags & O_DIRECT) != 0) return {};
  const KernelSide& side = *file->arena->kernel;
  const CachedFile& line = side.cached[file->slot - first_kernel_socket];
  const u32 id = acquire(line.id);
  if (id == 0) return {};
  const u16 home = load(line.home);
  const u64 size = load(line.size);
  const auto at = static_cast<u64>(position);
  const u64 left = at < size ? size - at : 0;
  const Pieces before = into;
  if (bytes > left) bytes = left;
  CachedRead got;
  while (got.bytes < bytes) {
    const u64 block = (at + got.bytes) / cache_page_bytes;
    const auto from = static_cast<u32>((at + got.bytes) % cache_page_bytes);
    size_t part = cache_page_bytes - from;
    if (part > bytes - got.bytes) part = bytes - got.bytes;
    const Pieces here = into;
    if (block >= max_cache_blocks || !copy_block(side.cache, id, block, from, part, into)) {
      into = here;
      break;
    }
    got.bytes += part;
  }
  got.all = got.bytes == bytes;
  // The use is over; only now does the clock tell whether it was one.
  const bool counts = home < max_cache_homes && acquire(line.id) == id &&
                      boot_time_ns() < static_cast<i64>(load(side.cache.lease_until[home]));
  if (counts) return got;
  into = before;
  return {};
}

}  // namespace cob::shim
