// Dialing and accepting. See unix_stream.h.
// Model: a full backlog is an error of dial(), as of a TCP connection that is refused.
// The kernel's loop.
#include "message/socket/unix_stream.h"

namespace cob::message {

Result<std::unique_ptr<ByteStream>> UnixDialer::dial() {
  return std::unique_ptr<ByteStream>(std::make_unique<PlainStream>(TRY(connect_socket(to_))));
}

Result<std::unique_ptr<UnixAcceptor>> UnixAcceptor::listen(const SocketAddress& at) {
  return std::unique_ptr<UnixAcceptor>(new UnixAcceptor(TRY(listen_socket(at))));
}

std::unique_ptr<ByteStream> UnixAcceptor::accept() {
  Fd fd = accept_socket(fd_.ref());
  if (!fd.valid()) return nullptr;
  return std::make_unique<PlainStream>(StreamSocket(std::move(fd), false));
}

}  // namespace cob::message
