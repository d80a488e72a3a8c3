// What `cob mount` mounted on this host, as the host tells it: mountinfo's filesystems of type
// fuse.cob whose source begins with the cob's name. proc_pid_mountinfo(5). Throws Failure. Any
// thread.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cob::cli {

struct Mounted {
  std::string directory;  // absolute
  std::string type;       // fuse.cob
  std::string source;     // NAME:DIRECTORY of the share
  uid_t user = 0;         // who mounted it
};

inline constexpr std::string_view mount_type = "fuse.cob";

// The lines of a mountinfo; those that cannot be read are left out.
std::vector<Mounted> read_mountinfo(std::string_view text);
// Of this host: what is mounted there, the topmost; nullopt: nothing.
std::optional<Mounted> mounted_at(const std::string& directory);
// This user's, of the cob; the last one first.
std::vector<Mounted> mounts_of(const std::string& name);
// At once, whoever uses it: what is open is answered until the server ends. Failure: the host
// refuses.
void unmount(const Mounted& mounted);

}  // namespace cob::cli
