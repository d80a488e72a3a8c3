// Names: the storing island's side of names: shares, and who asks for what in them.
// docs/descriptors.md, 7.
// Model: requests are checked; what the host can tell without waiting is asked on the loop, if the
// asker's credentials are the kernel's own; the rest is done by a worker as its asker. What was
// opened is given to the home. Owned by the kernel's loop; ends before its Messenger, and the Ring
// is not polled after its end.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

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
  void answer(OpenToken& token, OpenOutcome& outcome, const Who& who);
  void answer(NameToken& token, NameOutcome& outcome);

  Parts parts_;
  Counters counters_;
  std::map<u32, std::shared_ptr<const Share>> shares_;
  std::map<u16, std::vector<Told>> told_;  // by the asker's numbers
};

}  // namespace cob::fs
