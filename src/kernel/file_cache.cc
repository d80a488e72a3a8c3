// FileCache: showing, filling, ending. See file_cache.h.
#include "kernel/file_cache.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernel/program.h"

namespace cob::kernel {

namespace {

constexpr u64 page_bytes = call::cache_page_bytes;
constexpr u32 no_page = ~u32{0};

call::CachedFile& line_of(Program& program, u32 slot) {
  return program.arena().ours().cached[slot - call::first_kernel_socket];
}

bool has_line(u32 slot) { return slot >= call::first_kernel_socket && slot < call::max_sockets; }

}  // namespace

// ---- Which files.

FileCache::Part::File* FileCache::file_of(Program& program, const Lease& lease) {
  if (program.cached == nullptr) return nullptr;
  const auto found = program.cached->files_.find(name(lease.home, lease.number));
  return found == program.cached->files_.end() ? nullptr : &found->second;
}

void FileCache::show(Program& program, u32 slot, const Lease& lease, Time until) {
  if (!has_line(slot) || lease.home.value >= call::max_cache_homes) return;
  if (program.cached == nullptr) program.cached = std::make_unique<Part>(left_);
  Part& part = *program.cached;
  const auto [file, is_new] = part.files_.try_emplace(name(lease.home, lease.number));
  if (is_new) {
    if (part.last_id_ + 1 == call::max_cache_ids) {
      part.files_.erase(file);
      return;
    }
    file->second.id = ++part.last_id_;
    part.live_.insert(file->second.id);
  }
  auto& line = line_of(program, slot);
  if (line.id == file->second.id) return;
  if (line.id != 0) hide(program, slot);
  publish(program.arena().ours().cache.lease_until[lease.home.value], static_cast<u64>(until.ns));
  line.home = lease.home.value;
  line.size = lease.size;
  file->second.slots.push_back(slot);
  publish(line.id, file->second.id);
}

void FileCache::hide(Program& program, u32 slot) {
  if (!has_line(slot) || program.cached == nullptr) return;
  auto& line = line_of(program, slot);
  const u32 id = line.id;
  if (id == 0) return;
  publish(line.id, u32{0});
  for (auto& [lease, file] : program.cached->files_)
    if (file.id == id) std::erase(file.slots, slot);
}

void FileCache::ended(KernelId home, u64 number) {
  for (Program* program : programs_) {
    if (program->cached == nullptr) continue;
    Part& part = *program->cached;
    const auto found = part.files_.find(name(home, number));
    if (found == part.files_.end()) continue;
    for (const u32 slot : found->second.slots) publish(line_of(*program, slot).id, u32{0});
    part.live_.erase(found->second.id);
    part.files_.erase(found);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void FileCache::extended(KernelId home, Time until) {
  if (home.value >= call::max_cache_homes) return;
  for (Program* program : programs_) {
    if (program->cached == nullptr || program->cached->files_.empty()) continue;
    publish(program->arena().ours().cache.lease_until[home.value], static_cast<u64>(until.ns));
  }
}

// ---- Pages.

// no_page: all of the set are of use to others, or there is no memory for one.
u32 FileCache::page_for(Program& program, u32 id, u64 block) {
  Part& part = *program.cached;
  const auto& pages = program.arena().ours().cache.page;
  const u32 set = call::cache_set(id, block);
  const u32 first = set * call::cache_ways;
  u32 fresh = no_page;
  for (u32 page = first; page < first + call::cache_ways; ++page) {
    if (!part.touched_[page]) {
      fresh = page;
    } else if (pages[page].key == 0 ||
               !part.live_.contains(static_cast<u32>(pages[page].key >> 40))) {
      return page;
    }
  }
  if (fresh != no_page && part.pages_ < *left_) {
    part.touched_.set(fresh);
    ++part.pages_;
    --*left_;
    return fresh;
  }
  for (u32 tried = 0; tried < call::cache_ways; ++tried) {
    const u32 page = first + part.oldest_[set]++ % call::cache_ways;
    if (!part.touched_[page]) continue;
    ++counters_.replaced;
    return page;
  }
  ++counters_.kept_out;
  return no_page;
}

void FileCache::fill_page(Program& program, u32 id, u64 block, std::span<const std::byte> bytes) {
  auto& cache = program.arena().ours().cache;
  const u32 first = call::cache_set(id, block) * call::cache_ways;
  const u64 key = call::cache_key(id, block);
  for (u32 page = first; page < first + call::cache_ways; ++page)
    if (cache.page[page].key == key) return;
  const u32 page = page_for(program, id, block);
  if (page == no_page) return;
  ++counters_.filled;
  call::CachedPage& head = cache.page[page];
  const u32 version = head.version;
  publish(head.version, version + 1);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  std::memcpy(cache.bytes[page], bytes.data(), bytes.size());
  head.key = key;
  publish(head.version, version + 2);
}

void FileCache::fill(Program& program, const Lease& lease, u64 position,
                     std::span<const std::byte> bytes) {
  const Part::File* file = file_of(program, lease);
  if (file == nullptr || position >= lease.size) return;
  bytes = bytes.first(std::min<u64>(bytes.size(), lease.size - position));
  const u64 skipped = (page_bytes - position % page_bytes) % page_bytes;
  if (skipped >= bytes.size()) return;
  u64 block = (position + skipped) / page_bytes;
  for (auto rest = bytes.subspan(skipped); !rest.empty() && block < call::max_cache_blocks;
       ++block) {
    const auto part = rest.first(std::min<u64>(rest.size(), page_bytes));
    const bool whole = part.size() == page_bytes || block * page_bytes + part.size() == lease.size;
    if (whole) fill_page(program, file->id, block, part);
    rest = rest.subspan(part.size());
  }
}

FileCache::Got FileCache::copy(Program& program, const Lease& lease, u64 position,
                               std::span<std::byte> into) {
  const Part::File* file = file_of(program, lease);
  if (file == nullptr) return {};
  const u64 left = position < lease.size ? lease.size - position : 0;
  into = into.first(std::min<u64>(into.size(), left));
  const auto& cache = program.arena().ours().cache;
  u64 done = 0;
  while (done < into.size()) {
    const u64 at = position + done;
    const u64 key = call::cache_key(file->id, at / page_bytes);
    const u32 first = call::cache_set(file->id, at / page_bytes) * call::cache_ways;
    u32 page = first;
    while (page < first + call::cache_ways && cache.page[page].key != key) ++page;
    if (page == first + call::cache_ways) return {.bytes = done, .all = false};
    const u64 part = std::min<u64>(into.size() - done, page_bytes - at % page_bytes);
    std::memcpy(into.data() + done, cache.bytes[page] + at % page_bytes, part);
    done += part;
  }
  return {.bytes = done, .all = true};
}

}  // namespace cob::kernel
