// Names: the storing island's side of names: shares, and who asks for what in them.
// docs/descriptors.md, 7.
// Model: requests are checked; what the host can tell without waiting is asked on the loop, if the
// asker's credentials are the kernel's own; the rest is done by a worker as its asker. What was
// opened is given to the home. Each call of the host is a third of what an answer takes, so what
// can be known without one is, and what need not be done before the answer is done after it, by
// poll(). Owned by the kernel's loop; ends before its Messenger, and the Ring is not polled after
// its end.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "fs/host_object.h"
#include "fs/share_calls.h"
#include "message/messenger.h"

namespace cob::fs {

class Names {
 public:
  struct Adoption {
    descriptor::Handle handle;
    descriptor::Grant grant;
    u64 file_lease = 0;
  };
  // The home takes the object for `holder`. An error is the answer to the open.
  using Adopter = std::move_only_function<Result<Adoption>(std::unique_ptr<HostObject> object,
                                                           KernelId holder)>;
  // The object of a handle that `holder` holds, or nullptr.
  using Finder = std::move_only_function<HostObject*(descriptor::Handle, KernelId holder)>;
  struct Parts {
    message::Messenger& messenger;
    Ring& ring;
    KernelId self;
    Adopter adopt;
    Finder find;
    const Clock* clock = nullptr;  // none: no name is remembered
  };
  struct Counters {
    u64 opens = 0, calls = 0;  // asked for
    u64 at_once = 0;           // of both: answered without waiting
    u64 refused = 0;           // requests that no honest asker sends
  };

  // Registers its handlers: before the Messenger's first link.
  explicit Names(Parts parts);
  Names(const Names&) = delete;
  Names& operator=(const Names&) = delete;

  // What is under way in a share goes on after its removal. EEXIST, ENOTDIR.
  Result<void> add_share(u32 number, const std::string& path, bool read_only);
  void remove_share(u32 number) { shares_.erase(number); }
  // The session with `peer` has ended: what it told is forgotten.
  void peer_down(KernelId peer) { told_.erase(peer.value); }
  // Each turn, behind the Messenger's.
  void poll() { used_.clear(); }

  const Counters& counters() const { return counters_; }

 private:
  struct Told {
    Who who;
    bool known = false;
    bool refused = false;  // the kernel may not act for them
  };
  using OpenToken = message::ReplyToken<Opened>;
  using NameToken = message::ReplyToken<Named>;

  void take_credentials(message::Incoming& incoming, const TellCredentials& told);
  void open(message::Incoming& incoming, const Open& request, OpenToken token);
  void call(message::Incoming& incoming, const Name& request, NameToken token);
  // EINVAL: never told; EACCES.
  Result<Who> who_of(KernelId from, u32 number) const;
  // ENODEV: no such share; EBADF: a handle not held.
  Result<Start> start_of(KernelId from, const Place& place, std::string_view path);
  Result<Start> start_at_passed(KernelId from, const Place& place, std::string_view path);
  void refuse(message::AnyReplyToken& token, int code);
  void answer(OpenToken& token, const Start& start, OpenOutcome& outcome, const Who& who);
  void answer(NameToken& token, NameOutcome& outcome);

  // Single names that were found in the host's memory a moment ago: looking at one again does not
  // wait. Where two fall on one place the later one stays.
  class Remembered {
   public:
    static constexpr Duration moment = Duration::milliseconds(100);
    static u64 key(const Place& place, std::string_view name);
    bool has(u64 key, Time now) const {
      const Entry& entry = entries_[key % entries_.size()];
      return entry.key == key && now - entry.since <= moment;
    }
    void add(u64 key, Time now) { entries_[key % entries_.size()] = {key, now}; }

   private:
    struct Entry {
      u64 key = 0;
      Time since;
    };
    std::array<Entry, 1'024> entries_{};
  };

  Parts parts_;
  Remembered remembered_;
  static constexpr std::size_t max_used = 64;  // then they are closed at once
  std::vector<Fd> used_;                       // to be closed
  Counters counters_;
  std::map<u32, std::shared_ptr<const Share>> shares_;
  std::map<u16, std::vector<Told>> told_;  // by the asker's numbers
};

}  // namespace cob::fs
