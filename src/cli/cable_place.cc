// Meeting at a path; see cable_place.h. unix(7), connect(2), bind(2).
#include "cli/cable_place.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace cob::cli {
namespace {

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<Fd> new_socket() {
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return Error::from_errno("socket");
  return socket;
}

}  // namespace

Result<CablePlace> CablePlace::create(std::string path) {
  if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path))
    return Error::of(EINVAL, "the path of a Unix socket has 1 to 107 bytes");
  CablePlace place(std::move(path));
  for (int attempt = 0; attempt < 3; ++attempt) {
    auto called = place.call();
    if (!called.is_error()) place.called_ = called.release_value();
    if (!called.is_error() || called.error().code == EAGAIN) return place;
    struct stat status{};
    if (called.error().code == ECONNREFUSED && ::lstat(place.path_.c_str(), &status) == 0) {
      if (!S_ISSOCK(status.st_mode)) return Error::of(EADDRINUSE, "the place is no socket");
      ::unlink(place.path_.c_str());  // its maker is dead
    } else if (called.error().code != ENOENT && called.error().code != ECONNREFUSED) {
      return called.error();
    }
    const auto made = place.make();
    if (!made.is_error()) return place;
    if (made.error().code != EADDRINUSE) return made.error();  // another was quicker
  }
  return Error::of(EADDRINUSE, "others make and leave the place all the time");
}

CablePlace::~CablePlace() {
  if (listener_.valid()) ::unlink(path_.c_str());
}

Result<void> CablePlace::make() {
  Fd socket = TRY(new_socket());
  const sockaddr_un address = address_of(path_);
  const mode_t old_mask = ::umask(0111);  // others may connect: the directory says who
  const int bound =
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const Error error = Error::from_errno("bind the cable's place");
  ::umask(old_mask);
  if (bound != 0) return error;
  if (::listen(socket.get(), 1) != 0) return Error::from_errno("listen at the cable's place");
  listener_ = std::move(socket);
  return {};
}

Result<Fd> CablePlace::accept() const {
  Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) return Error::from_errno("accept4 at the cable's place");
  return socket;
}

Result<Fd> CablePlace::call() {
  if (called_.valid()) return std::move(called_);
  Fd socket = TRY(new_socket());
  const sockaddr_un address = address_of(path_);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return Error::from_errno("connect to the cable's place");
  return socket;
}

}  // namespace cob::cli
