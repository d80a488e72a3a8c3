// Home: the descriptions that have their home in this kernel: who holds them, where each one's
// offset is, and what their holders ask. docs/descriptors.md, 1 to 3 and 6.
// Model: operations at the offset run one after the other, at the object's own position, or the
// offset rests at one holder, numbered, until somebody else wants it; a holder's session ends, or
// its lease, and what it had is lost, told once. Owned by the kernel's loop.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <variant>
#include <vector>

#include "descriptor/file_leases.h"
#include "descriptor/lease.h"
#include "descriptor/object.h"
#include "descriptor/protocol.h"
#include "message/messenger.h"

namespace cob::descriptor {

class Home final : private FileLeases::Pairs {
 public:
  static constexpr u32 max_descriptions = 65'536;
  static constexpr u32 max_waiting =
      1'024;                                // operations at offsets that are not here; then ENOBUFS
  static constexpr u32 streak_to_rest = 3;  // operations in a row by one of several holders

  struct Counters {
    u64 opened = 0, ended = 0;
    u64 operations = 0;
    u64 granted = 0, recalled = 0, lost = 0;
    u64 fenced = 0;        // pairs given up on
    u64 refused = 0;       // names of what the asker does not hold
    u64 stale_tokens = 0;  // operations by a token that rests there no more
  };
  struct Opened {
    Handle handle;
    Grant grant;  // 0: the offset stays here
    u64 offset = 0;
    u64 file_lease = 0;  // the holder has it already
  };

  // Registers its handlers: before the Messenger's first link. Destroy it first, and do not poll
  // the Messenger afterwards. `epoch`: the kernel's.
  Home(message::Messenger& messenger, const Clock& clock, u32 epoch);
  ~Home() override;
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;

  // The holder has it from now on. `host_shared`: a program of this island may have the host's
  // descriptor, so the offset never rests elsewhere. ENFILE: max_descriptions. ENETDOWN: no session
  // with the holder.
  Result<Opened> open(std::unique_ptr<Object> object, KernelId holder, bool host_shared);
  // What was opened for a holder that never heard of it. Nothing if it has let go by itself.
  void withdraw(Handle handle, KernelId holder);
  // nullptr: the kernel does not hold it.
  Object* find(Handle handle, KernelId holder);
  // In its turn among the operations at the offset, which is here by then, and stays: what the host
  // does at the offset changes by `call` (O_APPEND). ENOENT: not held; ENOBUFS: too much waits.
  // Neither runs if `from` lets go of the description before its turn.
  void change(Handle handle, KernelId from, std::move_only_function<Result<u64>()> call,
              Object::Done done);
  // As find(); the object stays until end_use(), which may end it.
  Object* begin_use(Handle handle, KernelId holder);
  void end_use(Handle handle);
  // Who hears that a description has ended, when its object is gone.
  void on_end(std::move_only_function<void(Handle)> ended) { ended_ = std::move(ended); }

  void poll(Time now);
  Time next_deadline() const;
  const Counters& counters() const { return counters_; }
  const FileLeases& file_leases() const { return file_leases_; }
  std::size_t size() const { return size_; }

 private:
  enum class Place : u8 {
    home,       // the object's own position
    resting,    // at `at`, as grant `grant`
    recalling,  // asked for; `at` has not answered
    orphaned,   // `at` is gone, or given up on; lost when its lease and its operation are over
    returning,  // it has come, and is being set at the object
  };
  struct Operation;
  struct Entry {
    u32 generation = 0;  // 0: free
    std::unique_ptr<Object> object;
    ObjectTraits traits;
    std::vector<u16> holders;
    std::deque<std::unique_ptr<Operation>> waiting;  // at the offset, in order
    Place place = Place::home;
    bool stays = false;  // the offset never rests elsewhere: others move it, or O_APPEND changed
    bool eio = false;    // the next operation at the offset is told of a loss
    bool recall_due = false;  // Recall is not sent yet
    bool going = false;       // go_on() is under way
    u16 at = 0;
    u16 last_user = 0;
    u32 streak = 0;
    u32 under_way = 0;         // of all kinds: the object must stay
    u32 offset_under_way = 0;  // at the offset, or by token
    u64 grant = 0;             // the latest
    u64 reported = 0;          // where the offset was when last heard of
    Time over{};               // when its holder, who is gone, believes in it no more
    Time recalled{};           // or, if later, when an operation of the holder's ended
  };
  struct Pair {
    u32 link_generation = 0;  // of the session known; 0: none
    GivenLease lease;
    bool fenced = false;    // to be told at the next Renew
    std::vector<u32> held;  // slots, each once
  };

  struct Unsent {
    std::unique_ptr<Operation> op;
    ReadReply reply;
  };

  // nullptr, and counted: `from` does not hold it.
  Entry* entry_for(KernelId from, const HandleField& handle);
  Pair& look(KernelId peer);
  void session_ended(KernelId peer);
  static bool holds(const Entry& entry, KernelId kernel);
  void release(u32 slot, KernelId holder);
  void end_if_unheld(u32 slot);

  void register_handlers();
  std::unique_ptr<Operation> operation(KernelId from, const HandleField& handle);
  void recycle(std::unique_ptr<Operation> op);
  void submit(std::unique_ptr<Operation> op);
  void start(std::unique_ptr<Operation> op);
  void finish(std::unique_ptr<Operation> op, Result<u64> moved);
  void fail(std::unique_ptr<Operation> op, int code);
  void answer(std::unique_ptr<Operation> op, u64 moved, Grant grant, u64 offset);
  void send_unsent();
  void go_on(u32 slot);

  Grant give(u32 slot, KernelId to);
  bool may_rest(const Entry& entry, KernelId asker) const;
  void set_place(u32 slot, Place place);
  void want_back(u32 slot);
  void come_back(u32 slot, u64 offset);
  void lose(u32 slot);
  // A second has gone since it was asked for something.
  bool overdue(KernelId peer, Time now) const;

  // --- FileLeases::Pairs
  void look_at(KernelId peer) override { look(peer); }
  bool may_grant(KernelId peer) override;
  void granted(KernelId peer) override { pairs_[peer.value].lease.extend(clock_.now()); }
  Time over(KernelId peer) const override { return pairs_[peer.value].lease.over(); }
  void fence(KernelId peer) override;

  void on_read(KernelId from, const Read& m, message::ReplyToken<ReadReply> reply);
  void on_write(message::Incoming& in, const Write& m, message::ReplyToken<Written> reply);
  void on_seek(KernelId from, const Seek& m, message::ReplyToken<Sought> reply);
  void on_hold(message::Incoming& in, const Hold& m, message::ReplyToken<Held> reply);
  Result<Dropped> on_drop(KernelId from, const Drop& m);
  Result<Renewed> on_renew(KernelId from);

  message::Messenger& messenger_;
  const Clock&
      clock_;  // a lease is counted from when it is answered, not from the turn's beginning
  u32 generations_;
  u32 waiting_ = 0;
  std::size_t size_ = 0;
  std::vector<u32> away_;      // slots whose place is recalling or orphaned
  std::deque<Entry> entries_;  // they stay where they are
  std::vector<u32> free_;
  std::vector<Pair> pairs_;
  std::vector<std::unique_ptr<Operation>> spare_;
  std::deque<Unsent> unsent_;  // read, and no room to lend it
  std::move_only_function<void(Handle)> ended_;
  Counters counters_;
  FileLeases file_leases_;
};

}  // namespace cob::descriptor
