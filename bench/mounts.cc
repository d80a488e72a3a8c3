// Starting and ending what mounts.h names.
#include "bench/mounts.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "bench/place.h"

namespace cob::bench {

namespace {

constexpr const char* sftp_server = "/usr/lib/openssh/sftp-server";
constexpr double mounted_within = 10;  // seconds

}  // namespace

Outcome<Mount> Mount::passthrough(const Options& options, const std::string& source, int core,
                                  Interrupts& interrupts) {
  const std::string program = helper_program(options, "cob-bench-passthrough");
  if (program.empty())
    return Outcome<Mount>::failed(
        "cob-bench-passthrough is missing: it is built with libfuse3-dev");
  Mount mount;
  return mount.serve({program, "-f", "-o", "source=" + source, mount.path()}, core, interrupts);
}

Outcome<Mount> Mount::of_cob(const Options& options, const std::string& cob, int kernel, int core,
                             Interrupts& interrupts) {
  Mount mount;
  return mount.serve({options.cob, "mount", "--name", cob, "--foreground", "-k",
                      std::to_string(kernel), mount.path()},
                     core, interrupts);
}

Outcome<Mount> Mount::sshfs(const std::string& source, int core, Interrupts& interrupts) {
  const std::string program = find_program("sshfs");
  if (program.empty()) return Outcome<Mount>::failed("sshfs is missing: apt-get install sshfs");
  if (::access(sftp_server, X_OK) != 0)
    return Outcome<Mount>::failed(
        fmt::format("{} is missing: apt-get install openssh-sftp-server", sftp_server));
  Mount mount;
  // Instead of ssh, whose arguments it does not look at.
  const std::string straight = mount.folder_->path() + "/straight";
  if (!write_text(straight, fmt::format("#!/bin/sh\nexec {}\n", sftp_server)) ||
      ::chmod(straight.c_str(), 0755) != 0)
    return Outcome<Mount>::failed("cannot write " + straight);
  return mount.serve({program, "-f", "-o", "ssh_command=" + straight, "-o",
                      "dir_cache=no,direct_io,attr_timeout=0,entry_timeout=0",
                      "localhost:" + source, mount.path()},
                     core, interrupts);
}

Outcome<Mount> Mount::serve(std::vector<std::string> argv, int core, Interrupts& interrupts) {
  const std::string output = folder_->path() + "/output";
  std::error_code failed;
  std::filesystem::create_directory(path(), failed);
  auto server = Child::spawn({.argv = std::move(argv), .core = core, .output = output});
  if (!server) return Outcome<Mount>::failed(server.why());
  server_ = std::move(*server);
  for (const double end = now_seconds() + mounted_within; now_seconds() < end;) {
    if (mounted()) return Outcome<Mount>(std::move(*this));
    if (interrupts.seen()) return Outcome<Mount>::failed("interrupted");
    const auto status = server_.wait(0.02, interrupts);
    if (status) return Outcome<Mount>::failed("it has ended: " + read_text(output));
  }
  return Outcome<Mount>::failed("it mounts nothing: " + read_text(output));
}

bool Mount::mounted() const {
  struct stat own{}, outside{};
  return ::stat(path().c_str(), &own) == 0 && ::stat(folder_->path().c_str(), &outside) == 0 &&
         own.st_dev != outside.st_dev;
}

Mount::~Mount() {
  if (folder_ == nullptr) return;
  if (mounted()) {
    auto end = Child::spawn({.argv = {find_program("fusermount3"), "-u", "-z", path()}});
    if (end) end->finish(5);
  }
  server_.end();
}

}  // namespace cob::bench
