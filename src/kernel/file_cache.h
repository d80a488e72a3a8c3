// FileCache: what a kernel keeps of other islands' files in its programs' arenas
// (call/file_cache.h). docs/calls.md, "Files".
// Model: a program's pages are its own: only it may read what its user may. Pages are taken from a
// budget of the kernel's and come back with the arena; when a set, or the budget, is full, the
// oldest page of the set goes. Ends of leases are heard before the home is answered. Kernel's loop
// only.
#pragma once

#include <array>
#include <bitset>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "base/types.h"
#include "call/layout.h"
#include "descriptor/holder.h"

namespace cob::kernel {

class Program;

class FileCache {
 public:
  static constexpr u32 budget_pages = 32'768;  // 128 MiB; a program may have half of what is left

  // Of one image of a program; owned by it.
  class Part {
   public:
    explicit Part(std::shared_ptr<u32> left) : left_(std::move(left)) {}
    ~Part() { *left_ += pages_; }
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;

   private:
    friend class FileCache;
    struct File {
      u32 id = 0;
      std::vector<u32> slots;  // that show it
    };
    std::shared_ptr<u32> left_;            // of the kernel's budget
    u32 pages_ = 0;                        // touched
    std::unordered_map<u64, File> files_;  // by lease
    std::unordered_set<u32> live_;         // their ids
    u32 last_id_ = 0;
    std::bitset<call::cache_pages> touched_;
    std::array<u8, call::cache_sets> oldest_{};
  };

  using Lease = descriptor::Holder::FileLease;
  struct Counters {
    u64 filled = 0, replaced = 0;  // pages
    u64 kept_out = 0;              // no page was to be had
    u64 served = 0;                // reads at an offset, from pages
  };

  explicit FileCache(const std::vector<Program*>& programs) : programs_(programs) {}
  FileCache(const FileCache&) = delete;
  FileCache& operator=(const FileCache&) = delete;

  // The program may read what is cached of the file at that slot from now on.
  void show(Program& program, u32 slot, const Lease& lease, Time until);
  void hide(Program& program, u32 slot);
  // Whole blocks, or up to the file's end, of `bytes` that were read at `position` under the lease.
  void fill(Program& program, const Lease& lease, u64 position, std::span<const std::byte> bytes);
  // Copies what is there in one piece from `position` on; at the file's end nothing is missing.
  struct Got {
    u64 bytes = 0;
    bool all = false;  // as many as asked for, or up to the end
  };
  Got copy(Program& program, const Lease& lease, u64 position, std::span<std::byte> into);
  void count_served() { ++counters_.served; }

  // --- Of the Holder. When ended() returns no program takes what it copied for good.
  void ended(KernelId home, u64 number);
  void extended(KernelId home, Time until);

  const Counters& counters() const { return counters_; }
  u32 pages_left() const { return *left_; }

 private:
  static u64 name(KernelId home, u64 number) { return number << 10 | home.value; }
  Part::File* file_of(Program& program, const Lease& lease);
  void fill_page(Program& program, u32 id, u64 block, std::span<const std::byte> bytes);
  u32 page_for(Program& program, u32 id, u64 block);

  const std::vector<Program*>& programs_;  // attached
  std::shared_ptr<u32> left_ = std::make_shared<u32>(budget_pages);
  Counters counters_;
};

}  // namespace cob::kernel
