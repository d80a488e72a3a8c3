// StreamSocket: a connected or connecting stream socket that never waits; addresses; listening.
// Model: bytes in, bytes out, why it closed. socket(7), tcp(7), unix(7). Owned by a ByteStream.
#pragma once

#include <sys/socket.h>

#include <span>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace cob::message {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  // "127.0.0.1:7000" or "[::1]:7000"; numbers alone, nothing is looked up.
  static Result<SocketAddress> ip(std::string_view text);
  // A path, or with '@' in front a name without a file.
  static Result<SocketAddress> local(std::string_view path);
};

class StreamSocket {
 public:
  // `connecting`: established() tells when it is connected.
  StreamSocket(Fd fd, bool connecting) : fd_(std::move(fd)), connecting_(connecting) {}

  // ECONNREFUSED and the like close it. Nothing before it is connected.
  bool established();
  // Bytes received or sent; an error or the end closes.
  std::size_t receive(std::span<std::byte> into);
  std::size_t send(std::span<const std::byte> from);
  void close(const Error& why) {
    if (error_.code == 0) error_ = why;
  }
  bool closed() const { return error_.code != 0; }
  Error why_closed() const { return error_; }
  FdRef descriptor() const { return fd_.ref(); }

 private:
  Fd fd_;
  Error error_;
  bool connecting_;
};

// TCP sockets get TCP_NODELAY and a bounded send buffer.
Result<StreamSocket> connect_socket(const SocketAddress& to);
Result<Fd> listen_socket(const SocketAddress& at);
// An invalid Fd: nobody waits.
Fd accept_socket(FdRef listener);
// Where a listening socket listens.
Result<SocketAddress> address_of(FdRef fd);

}  // namespace cob::message
