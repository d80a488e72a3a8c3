// Names, locks and credentials; see meeting_place.h. unix(7), SO_PEERCRED in socket(7).
// Model: a name decides nothing but where to look; who answers is checked.
// The kernel's loop.
#include "message/meeting_place.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace cob::message {

namespace {

struct Address {
  sockaddr_un socket{};
  socklen_t length = 0;
};

Result<Address> address_of(const std::string& place, KernelId kernel) {
  std::string path = place + "/" + std::to_string(kernel.value);
  Address made;
  made.socket.sun_family = AF_UNIX;
  if (path.size() >= sizeof made.socket.sun_path)
    return Error::of(ENAMETOOLONG, "name of a meeting place");
  if (path[0] == '@') path[0] = '\0';
  std::memcpy(made.socket.sun_path, path.data(), path.size());
  made.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  return made;
}

Result<Fd> new_socket() {
  Fd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made.valid()) return Error::from_errno("socket");
  return made;
}

Result<void> check_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return Error::from_errno("making a meeting place");
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return Error::from_errno("stat of a meeting place");
  if (!S_ISDIR(status.st_mode)) return Error::of(ENOTDIR, "a meeting place is a directory");
  if (status.st_uid != ::geteuid() || (status.st_mode & 077) != 0)
    return Error::of(EACCES, "meeting place is another user's, or open to others");
  return {};
}

}  // namespace

Result<MeetingPlace> MeetingPlace::open(std::string name) {
  if (name.size() < 2 || (name[0] != '@' && name[0] != '/'))
    return Error::of(EINVAL, "a meeting place is /a/directory or @name");
  if (name[0] == '/') TRY(check_directory(name));
  MeetingPlace place;
  place.name_ = std::move(name);
  return place;
}

Result<Fd> MeetingPlace::listen(KernelId self) {
  const Address address = TRY(address_of(name_, self));
  Fd listener = TRY(new_socket());
  if (name_[0] == '/') {
    const std::string path = address.socket.sun_path;
    lock_ = Fd(::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock_.valid()) return Error::from_errno("the lock of a meeting place");
    if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0)
      return Error::of(EADDRINUSE, "a living process has this kernel's number");
    (void)::unlink(path.c_str());
  }
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address.socket), address.length) !=
      0)
    return Error::from_errno("bind to a meeting place");
  if (::listen(listener.get(), SOMAXCONN) != 0) return Error::from_errno("listen");
  return listener;
}

Result<Fd> MeetingPlace::call(KernelId peer) const {
  const Address address = TRY(address_of(name_, peer));
  Fd socket = TRY(new_socket());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.socket), address.length) !=
      0) {
    if (errno == ENOENT) return Error::of(ECONNREFUSED, "no such kernel yet");
    return Error::from_errno("connect to a meeting place");
  }
  TRY(check_owner(socket.ref()));
  return socket;
}

Result<void> check_owner(FdRef socket) {
  ucred owner{};
  socklen_t length = sizeof owner;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &owner, &length) != 0)
    return Error::from_errno("SO_PEERCRED");
  if (owner.uid != ::geteuid()) return Error::of(EACCES, "peer is another user's process");
  return {};
}

Result<Fd> accept_one(FdRef listener) {
  Fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) return Error::from_errno("accept");
  TRY(check_owner(socket.ref()));
  return socket;
}

}  // namespace cob::message
