// The raw calls, in the order in which the rights to make them last. setresuid(2), setgroups(2).
#include "fs/credentials.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace cob::fs {
namespace {

constexpr u32 same = ~u32{0};

bool set_uid(u32 uid) { return ::syscall(SYS_setresuid, same, uid, same) == 0; }
bool set_gid(u32 gid) { return ::syscall(SYS_setresgid, same, gid, same) == 0; }
bool set_groups(const std::vector<u32>& groups) {
  return ::syscall(SYS_setgroups, groups.size(), groups.data()) == 0;
}

}  // namespace

Credentials Credentials::own() {
  Credentials own{.uid = ::geteuid(), .gid = ::getegid(), .groups = {}};
  const int count = ::getgroups(0, nullptr);
  if (count > 0) {
    own.groups.resize(static_cast<std::size_t>(count));
    VERIFY(::getgroups(count, own.groups.data()) == count);
  }
  own.normalize();
  return own;
}

void Credentials::normalize() {
  std::sort(groups.begin(), groups.end());
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
}

Result<void> ThreadCredentials::take(const Credentials& wanted) {
  if (wanted == now_) return {};
  restore();
  if (wanted == own_) return {};
  // From here on `now_` says what may have to be undone.
  const bool taken = [&] {
    if (wanted.groups != own_.groups && !set_groups(wanted.groups)) return false;
    now_.groups = wanted.groups;
    if (wanted.gid != own_.gid && !set_gid(wanted.gid)) return false;
    now_.gid = wanted.gid;
    if (wanted.uid != own_.uid && !set_uid(wanted.uid)) return false;
    now_.uid = wanted.uid;
    return true;
  }();
  if (taken) return {};
  restore();
  return Error::of(EACCES, "this kernel may not act for that user");
}

void ThreadCredentials::restore() {
  // A thread that cannot return must not go on under somebody else's name.
  if (now_.uid != own_.uid) VERIFY(set_uid(own_.uid));
  if (now_.gid != own_.gid) VERIFY(set_gid(own_.gid));
  if (now_.groups != own_.groups) VERIFY(set_groups(own_.groups));
  now_ = own_;
}

}  // namespace cob::fs
