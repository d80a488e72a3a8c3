// As whom a program asks other islands for files. unix(7), proc_pid_status(5).
#pragma once

#include <array>
#include <string_view>

#include "base/fd.h"
#include "fs/credentials.h"

namespace cob::kernel {

// Those of the process `pid`, if whoever made the program's liveness socket may become that user:
// a program says itself which process it is. Else those that its socket was made with, without
// supplementary groups.
fs::Credentials credentials_of(FdRef liveness, u32 pid);

// The user's and group's effective numbers for files, and the groups, of a /proc/PID/status. False:
// it says no such thing. `may_be`: all four user numbers.
bool read_credentials(std::string_view status, fs::Credentials& into, std::array<u32, 4>& may_be);
// Those of the user and group, with the supplementary groups of the process or thread `pid` if it
// is theirs still; else without.
fs::Credentials credentials_of_other(u32 uid, u32 gid, u32 pid);
// Of a process or thread; false: there is none.
bool credentials_of_process(u32 pid, fs::Credentials& into, std::array<u32, 4>& may_be);

}  // namespace cob::kernel
