// Sockets: options, and errors as they come.
// See stream_socket.h. The kernel's loop.
#include "message/socket/stream_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/un.h>

#include <array>
#include <charconv>
#include <cstddef>
#include <cstring>

#include "message/socket/byte_stream.h"

namespace cob::message {

namespace {

// What an urgent message has to wait for at most behind bulk that the host has already taken.
constexpr int send_buffer_bytes = 1 << 20;

void set_up(FdRef fd) {
  const int on = 1;
  (void)::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof(int));
}

template <typename T>
SocketAddress stored(const T& address, socklen_t length) {
  SocketAddress result;
  std::memcpy(&result.storage, &address, sizeof address);
  result.length = length;
  return result;
}

const sockaddr* plain(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr*>(&address.storage);
}

}  // namespace

Result<SocketAddress> SocketAddress::ip(std::string_view text) {
  const Error error = Error::of(EINVAL, "not an address of the form 127.0.0.1:7000 or [::1]:7000");
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return error;
  std::string_view host = text.substr(0, colon);
  u16 port = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
  if (parsed.ec != std::errc() || parsed.ptr != end) return error;
  const bool six = host.front() == '[' && host.back() == ']';
  if (six) host = host.substr(1, host.size() - 2);
  std::array<char, INET6_ADDRSTRLEN> zero_ended{};
  if (host.size() >= zero_ended.size()) return error;
  std::memcpy(zero_ended.data(), host.data(), host.size());
  if (six) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    if (::inet_pton(AF_INET6, zero_ended.data(), &address.sin6_addr) != 1) return error;
    return stored(address, sizeof address);
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (::inet_pton(AF_INET, zero_ended.data(), &address.sin_addr) != 1) return error;
  return stored(address, sizeof address);
}

Result<SocketAddress> SocketAddress::local(std::string_view path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return Error::of(ENAMETOOLONG, "path of a Unix socket");
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path.front() == '@') address.sun_path[0] = '\0';
  return stored(address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size()));
}

bool StreamSocket::established() {
  if (closed()) return false;
  if (!connecting_) return true;
  int error = 0;
  socklen_t length = sizeof error;
  (void)::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) {
    close(Error::of(error, "connect"));
    return false;
  }
  sockaddr_storage peer;
  length = sizeof peer;
  connecting_ = ::getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&peer), &length) != 0;
  return !connecting_;
}

std::size_t StreamSocket::receive(std::span<std::byte> into) {
  if (closed() || into.empty()) return 0;
  const ssize_t n = ::recv(fd_.get(), into.data(), into.size(), MSG_DONTWAIT);
  if (n > 0) return static_cast<std::size_t>(n);
  if (n == 0) {
    close(Error::of(ECONNRESET, "connection has ended"));
  } else if (errno != EAGAIN && errno != EINTR) {
    close(Error::from_errno("recv"));
  }
  return 0;
}

std::size_t StreamSocket::send(std::span<const std::byte> from) {
  if (closed() || from.empty()) return 0;
  const ssize_t n = ::send(fd_.get(), from.data(), from.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n >= 0) return static_cast<std::size_t>(n);
  if (errno != EAGAIN && errno != EINTR) close(Error::from_errno("send"));
  return 0;
}

Result<StreamSocket> connect_socket(const SocketAddress& to) {
  Fd fd(::socket(to.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Error::from_errno("socket");
  set_up(fd.ref());
  const bool connected = ::connect(fd.get(), plain(to), to.length) == 0;
  if (!connected && errno != EINPROGRESS) return Error::from_errno("connect");
  return StreamSocket(std::move(fd), !connected);
}

Result<Fd> listen_socket(const SocketAddress& at) {
  Fd fd(::socket(at.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return Error::from_errno("socket");
  const int on = 1;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), plain(at), at.length) != 0) return Error::from_errno("bind");
  if (::listen(fd.get(), SOMAXCONN) != 0) return Error::from_errno("listen");
  return fd;
}

Fd accept_socket(FdRef listener) {
  Fd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd.valid()) set_up(fd.ref());
  return fd;
}

Result<SocketAddress> address_of(FdRef fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0)
    return Error::from_errno("getsockname");
  return address;
}

Result<void> watch_edges(FdRef epoll, FdRef fd) {
  if (!epoll.valid() || !fd.valid()) return {};
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0 && errno != EEXIST)
    return Error::from_errno("epoll_ctl of a stream");
  return {};
}

}  // namespace cob::message
