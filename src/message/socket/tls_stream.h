// TlsStream: a ByteStream over TCP under TLS 1.3 with a key that both sides have: no certificates,
// no tickets, no early data, fresh keys by X25519. RFC 8446, 2.2 and 4.2.11.
// Model: OpenSSL between two buffers of ours: one recv() fills the one, one send() empties the
// other, however many TLS records they hold. The kernel's loop.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "message/socket/byte_stream.h"
#include "message/socket/stream_socket.h"

// OpenSSL's, so that its headers stay out of ours.
struct ssl_st;
struct ssl_ctx_st;
struct ssl_session_st;
struct evp_md_st;
struct bio_st;
struct bio_method_st;

namespace cob::message {

struct TlsOptions {
  std::string cob_name;            // part of the identity, with the kernel's number
  std::array<u8, 32> key{};        // whoever has it may claim any kernel's number
  u64 records_per_key = 1U << 22;  // then it is updated: RFC 8446, 5.5 asks for it below 2^24.5
};

// Settings of all streams of one kernel.
class TlsContext {
 public:
  static Result<std::shared_ptr<TlsContext>> create(KernelId self, TlsOptions options);
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  ~TlsContext();

 private:
  friend class TlsStream;

  TlsContext(KernelId self, TlsOptions options);
  static int use_session(ssl_st*, const evp_md_st*, const unsigned char**, std::size_t*,
                         ssl_session_st**);
  static int find_session(ssl_st*, const unsigned char*, std::size_t, ssl_session_st**);
  // The pre-shared key in OpenSSL's dress; nullptr if there is no memory.
  ssl_session_st* make_session(ssl_st* ssl) const;

  TlsOptions options_;
  std::string identity_;
  ssl_ctx_st* context_ = nullptr;
  bio_method_st* method_ = nullptr;
};

class TlsStream final : public ByteStream {
 public:
  enum class Side { dialing, accepting };

  TlsStream(std::shared_ptr<TlsContext> context, StreamSocket socket, Side side);
  ~TlsStream() override;

  State advance() override;
  std::size_t read(std::span<std::byte> into) override;
  std::size_t write(std::span<const std::byte> from) override;
  void flush() override;
  State state() const override { return state_; }
  Error why_closed() const override { return error_; }
  std::optional<KernelId> peer() const override { return peer_; }
  FdRef descriptor() const override { return socket_.descriptor(); }
  u64 key_updates() const { return key_updates_; }  // of what we write

 private:
  friend class TlsContext;

  static int bio_read(bio_st* bio, char* to, int bytes);
  static int bio_write(bio_st* bio, const char* from, int bytes);
  static long bio_control(bio_st* bio, int command, long number, void* pointer);

  void shake_hands();
  // Fills received_ by one recv(), if it is empty. False: nothing came.
  bool receive();
  void close(const Error& why);
  void close_as_openssl_says(int result);  // of a call that did not succeed

  std::shared_ptr<TlsContext> context_;
  StreamSocket socket_;
  ssl_st* ssl_ = nullptr;
  State state_ = State::opening;
  Error error_;
  std::optional<KernelId> peer_;
  u64 records_ = 0;  // written under the present key
  u64 key_updates_ = 0;
  u64 handshake_bytes_ = 0;
  bool drained_ = false;  // the last recv() got less than it asked for
  std::size_t received_begin_ = 0, received_end_ = 0;
  std::unique_ptr<std::byte[]> received_;  // ciphertext
  std::size_t sent_ = 0;                   // of to_send_
  std::vector<std::byte> to_send_;         // ciphertext
};

class TlsDialer final : public StreamDialer {
 public:
  TlsDialer(std::shared_ptr<TlsContext> context, const SocketAddress& to)
      : context_(std::move(context)), to_(to) {}
  Result<std::unique_ptr<ByteStream>> dial() override;

 private:
  std::shared_ptr<TlsContext> context_;
  SocketAddress to_;
};

class TlsAcceptor final : public StreamAcceptor {
 public:
  static Result<std::unique_ptr<TlsAcceptor>> listen(std::shared_ptr<TlsContext> context,
                                                     const SocketAddress& at);
  // `listening`: a socket that does, and does not block.
  TlsAcceptor(std::shared_ptr<TlsContext> context, Fd listening)
      : context_(std::move(context)), fd_(std::move(listening)) {}
  std::unique_ptr<ByteStream> accept() override;
  FdRef descriptor() const override { return fd_.ref(); }

 private:
  std::shared_ptr<TlsContext> context_;
  Fd fd_;
};

}  // namespace cob::message
