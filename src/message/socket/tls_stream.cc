// TLS: the context's settings, the key's callbacks, records in and out.
// See tls_stream.h, SSL_CTX_set_psk_use_session_callback(3). The kernel's loop.
#include "message/socket/tls_stream.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace cob::message {

namespace {

constexpr std::size_t receive_bytes = std::size_t{128} * 1024;
constexpr std::size_t most_to_send = std::size_t{128} * 1024;  // then write() takes no more
constexpr std::size_t record_bytes = SSL3_RT_MAX_PLAIN_LENGTH;
constexpr u64 most_handshake_bytes = 16'384;  // received before the other side has proven anything

bool has_aes() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("aes") != 0;
#elif defined(__aarch64__)
  return (::getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#else
  return false;
#endif
}

const char* suites() {
  return has_aes() ? "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
                   : "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
}

// SSL_get_error() judges by what lies in the thread's queue. Emptying it is slower than looking.
void forget_errors() {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

std::string identity_of(std::string_view cob_name, KernelId kernel) {
  return std::string(cob_name) + '/' + std::to_string(kernel.value);
}

}  // namespace

TlsContext::TlsContext(KernelId self, TlsOptions options)
    : options_(std::move(options)), identity_(identity_of(options_.cob_name, self)) {}

TlsContext::~TlsContext() {
  SSL_CTX_free(context_);
  BIO_meth_free(method_);
  OPENSSL_cleanse(options_.key.data(), options_.key.size());
}

Result<std::shared_ptr<TlsContext>> TlsContext::create(KernelId self, TlsOptions options) {
  if (options.cob_name.empty() || options.cob_name.size() > 64)
    return Error::of(EINVAL, "a cob's name has 1 to 64 bytes");
  std::shared_ptr<TlsContext> made(new TlsContext(self, std::move(options)));
  SSL_CTX* context = made->context_ = SSL_CTX_new(TLS_method());
  BIO_METHOD* method = made->method_ = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "cob stream");
  const bool right = context != nullptr && method != nullptr &&
                     SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
                     SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
                     SSL_CTX_set_ciphersuites(context, suites()) == 1 &&
                     SSL_CTX_set1_groups_list(context, "X25519") == 1 &&
                     SSL_CTX_set_num_tickets(context, 0) == 1;
  if (!right) return Error::of(ENOTSUP, "OpenSSL does not offer TLS 1.3 as it is needed");
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_psk_use_session_callback(context, use_session);
  SSL_CTX_set_psk_find_session_callback(context, find_session);
  SSL_CTX_set_app_data(context, made.get());
  BIO_meth_set_read(method, TlsStream::bio_read);
  BIO_meth_set_write(method, TlsStream::bio_write);
  BIO_meth_set_ctrl(method, TlsStream::bio_control);
  return made;
}

SSL_SESSION* TlsContext::make_session(SSL* ssl) const {
  constexpr std::array<unsigned char, 2> aes_128_gcm_sha256{0x13, 0x01};  // RFC 8446, B.4
  SSL_SESSION* session = SSL_SESSION_new();
  const SSL_CIPHER* cipher = SSL_CIPHER_find(ssl, aes_128_gcm_sha256.data());
  if (session != nullptr && cipher != nullptr &&
      SSL_SESSION_set1_master_key(session, options_.key.data(), options_.key.size()) == 1 &&
      SSL_SESSION_set_cipher(session, cipher) == 1 &&
      SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
    return session;
  SSL_SESSION_free(session);
  return nullptr;
}

// Client. `digest`: that of the suite chosen, in a second ClientHello.
int TlsContext::use_session(SSL* ssl, const EVP_MD* digest, const unsigned char** id,
                            std::size_t* id_bytes, SSL_SESSION** session) {
  const auto* self = static_cast<const TlsContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  *session = nullptr;
  if (digest != nullptr && EVP_MD_get_type(digest) != NID_sha256) return 1;
  *session = self->make_session(ssl);
  *id = reinterpret_cast<const unsigned char*>(self->identity_.data());
  *id_bytes = self->identity_.size();
  return *session != nullptr ? 1 : 0;
}

// Server. No session: the identity is not one of this cob's, and the handshake fails.
int TlsContext::find_session(SSL* ssl, const unsigned char* id, std::size_t id_bytes,
                             SSL_SESSION** session) {
  const auto* self = static_cast<const TlsContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  *session = nullptr;
  const std::string_view said(reinterpret_cast<const char*>(id), id_bytes);
  const std::size_t slash = said.rfind('/');
  if (slash == std::string_view::npos || said.substr(0, slash) != self->options_.cob_name) return 1;
  u16 number = 0;
  const char* const end = said.data() + said.size();
  const auto parsed = std::from_chars(said.data() + slash + 1, end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return 1;
  static_cast<TlsStream*>(SSL_get_app_data(ssl))->peer_ = KernelId(number);
  *session = self->make_session(ssl);
  return *session != nullptr ? 1 : 0;
}

TlsStream::TlsStream(std::shared_ptr<TlsContext> context, StreamSocket socket, Side side)
    : context_(std::move(context)),
      socket_(std::move(socket)),
      ssl_(SSL_new(context_->context_)),
      received_(new std::byte[receive_bytes]) {
  BIO* bio = BIO_new(context_->method_);
  if (ssl_ == nullptr || bio == nullptr) {
    BIO_free(bio);
    close(Error::of(ENOMEM, "OpenSSL has no memory"));
    return;
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_app_data(ssl_, this);
  if (side == Side::dialing) {
    SSL_set_verify(ssl_, SSL_VERIFY_PEER, nullptr);  // a certificate proves nothing here
    SSL_set_connect_state(ssl_);
  } else {
    SSL_set_accept_state(ssl_);
  }
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

int TlsStream::bio_read(BIO* bio, char* to, int bytes) {
  auto& self = *static_cast<TlsStream*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  const std::size_t n =
      std::min(static_cast<std::size_t>(bytes), self.received_end_ - self.received_begin_);
  if (n == 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  std::memcpy(to, self.received_.get() + self.received_begin_, n);
  self.received_begin_ += n;
  return static_cast<int>(n);
}

// Takes all: how much there may be is write()'s business.
int TlsStream::bio_write(BIO* bio, const char* from, int bytes) {
  auto& self = *static_cast<TlsStream*>(BIO_get_data(bio));
  const auto* begin = reinterpret_cast<const std::byte*>(from);
  self.to_send_.insert(self.to_send_.end(), begin, begin + bytes);
  return bytes;
}

long TlsStream::bio_control(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

void TlsStream::close(const Error& why) {
  if (state_ == State::closed) return;
  state_ = State::closed;
  error_ = why;
}

void TlsStream::close_as_openssl_says(int result) {
  const int error = SSL_get_error(ssl_, result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return;
  ERR_clear_error();
  if (error == SSL_ERROR_ZERO_RETURN) {
    close(Error::of(ECONNRESET, "connection has ended"));
  } else if (state_ == State::opening) {
    close(Error::of(EACCES, "TLS handshake failed: another key, or none"));
  } else {
    close(Error::of(EPROTO, "broken TLS record"));
  }
}

bool TlsStream::receive() {
  if (received_begin_ < received_end_) return true;
  received_begin_ = received_end_ = 0;
  const std::size_t n = socket_.receive({received_.get(), receive_bytes});
  received_end_ = n;
  drained_ = n < receive_bytes;
  if (socket_.closed()) close(socket_.why_closed());
  return n > 0;
}

ByteStream::State TlsStream::advance() {
  if (state_ == State::opening && socket_.established()) shake_hands();
  if (socket_.closed()) close(socket_.why_closed());
  return state_;
}

void TlsStream::shake_hands() {
  while (state_ == State::opening) {
    forget_errors();
    const int result = SSL_do_handshake(ssl_);
    if (result == 1) {
      const bool proven = SSL_session_reused(ssl_) == 1;  // by the pre-shared key
      state_ = State::open;
      if (!proven) close(Error::of(EACCES, "peer has not proven that it has the key"));
    } else {
      close_as_openssl_says(result);
    }
    flush();  // an alert, too
    if (state_ != State::opening) return;
    const std::size_t had = received_end_ - received_begin_;
    if (!receive()) return;
    if (had == 0) handshake_bytes_ += received_end_;
    if (handshake_bytes_ > most_handshake_bytes)
      close(Error::of(EMSGSIZE, "too much before the handshake's end"));
  }
}

std::size_t TlsStream::read(std::span<std::byte> into) {
  std::size_t done = 0;
  drained_ = false;
  while (state_ == State::open && done < into.size()) {
    if (received_begin_ == received_end_ && SSL_pending(ssl_) == 0 && (drained_ || !receive()))
      break;
    const int asked = static_cast<int>(std::min<std::size_t>(into.size() - done, 1U << 30));
    forget_errors();
    const int n = SSL_read(ssl_, into.data() + done, asked);
    if (n > 0) {
      done += static_cast<std::size_t>(n);
      continue;
    }
    close_as_openssl_says(n);
  }
  return done;
}

std::size_t TlsStream::write(std::span<const std::byte> from) {
  std::size_t done = 0;
  while (state_ == State::open && done < from.size()) {
    if (to_send_.size() - sent_ >= most_to_send) {
      flush();
      if (to_send_.size() - sent_ >= most_to_send) break;
    }
    if (++records_ == context_->options_.records_per_key) {
      records_ = 0;
      // Goes before the next record.
      key_updates_ += SSL_key_update(ssl_, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 ? 1 : 0;
    }
    const int bytes = static_cast<int>(std::min(from.size() - done, record_bytes));
    forget_errors();
    const int n = SSL_write(ssl_, from.data() + done, bytes);
    if (n <= 0) {
      close_as_openssl_says(n);
      break;
    }
    done += static_cast<std::size_t>(n);
  }
  return done;
}

void TlsStream::flush() {
  if (sent_ == to_send_.size()) return;
  sent_ += socket_.send(std::span(to_send_).subspan(sent_));
  if (socket_.closed()) close(socket_.why_closed());
  if (sent_ == to_send_.size()) {
    to_send_.clear();
    sent_ = 0;
  } else if (sent_ >= most_to_send) {
    to_send_.erase(to_send_.begin(), to_send_.begin() + static_cast<std::ptrdiff_t>(sent_));
    sent_ = 0;
  }
}

Result<std::unique_ptr<ByteStream>> TlsDialer::dial() {
  return std::unique_ptr<ByteStream>(
      std::make_unique<TlsStream>(context_, TRY(connect_socket(to_)), TlsStream::Side::dialing));
}

Result<std::unique_ptr<TlsAcceptor>> TlsAcceptor::listen(std::shared_ptr<TlsContext> context,
                                                         const SocketAddress& at) {
  return std::unique_ptr<TlsAcceptor>(new TlsAcceptor(std::move(context), TRY(listen_socket(at))));
}

std::unique_ptr<ByteStream> TlsAcceptor::accept() {
  Fd fd = accept_socket(fd_.ref());
  if (!fd.valid()) return nullptr;
  return std::make_unique<TlsStream>(context_, StreamSocket(std::move(fd), false),
                                     TlsStream::Side::accepting);
}

}  // namespace cob::message
