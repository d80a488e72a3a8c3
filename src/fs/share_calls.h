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
  u64 device = 0;  // the root's, as Status has it
};

// Where a request's path begins.
struct Start {
  std::shared_ptr<const Share> share;
  // An open directory, or with an empty path anything; may be invalid. Somebody else's until
  // keep().
  FdRef held = {};
  std::shared_ptr<const Fd> kept = {};

  FdRef base() const { return held.valid() ? held : share->root.ref(); }
  Resolver resolver() const { return {share->root.ref(), base()}; }
  // From now on `held` may be closed.
  Result<void> keep();
};

struct OpenWanted {
  Start start;
  std::string path;
  u32 flags = 0;  // open_flags.h; known
  u32 mode = 0;
};
struct OpenOutcome {
  Result<Fd> fd = Error::of(ECANCELED, "not begun");
  int host_flags = 0;        // as F_GETFL would tell them
  bool nonblocking = false;  // O_NONBLOCK is set, and is not wanted: by a file, which does not care
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
  bool in_memory =
      false;  // `path`, a moment ago: it is a single name, and to look at it waits for nothing
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
  Fd used;              // of a `cached` one: closing it can wait until it is answered
};
NameOutcome call_in_share(const NameWanted& wanted, bool cached);
// Calls that can say EAGAIN rather than wait.
constexpr bool may_be_cached(NameCall call) {
  return call == NameCall::status || call == NameCall::access || call == NameCall::name;
}

}  // namespace cob::fs
