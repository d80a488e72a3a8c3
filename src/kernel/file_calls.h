// FileCalls: what programs ask of files of other islands, file_open to file_control.
// docs/calls.md, "Files".
// Model: a call's slot and chunks are copied once and checked, its asking is sent, and it is
// answered when that is; what its answer needs of the arena is taken before anything is asked, so
// that nothing is done at the other island and then not told. A program that died or exec'd
// meanwhile is not answered, and what was opened for it is closed. Kernel's loop only; ends after
// its Messenger has dropped its continuations, or with it.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "kernel/file_cache.h"
#include "kernel/files.h"
#include "kernel/program.h"
#include "kernel/sockets.h"

namespace cob::kernel {

class FileCalls {
 public:
  static constexpr u32 max_under_way = 4'096;  // reaction when full: EAGAIN
  // Of a program; a home takes 128 of a kernel. Reaction when full: ENOLCK.
  static constexpr u32 max_lock_waits = 48;

  // `files`: nullptr: there are none; every call is then refused.
  // `attached`: the programs that have an arena, at any time.
  FileCalls(Files* files, Sockets& sockets, Sockets::Programs& programs,
            const std::vector<Program*>& attached);
  FileCalls(const FileCalls&) = delete;
  FileCalls& operator=(const FileCalls&) = delete;

  // REQUIRES: call.op is one of theirs.
  void run(Program& program, u32 thread, const call::CallSlot& call, Time now);
  // Asks what found no room.
  void poll();
  Time next_deadline(Time now) const {
    return unsent_.empty() ? Time::never() : now + Duration::microseconds(100);
  }
  u32 under_way() const { return under_way_; }
  u64 asked() const { return asked_; }
  u64 answered() const { return asked_ - under_way_; }
  const FileCache& cache() const { return cache_; }
  // What was watched (FileControl::watch) may be ready.
  void woken(descriptor::Holder::Ref file);

  // --- Locks (lock_calls.cc).
  // The program has the file no more by that slot; 0: by one that it never took.
  void left(Program& program, u32 slot, Description& file);
  // Its image is over; the file stays.
  void image_left(Program& program, u32 slot);
  // By its last holder.
  void closed(const OpenFile& file);

 private:
  // A call that is not answered, with what it keeps of its program's arena.
  struct Pending {
    u32 program = 0, image = 0, thread = 0, sequence = 0;
    std::vector<u32> chunks;  // of the receive memory
    u32 slot = 0;             // for what is opened; 0: none
    std::vector<std::byte> bytes;
    bool listed = false;  // the first chunk is for a list of the others
  };
  using Shared = std::shared_ptr<Pending>;
  struct Names;  // a checked FileAsk
  // A lock that a program waits for, until it has looked how that ended.
  struct LockWait {
    u32 program = 0, thread = 0, slot = 0, generation = 0;
    descriptor::Locker::Wish wish;
    u32 number = 0;  // the Locker's, while it waits
    bool over = false, abandoned = false;
    i32 result = 0;
    Shared cancel;  // who has cancelled it, and is to be answered
  };
  struct Settling {
    u64 before = 0;
    Shared pending;
  };

  Shared begin(Program& program, u32 thread, const call::CallSlot& call);
  // False: there is no memory for so many; it was answered.
  bool reserve(Program& program, const Shared& pending, u32 chunks, bool slot = false);
  Program* caller(const Pending& pending);
  // As a program hears it: links and kernels are none of its business.
  static i32 code_for_files(int code);
  // Receive chunks for so many bytes, as many as a reply can name.
  static constexpr u32 chunks_for(u64 bytes) {
    constexpr u64 room = call::receive_chunk_payload;
    return static_cast<u32>(std::min((bytes + room - 1) / room, call::max_file_read / room));
  }
  void answer(const Shared& pending, i32 result, std::span<const u64> values = {},
              u32 chunks_used = 0);
  // Copies to the chunks: how many were used; their numbers go to `values`.
  u32 tell(const Pending& pending, std::span<const std::byte> bytes, std::span<u64> values);
  void tell_and_answer(const Shared& pending, std::span<const std::byte> bytes, i32 result);
  // Of a read: what was put is answered, listed if that is more than the reply names.
  void put(const Pending& pending, u64 at, std::span<const std::byte> bytes);
  void answer_read(const Shared& pending, u64 bytes);
  void put_and_answer(const Shared& pending, std::span<const std::byte> bytes);
  void leads_out(const Shared& pending, const std::string& path, bool second);
  // False: a fault. The chunks go back to the program.
  bool gather(Program& program, const call::u64* ids, u32 most, u64 bytes,
              std::vector<std::byte>& into);
  bool gather_chunks(Program& program, std::span<const u32> chunks, u64 bytes,
                     std::vector<std::byte>& into);
  bool gather_data(Program& program, const call::CallSlot& call, std::vector<std::byte>& into);
  Description* file_at(Program& program, u32 number, u32 generation);

  void open(Program& program, const Shared& pending, const call::CallSlot& call, Time now);
  void opened(const Shared& pending, const fs::Asker::Base& base, u32 flags, Time asked,
              Result<fs::Asker::OpenedFile> result);
  void name(Program& program, const Shared& pending, const call::CallSlot& call, Time now);
  // --- Reads (file_reads.cc).
  struct Reading;
  using SharedReading = std::shared_ptr<Reading>;
  using Fetched = std::move_only_function<void(Result<descriptor::Holder::ReadData>, u64 from)>;
  void read(Program& program, const Shared& pending, const call::CallSlot& call);
  void read_there(const SharedReading& reading);
  void read_on(const SharedReading& reading, bool again);
  void read_uncached(const SharedReading& reading);
  void read_pieces(const SharedReading& reading);
  void piece_came(const SharedReading& reading, u32 piece,
                  const Result<descriptor::Holder::ReadData>& result);
  void fetch(const SharedReading& reading, const FileCache::Lease& lease, u64 position,
             Fetched then);
  void keep(const Reading& reading, u64 from, const descriptor::Holder::ReadData& data);
  OpenFile* file_of(const Reading& reading);
  void write(Program& program, const Shared& pending, const call::CallSlot& call);
  void seek(Program& program, const Shared& pending, const call::CallSlot& call);
  void control(Program& program, const Shared& pending, const call::CallSlot& call);
  void terminal(const Shared& pending, const Description& d, const call::CallSlot& call);
  void watch(const Shared& pending, const Description& d, u32 events);
  void lock(Program& program, const Shared& pending, const call::CallSlot& call);
  void lock_wait(Program& program, const Shared& pending, const call::CallSlot& call,
                 const descriptor::Locker::Wish& wish);
  void lock_waited(u32 wait, const Result<descriptor::Locked>& result);
  void look_at_wait(Program& program, const Shared& pending, const call::CallSlot& call);
  void end_wait(u32 wait);
  void give_back(const LockWait& w);
  void abandon_waits(Program& program, const Shared& pending, const call::CallSlot& call);
  void forget_waits(const Program& program, u32 slot);
  void settle(const Shared& pending);
  u64 begin_closing() { return *closing_.insert(++closings_).first; }
  void end_closing(u64 closing);

  bool take_ask(Program& program, const Shared& pending, const call::CallSlot& call, Names& into);
  Result<fs::Asker::Base> base_of(Program& program, u32 directory, u32 generation, u32 share);
  // --- As whom is asked (asks_as.cc).
  Result<fs::Asker::As> as_whom(Program& program, const call::FileAsk& ask, Time now);
  Result<u32> number_of_other(const call::FileAsk& ask, Time now);
  // `ask` again later while it says EAGAIN: the link has no room.
  void ask_until_sent(const Shared& pending, std::move_only_function<Result<void>()> ask);

  struct Other {
    u32 pid, uid, gid;
    u32 number;
    Time since;
  };
  struct Unsent {
    Shared pending;
    std::move_only_function<Result<void>()> ask;
  };
  Files* files_;
  Sockets& sockets_;
  Sockets::Programs& programs_;
  std::deque<Unsent> unsent_;
  std::vector<Other> others_;  // at most 64
  u32 under_way_ = 0;
  FileCache cache_;
  std::unordered_map<u64, u32> watched_;  // by Ref: the description's handle
  std::unordered_map<u32, LockWait> lock_waits_;
  u32 lock_wait_numbers_ = 0;
  std::set<u64> closing_;  // closes that their homes have not answered
  u64 closings_ = 0;
  std::deque<Settling> settling_;
  std::vector<std::byte> scratch_;             // of one turn
  std::vector<std::vector<std::byte>> spare_;  // of long writes, for the next ones
  u64 asked_ = 0;
};

}  // namespace cob::kernel
