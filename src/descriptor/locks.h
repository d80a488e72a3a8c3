// Locks: of the files whose descriptions have their home in this kernel, what other kernels'
// programs have locked and wait for. docs/descriptors.md, 4.
// Model: a table a file for record locks, whose union is held on the host by one open description;
// flock is the host's alone, by each description's own. One request of a file after the other; one
// that waits is tried again when a lock of this table goes, and, where the host refused, at
// intervals. Owned by the kernel's loop; ends before its Home.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "descriptor/home.h"
#include "descriptor/lock_protocol.h"

namespace cob::descriptor {

class Locks {
 public:
  // Reaction when full: ENOLCK.
  static constexpr u32 max_waits = 1'024, max_waits_a_kernel = 128;
  static constexpr u32 max_ranges = 65'536, max_ranges_a_file = 4'096;
  static constexpr u32 max_queued_a_file = 4'096;
  // Ranges looked at in search of a cycle; one that takes more is not found.
  static constexpr u32 max_cycle_looks = 16'384;
  // Tries of one file's requests in one turn; the others' come in the next.
  static constexpr u32 max_tries = 64;
  // Where the host refused: tried again at intervals that double.
  static constexpr Duration first_pause = Duration::milliseconds(1);
  static constexpr Duration longest_pause = Duration::milliseconds(20);
  // The host's open description of a file that has no locks is kept so long.
  static constexpr Duration kept_idle = Duration::seconds(1);

  struct Counters {
    u64 asked = 0, granted = 0;
    u64 waited = 0;  // requests that were not granted at once
    u64 deadlocks = 0;
    u64 cancelled = 0;
    u64 host_tries = 0, host_refused = 0;
    u64 full = 0;     // ENOLCK, of the bounds above
    u64 invalid = 0;  // no such request, or of what the asker does not hold
  };

  // Registers its handler: before the Messenger's first link. Takes Home::on_end().
  Locks(message::Messenger& messenger, Home& home, const Clock& clock);
  ~Locks();
  Locks(const Locks&) = delete;
  Locks& operator=(const Locks&) = delete;

  void poll(Time now);
  Time next_deadline() const { return due_; }
  const Counters& counters() const { return counters_; }
  u32 waits() const { return static_cast<u32>(waits_.size()); }
  u32 ranges() const { return ranges_; }
  // nullptr: nothing is locked, or was of late. For tests.
  const LockTable* table(const FileId& id) const;

 private:
  using Reply = message::ReplyToken<Locked>;
  struct File;
  struct Request {
    KernelId asker{0};
    Handle handle;
    LockKind kind{};
    LockMode mode{};
    LockCall call{};
    LockRange range;
    LockOwner owner;
    LockOwner heir;  // of give
    u32 wait = 0;
    u32 pid = 0;
    u32 session = 0;  // of the asker's, when it asked
    bool host_refused = false, waited = false;
    int over = 0;  // an errno: it is wanted no more
    File* file = nullptr;
    Reply reply;  // none: of this kernel's own
  };
  using Asked = std::unique_ptr<Request>;
  struct File {
    explicit File(const FileId& its_id) : id(its_id) {}

    FileId id;
    LockTable table;
    std::shared_ptr<RecordLocks> record;
    std::deque<Asked> queue;  // to be tried, in this order
    std::deque<Asked> waits;  // tried, in vain
    bool busy = false;        // the host is being asked
    bool going = false;
    bool stale = false;    // the host is not as the table is: it refused to let go
    bool watched = false;  // in watched_
    Time retry = Time::never();
    Duration pause = first_pause;
    Time idle = Time::never();  // since then nothing is here
  };
  struct Pair {
    u32 link_generation = 0;
    u32 waits = 0;
  };
  // A description that has, or had, locks.
  struct Described {
    FileId id;
    LockMode flock{};
  };

  void look(KernelId peer);
  void session_ended(KernelId peer);
  void description_ended(Handle handle);
  void on_lock(KernelId from, const Lock& m, Reply reply);
  int check(KernelId from, const Lock& m, std::optional<FileId>& id);
  void cancel(KernelId from, u32 wait);
  bool lapsed(const Request& request) const;
  void unlist(Request& request);
  void close_owner(File& file, const LockOwner& owner);

  void end_if_idle(File& file, Time now);
  void go(File& file);
  void attempt(File& file, Asked request);
  void attempt_flock(File& file, Asked request);
  void attempt_record(File& file, Asked request);
  void had(File& file, Asked request, const Result<u64>& result);
  void test(File& file, Asked request);
  void unlock(File& file, Asked request);
  void give(File& file, Asked request);
  void bring_host_in_line(File& file, std::vector<LockRange> ranges, Asked request);
  Result<void> open_record(File& file, const Request& request,
                           std::vector<LockTable::Part>& to_move);
  void block(File& file, Asked request, bool by_host);
  void wake(File& file, bool only_refused = false);
  bool closes_cycle(const Request& start) const;
  void finish(Asked request, const Result<Locked>& result);
  void fail(Asked request, int code);
  // poll() looks at it at `at`.
  void watch(File& file, Time at);
  template <typename F>
  void change(File& file, F f) {
    const std::size_t before = file.table.size();
    f(file.table);
    ranges_ += static_cast<u32>(file.table.size()) - static_cast<u32>(before);
  }

  message::Messenger& messenger_;
  Home& home_;
  const Clock& clock_;
  std::map<FileId, std::unique_ptr<File>> files_;
  std::map<std::pair<u16, u32>, Request*> waits_;       // by kernel and number, until answered
  std::multimap<LockOwner, const Request*> waiting_;    // POSIX locks'
  std::map<std::pair<u32, u32>, Described> described_;  // by slot and generation
  std::vector<File*> watched_;
  std::vector<Pair> pairs_;
  u32 ranges_ = 0;
  Time due_ = Time::never();
  Counters counters_;
};

}  // namespace cob::descriptor
