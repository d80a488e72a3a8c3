// Filesystems that `cob bench files` compares with: a directory served by a program and mounted at
// a directory of its own until the Mount goes. Nothing is cached in them (attributes, names,
// pages), for nothing is in what they are compared with. Used by the measuring command's only
// thread. fuse(4), sshfs(1), sftp-server(8).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bench/child.h"
#include "bench/options.h"

namespace cob::bench {

class Mount {
 public:
  // By cob-bench-passthrough, on `core`.
  static Outcome<Mount> passthrough(const Options& options, const std::string& source, int core,
                                    Interrupts& interrupts);
  // By `cob mount` of the cob's only share, on the core of its kernel `kernel`.
  static Outcome<Mount> of_cob(const Options& options, const std::string& cob, int kernel, int core,
                               Interrupts& interrupts);
  // By sshfs and an sftp-server of its own, without ssh between them: nothing is encrypted.
  static Outcome<Mount> sshfs(const std::string& source, int core, Interrupts& interrupts);
  Mount(Mount&&) = default;
  Mount& operator=(Mount&&) = delete;
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  ~Mount();
  std::string path() const { return folder_->path() + "/mount"; }

 private:
  Mount() : folder_(std::make_unique<TemporaryDirectory>()) {}
  Outcome<Mount> serve(std::vector<std::string> argv, int core, Interrupts& interrupts);
  bool mounted() const;
  std::unique_ptr<TemporaryDirectory> folder_;
  Child server_;
};

}  // namespace cob::bench
