// RunDirectory: the private directory of one running cob: `control` (the socket), `lock` and `log`;
// nothing else. $XDG_RUNTIME_DIR/cob/NAME or /tmp/cob-UID/NAME, 0700, ownership checked. Whoever
// holds the flock on `lock` is the supervisor; a directory without a holder was left by a killed
// one and is taken over. Held by the supervisor; others only ask for paths.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/fd.h"

namespace cob::cli {

// The directory that holds all cobs of this user, without creating it.
std::string run_root();
std::string run_path(const std::string& name);

class RunDirectory {
 public:
  // Creates the directory and takes the lock. Throws Failure{exit_state}: already up (and with
  // which pid), not ours, no room.
  static RunDirectory take(const std::string& name);
  // Removes what a killed supervisor left; true if there was something and no living holder.
  static bool remove_stale(const std::string& name);

  RunDirectory(RunDirectory&&) = default;
  RunDirectory& operator=(RunDirectory&&) = default;
  ~RunDirectory() = default;  // the files stay: a parent that forks the supervisor drops its copy

  const std::string& path() const { return path_; }
  FdRef log() const { return log_.ref(); }
  std::string control_path() const { return path_ + "/control"; }
  void write_pid(pid_t pid) const;  // into `lock`, for messages
  // The log is bounded: beyond 4 MiB it begins anew.
  void trim_log() const;
  std::string log_tail(std::size_t max_bytes) const;
  void remove();  // the supervisor's last act

 private:
  RunDirectory(std::string path, Fd lock, Fd log)
      : path_(std::move(path)), lock_(std::move(lock)), log_(std::move(log)) {}

  std::string path_;
  Fd lock_;
  Fd log_;
};

}  // namespace cob::cli
