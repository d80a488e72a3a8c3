// Holder: the descriptions of other homes that programs of this kernel have, and what is done with
// them from here. docs/descriptors.md, 1 to 3 and 6.
// Model: with the token an operation at the offset is one at a position, one at a time; without it
// the home does it. References are this kernel's own count; the home hears of the first and the
// last. Owned by the kernel's loop.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "descriptor/lease.h"
#include "descriptor/object.h"
#include "descriptor/protocol.h"
#include "message/messenger.h"

namespace cob::descriptor {

class Holder {
 public:
  static constexpr u32 max_descriptions = 262'144;

  // A description here; good while it is referred to.
  struct Ref {
    u32 slot = 0;
    u32 generation = 0;  // 0: none
    bool operator==(const Ref&) const = default;
  };
  struct ReadData {
    std::span<const std::byte> bytes;  // valid during the call, or while `loan` is
    message::Loan loan;                // move it out to keep them
    u64 file_lease = 0;                // not 0: they are the file's as long as that is held
  };
  using ReadDone = std::move_only_function<void(Result<ReadData>)>;
  using Done = std::move_only_function<void(Result<u64>)>;

  struct Counters {
    u64 operations = 0;
    u64 by_token = 0;     // of these
    u64 moved_alone = 0;  // offsets moved without a message
    u64 tokens = 0, recalled = 0, stale = 0, fenced = 0;
    u64 lost = 0;  // descriptions whose home or link has ended
    u64 file_leases = 0, invalidated = 0;
  };

  // Registers its handler: before the Messenger's first link. Destroy it first, and do not poll the
  // Messenger afterwards.
  Holder(message::Messenger& messenger, const Clock& clock);
  ~Holder();
  Holder(const Holder&) = delete;
  Holder& operator=(const Holder&) = delete;

  // What `home` has just opened for this kernel, in the answer to a request made at `asked`; with
  // one reference. ENFILE: max_descriptions. EPROTO: it is here already.
  // ESTALE: the home has ended.
  struct Opened {
    KernelId home{0};
    Handle handle;
    Grant grant;
    u64 offset = 0;
    bool appends = false;
    bool has_offset = true;
    u64 file_lease = 0;
  };
  Result<Ref> opened(const Opened& opened, Time asked);
  using AdoptDone = std::move_only_function<void(Result<Ref>)>;
  // What was passed to this kernel, by name: one more reference to it. `done` has the Ref, or
  // ENOENT: it has ended.
  void adopt(KernelId home, Handle handle, bool appends, bool has_offset, AdoptDone done);

  void refer(Ref ref);  // one reference more
  // One less. With the last the description is dropped at its home; `done` hears what close(2)
  // would have said, when it is done.
  void drop(Ref ref, Done done);

  // `at` nullopt: at the offset. ESTALE: the home, or the link to it, has ended. A read of more
  // than max_tail_bytes may end early; `bytes` is at most max_data_bytes.
  void read(Ref ref, Position at, u32 bytes, ReadDone done);
  // `from` must stay until `done`.
  void write(Ref ref, Position at, std::span<const std::byte> from, Done done);
  void seek(Ref ref, i64 distance, int whence, Done done);

  // What is here of a home's, without a reference more.
  std::optional<Ref> find(KernelId home, Handle handle);
  // By which others name it, to pass it on. REQUIRES: lives(ref).
  KernelId home(Ref ref) const { return remotes_[ref.slot].home; }
  Handle handle(Ref ref) const { return remotes_[ref.slot].handle; }
  struct Traits {
    bool has_offset = false, appends = false;
  };
  Traits traits(Ref ref) const {
    return {.has_offset = remotes_[ref.slot].has_offset, .appends = remotes_[ref.slot].appends};
  }
  bool lives(Ref ref) const {
    return ref.slot < remotes_.size() && ref.generation != 0 &&
           remotes_[ref.slot].generation == ref.generation;
  }

  // --- File leases (holder_leases.cc): what of a file may be cached, and until when. Who uses
  // what is cached looks at the clock after the use.
  struct FileLease {
    KernelId home{0};
    u64 number = 0;  // of one session with the home
    u64 size = 0;    // the file's
  };
  // nullopt: it has none. REQUIRES: lives(ref).
  std::optional<FileLease> file_lease(Ref ref) const;
  Time leased_until(KernelId home) const { return pairs_[home.value].lease.until(); }
  // `ended`: before the home is told: nothing may be used once it returns. `extended`: all leases
  // of the home are good until then. Both may be empty.
  struct LeaseEvents {
    std::move_only_function<void(KernelId home, u64 number)> ended;
    std::move_only_function<void(KernelId home, Time until)> extended;
  };
  void on_lease(LeaseEvents events) { lease_events_ = std::move(events); }
  // Where the offset is, if it is here, with a good lease and nothing else moves it. After bytes
  // were read from there, from what is cached: advance(); false: they do not count.
  std::optional<u64> resting_offset(Ref ref) const;
  bool advance(Ref ref, u64 from, u64 bytes);

  void poll(Time now);
  Time next_deadline() const;
  const Counters& counters() const { return counters_; }
  std::size_t size() const { return remotes_.size() - free_.size(); }

 private:
  enum class UseKind : u8 { read, write, seek };
  struct Use {
    UseKind kind = UseKind::read;
    Where where = Where::offset;
    Ref ref;
    Position at;
    u64 position = 0;
    u64 grant = 0;
    i64 distance = 0;
    int whence = 0;
    i64 ask_distance = 0;  // the same as it is asked: by token SEEK_CUR is a SEEK_SET
    int ask_whence = 0;
    u32 bytes = 0;
    std::span<const std::byte> from;
    Time asked{};
    std::size_t place = 0;  // in flying_
    ReadDone read_done;
    Done done;

    bool by_token() const {
      return where == Where::token || (where == Where::append && grant != 0);
    }
  };
  struct Remote {
    u32 generation = 0;  // 0: free
    u32 references = 0;
    KernelId home{0};
    Handle handle;
    bool appends = false, has_offset = true;
    bool lost = false;
    bool busy = false;                         // an operation by token is under way
    bool starved = false;                      // there was no room to ask by token
    u32 under_way = 0;                         // operations of all kinds
    u64 grant = 0;                             // the token is here
    u64 offset = 0;                            // with it
    u64 file_lease = 0;                        // of pair.leased
    std::deque<std::unique_ptr<Use>> waiting;  // for the operation by token to end
    message::ReplyToken<Returned> recall;      // valid: the token is wanted back
    bool dropping = false;
    Done dropped;
  };
  struct Pair {
    u32 link_generation = 0;
    HeldLease lease;
    u32 tokens = 0;
    struct Leased {
      u64 size = 0;
      u32 descriptions = 0;
    };
    std::unordered_map<u64, Leased> leased;  // files, by the leases' numbers
    bool renewing = false;
    Time renew_at = Time::never();
    std::unordered_map<u64, u32> slots;  // of descriptions whose home it is, by key()
    std::unordered_map<u64, std::shared_ptr<std::vector<AdoptDone>>> adopting;  // by key()
  };

  static u64 key(Handle handle) { return u64{handle.slot} << 32 | handle.generation; }
  std::optional<Ref> refer_to(KernelId home, Handle handle);
  Pair& look(KernelId peer);
  void session_ended(KernelId peer);
  void submit(std::unique_ptr<Use> use);
  void begin(std::unique_ptr<Use> use);
  void ask(std::unique_ptr<Use> use);
  Result<message::RequestId> send(Use& use);
  std::unique_ptr<Use> landed(Use& use);
  template <typename Reply>
  void answered(std::unique_ptr<Use> use, const Result<Reply>& reply, message::Incoming& in);
  void end(std::unique_ptr<Use> use, Result<u64> moved, ReadData data);
  void go_on(u32 slot);
  void take_token(Remote& remote, u64 grant, u64 offset, Time asked);
  void lose_token(Remote& remote);
  void extend(KernelId home, Time asked);
  void take_file_lease(Remote& remote, u64 number, u64 size, Time asked);
  void leave_file_lease(Remote& remote);
  void end_file_lease(KernelId home, u64 number);
  void end_file_leases(KernelId home);
  void maybe_drop(u32 slot);
  void forget(u32 slot);
  void renew(KernelId peer, Time now);

  message::Messenger& messenger_;
  const Clock& clock_;
  u32 generations_ = 1;
  std::deque<Remote> remotes_;
  std::vector<u32> free_;
  std::vector<Pair> pairs_;
  std::vector<std::unique_ptr<Use>> flying_;  // asked, not answered; in any order
  std::deque<std::unique_ptr<Use>> unsent_;   // no room at the link
  std::vector<Ref> starved_;                  // likewise, by token
  std::vector<Ref> undropped_;                // likewise
  message::Incoming nobody_;                  // with what failed here
  LeaseEvents lease_events_;
  Counters counters_;
};

}  // namespace cob::descriptor
