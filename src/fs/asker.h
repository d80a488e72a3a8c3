// Asker: the side of names that asks: paths in a share of another island. docs/descriptors.md, 7.
// Model: one for a kernel; every call is one request to the share's entry and ends in `then`, once;
// what a program may wait for (EAGAIN) and where a path leads out are the caller's. Owned by the
// kernel's loop; ends after its Messenger has dropped its continuations.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/credentials.h"
#include "fs/protocol.h"
#include "message/messenger.h"

namespace cob::fs {

class Asker {
 public:
  // Where a path begins: a share by its entry and number, or a directory of it that is open.
  struct Base {
    KernelId entry;
    u32 share = 0;
    descriptor::Handle directory;  // none: the share's root
  };
  // As whom. `number`: who_number()'s.
  struct As {
    u32 number = 0;
    u16 umask = 022;
  };
  // `outside` not empty: nothing was done; it is the path to go on with, absolute or behind the
  // share's root, on the asker's own tree, at most max_links times.
  struct OpenedFile {
    Opened opened;
    std::string outside;
  };
  struct Answer {
    u64 number = 0;
    std::string value;
    std::string outside;
    bool second = false;  // the second path leads out
  };
  using OpenThen = std::move_only_function<void(Result<OpenedFile>)>;
  using Then = std::move_only_function<void(Result<Answer>)>;
  struct NameRequest {
    NameCall call{};
    std::string_view path = {};
    std::string_view second = {};
    std::string_view value = {};
    Base second_base = {};  // of rename and link
    u32 flags = 0;
    u32 mode = 0;
    u32 uid = ~u32{0};
    u32 gid = ~u32{0};
    u64 number = 0;
  };

  // Makes the types known: before the Messenger's first link.
  explicit Asker(message::Messenger& messenger);
  Asker(const Asker&) = delete;
  Asker& operator=(const Asker&) = delete;

  // The number by which these credentials are named from now on. ENOBUFS: max_credentials differ;
  // E2BIG: more than max_groups.
  Result<u32> who_number(const Credentials& credentials);
  // The session with `peer` has ended: it is told them anew.
  void peer_down(KernelId peer) { told_.erase(peer.value); }

  // `flags`: open_flags.h's. ENAMETOOLONG, E2BIG, ENETDOWN, EAGAIN (no room, try again) come from
  // the call itself, and `then` is dropped; all else goes to `then`.
  Result<void> open(const Base& base, const As& as, std::string_view path, u32 flags, u32 mode,
                    OpenThen then);
  Result<void> call(const Base& base, const As& as, const NameRequest& request, Then then);

 private:
  Result<void> tell(KernelId entry, u32 number);

  message::Messenger& messenger_;
  std::vector<Credentials> numbers_;
  std::map<u16, std::vector<bool>> told_;  // by entry, then number
};

}  // namespace cob::fs
