// What is done in a share for somebody: opening, and the calls by name. open(2), renameat2(2) ...
// Model: plain calls in the order that the host's own have, so that errors come out as the host's;
// they may wait for storage: run on a worker that has its asker's credentials and umask. Values.
#pragma once

#include <memory>
#include <string>

#include "fs/protocol.h"
#include "fs/resolver.h"

namespace cob::fs {

struct Share {
  Fd root;  // O_PATH
  bool read_only = false;
  Waits waits;
};

// Where a request's path begins.
struct Start {
  std::shared_ptr<const Share> share;
  std::shared_ptr<const Fd>
      held;  // an open directory, or with an empty path anything; may be empty
  Resolver resolver() const {
    return {share->root.ref(), held != nullptr ? held->ref() : share->root.ref()};
  }
};

struct OpenWanted {
  Start start;
  std::string path;
  u32 flags = 0;  // open_flags.h; known
  u32 mode = 0;
};
struct OpenOutcome {
  Result<Fd> fd = Error::of(ECANCELED, "not begun");
  Status status{};
  std::string outside;  // with EXDEV: where to go on
};
// `cached`: rather than wait it says EAGAIN.
OpenOutcome open_in_share(const OpenWanted& wanted, bool cached);

struct NameWanted {
  Start start;
  Start second_start;
  std::string path;
  std::string second;
  std::string value;
  NameCall call{};
  u32 flags = 0;
  u32 mode = 0;
  u32 uid = 0;
  u32 gid = 0;
  u64 number = 0;
};
struct NameOutcome {
  Result<u64> number = Error::of(ECANCELED, "not begun");
  std::string value;
  std::string outside;
  bool second = false;  // `outside` is the second path's
};
NameOutcome call_in_share(const NameWanted& wanted, bool cached);
// Calls that can say EAGAIN rather than wait.
constexpr bool may_be_cached(NameCall call) {
  return call == NameCall::status || call == NameCall::access || call == NameCall::name;
}

}  // namespace cob::fs
