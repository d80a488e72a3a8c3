// CablePlace: a path at which two cobs meet for a cable, of different users or containers too.
// Model: a listening Unix socket: who finds nobody there makes it, who finds one connects, and each
// keeps its part: the maker takes one at a time, the other calls again when it lost the maker.
// Whoever can reach the path can plug in. Owned by the supervisor's single thread; never blocks.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"

namespace cob::cli {

class CablePlace {
 public:
  static constexpr Duration retry = Duration::seconds(1);

  // EINVAL: too long a path. EADDRINUSE: something there is no cable's socket. Others: of bind(2).
  static Result<CablePlace> create(std::string path);
  CablePlace(CablePlace&&) = default;
  ~CablePlace();  // takes the path away if it is ours

  bool is_maker() const { return listener_.valid(); }
  FdRef listener() const { return listener_.ref(); }
  const std::string& path() const { return path_; }

  // The next who came, as maker. EAGAIN: nobody.
  Result<Fd> accept() const;
  // Calls, as the other. EAGAIN, ECONNREFUSED, ENOENT: not now.
  Result<Fd> call();

 private:
  explicit CablePlace(std::string path) : path_(std::move(path)) {}
  Result<void> make();

  std::string path_;
  Fd listener_;
  Fd called_;  // by create(): the first call()
};

}  // namespace cob::cli
