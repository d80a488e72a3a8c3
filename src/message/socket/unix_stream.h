// ByteStreams over Unix sockets, for tests and kernels of one machine: who may connect is the
// file's business. Model: nothing between the socket and the reader. unix(7). The kernel's loop.
#pragma once

#include "message/socket/byte_stream.h"
#include "message/socket/stream_socket.h"

namespace cob::message {

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(StreamSocket socket) : socket_(std::move(socket)) {}

  State advance() override {
    (void)(open_ || (open_ = socket_.established()));
    return state();
  }
  std::size_t read(std::span<std::byte> into) override { return socket_.receive(into); }
  std::size_t write(std::span<const std::byte> from) override { return socket_.send(from); }
  void flush() override {}
  State state() const override {
    return socket_.closed() ? State::closed : open_ ? State::open : State::opening;
  }
  Error why_closed() const override { return socket_.why_closed(); }
  std::optional<KernelId> peer() const override { return std::nullopt; }
  FdRef descriptor() const override { return socket_.descriptor(); }

 private:
  StreamSocket socket_;
  bool open_ = false;
};

class UnixDialer final : public StreamDialer {
 public:
  explicit UnixDialer(const SocketAddress& to) : to_(to) {}
  Result<std::unique_ptr<ByteStream>> dial() override;

 private:
  SocketAddress to_;
};

class UnixAcceptor final : public StreamAcceptor {
 public:
  static Result<std::unique_ptr<UnixAcceptor>> listen(const SocketAddress& at);
  std::unique_ptr<ByteStream> accept() override;
  FdRef descriptor() const override { return fd_.ref(); }

 private:
  explicit UnixAcceptor(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace cob::message
