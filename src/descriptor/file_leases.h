// FileLeases: the home's side of file leases: which kernels may cache which files, and how they
// are told not to. docs/descriptors.md, 3; decision 0004.
// Model: one lease of the host's a file (Object::cache_lease), and under it a numbered lease for
// each kernel that reads it; when the host's is being broken, all of these are recalled, and only
// then the host's is given up. A lessee's ends with the last of its descriptions of the file. Owned
// by the Home; the kernel's loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "descriptor/lease_protocol.h"
#include "descriptor/object.h"
#include "message/messenger.h"

namespace cob::descriptor {

class FileLeases {
 public:
  static constexpr u32 max_files = 1'024;   // leased; of others nothing is cached
  static constexpr u32 reads_to_lease = 2;  // that found something, or one that found all it wanted
  // After a refusal the host is not asked for so long on that description's behalf.
  static constexpr Duration refused_for = Duration::milliseconds(20);

  // What the home knows of a pair of kernels.
  class Pairs {
   public:
    Pairs() = default;
    Pairs(const Pairs&) = delete;
    Pairs& operator=(const Pairs&) = delete;
    virtual ~Pairs() = default;
    // A session that has ended is noticed: by session_ended().
    virtual void look_at(KernelId kernel) = 0;
    // It has a session, is not fenced, and owes no answer for too long.
    virtual bool may_grant(KernelId kernel) = 0;
    // Something leased is told to it now.
    virtual void granted(KernelId kernel) = 0;
    // From then on it believes in nothing that it was given.
    virtual Time over(KernelId kernel) const = 0;
    // It did not answer in time. Calls fenced().
    virtual void fence(KernelId kernel) = 0;
  };
  struct Told {
    u64 number = 0;       // 0: none
    u64 size = 0;         // of the file, for as long as the lease lasts
    bool covers = false;  // what was read was read under it
  };
  struct Counters {
    u64 granted = 0, recalled = 0;
    u64 broken = 0;   // leases of the host's that somebody wanted to write through
    u64 refused = 0;  // by the host
  };

  FileLeases(message::Messenger& messenger, const Clock& clock, Pairs& pairs)
      : messenger_(messenger), clock_(clock), pairs_(pairs) {}
  FileLeases(const FileLeases&) = delete;
  FileLeases& operator=(const FileLeases&) = delete;

  // --- A description's life. `object` stays as long.
  // The number of the lease that `holder` has of this file already; 0: none.
  u64 opened(u32 slot, Object& object, KernelId holder);
  void released(u32 slot, KernelId holder);
  void ended(u32 slot);

  // --- A read of `asker`: before it begins, and when it has moved `moved` of `wanted` bytes.
  u64 before_read(u32 slot, KernelId asker) const;
  Told after_read(u32 slot, KernelId asker, u64 before, u64 moved, u64 wanted);

  // --- Pairs.
  // What it had it may believe in until then.
  void session_ended(KernelId kernel, Time over);
  void fenced(KernelId kernel);
  // A second has gone since it was asked for one.
  bool overdue(KernelId kernel, Time now) const;

  void poll(Time now);
  Time next_deadline() const;
  const Counters& counters() const { return counters_; }
  std::size_t files() const { return files_.size(); }

 private:
  struct Lessee {
    KernelId kernel{0};
    u64 number = 0;
    std::vector<u32> slots;  // its descriptions that know of it
    bool asked = false;      // Invalidate is sent
    bool orphaned = false;   // its session has ended
    Time when{};             // asked: since; orphaned: when it is over
  };
  struct File {
    std::unique_ptr<CacheLease> host;
    u64 size = 0;
    bool breaking = false;
    std::vector<Lessee> lessees;
  };
  struct Slot {
    Object* object = nullptr;
    std::optional<FileId> file;
    u32 reads = 0;
    Time ask_again{};
  };
  using Files = std::map<FileId, File>;

  static Lessee* lessee_of(File& file, KernelId kernel);
  File* file_of(u32 slot);
  Lessee* grant(u32 slot, KernelId asker);
  void broken(const FileId& id);
  void ask(const FileId& id, Lessee& lessee);
  void answered(const FileId& id, u64 number);
  void end_if_unused(Files::iterator file);
  bool waits(const File& file) const;
  void note_waiting();

  message::Messenger& messenger_;
  const Clock& clock_;
  Pairs& pairs_;
  Files files_;
  std::vector<Slot> slots_;  // by the home's
  u64 numbers_ = 0;
  bool waiting_ = false;  // some file's lessees are asked, or gone
  Counters counters_;
};

}  // namespace cob::descriptor
