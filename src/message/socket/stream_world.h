// For tests: kernels joined by stream transports, in a time that the test moves.
// Model: 0.2 ms go by at each step, so nothing here depends on how fast the machine is; what real
// sockets need of real time is waited for by their descriptors. Test code only.
#pragma once

#include <poll.h>

#include "message/socket/stream_transport.h"
#include "message/socket/tls_stream.h"
#include "message/socket/unix_stream.h"
#include "message/test_pair.h"

namespace cob::message::test {

inline CobId test_cob() { return {0xc0, 0xb1}; }

struct UrgentNote {
  static constexpr MessageType type{7};
  static constexpr Priority priority = Priority::urgent;
  le<u64> number;
};

// A kernel whose links are streams.
struct StreamEnd {
  u16 number;
  u32 epoch;
  std::unique_ptr<Messenger> messenger;
  std::vector<StreamTransport*> transports;
  std::vector<u64> notes;

  StreamEnd(u16 id, u16 kernels, u32 own_epoch)
      : number(id),
        epoch(own_epoch),
        messenger(Messenger::create(KernelId(id), own_epoch, kernels).release_value()),
        transports(kernels) {
    messenger->on<Note>([this](KernelId, const Note& note) { notes.push_back(note.number); });
    messenger->on<UrgentNote>([](KernelId, const UrgentNote&) {});
    messenger->on<Ask, Answer>(
        [](KernelId, const Ask& ask) -> Result<Answer> { return Answer{ask.number + 1}; });
    messenger->on<BigAsk, BigAnswer>([](KernelId, const BigAsk& ask) -> Result<BigAnswer> {
      BigAnswer answer{};
      answer.number = ask.number + 1;
      answer.bytes.fill(static_cast<u8>(ask.number));
      return answer;
    });
    messenger->on<Page>([this](KernelId, const Page& page) {
      EXPECT_EQ(page.bytes[4'095], static_cast<u8>(page.number));
      notes.push_back(page.number);
    });
  }
  Messenger* operator->() const { return messenger.get(); }

  template <typename Way>
  StreamTransport& join(u16 peer, const StreamTransportOptions& options, Way way) {
    auto made = std::make_unique<StreamTransport>(options, std::move(way));
    StreamTransport& transport = *made;
    transports[peer] = made.get();
    messenger->add_transport(KernelId(peer), std::move(made)).release_value();
    return transport;
  }
  bool up(u16 peer) const { return messenger->connected(KernelId(peer)); }
};

// Remembers what was dialed last, so that a test can shoot it.
class SpyDialer final : public StreamDialer {
 public:
  SpyDialer(std::unique_ptr<StreamDialer> dialer, int& last)
      : dialer_(std::move(dialer)), last_(last) {}
  Result<std::unique_ptr<ByteStream>> dial() override {
    auto stream = TRY(dialer_->dial());
    last_ = stream->descriptor().get();
    return stream;
  }

 private:
  std::unique_ptr<StreamDialer> dialer_;
  int& last_;
};

// Dialer 0 and listener 1 over real sockets of either kind.
enum class Kind { unix_socket, tls };

struct Pair {
  Kind kind;
  Time now{1'000'000'000};
  SocketAddress address{};
  std::shared_ptr<TlsContext> tls[2];
  std::shared_ptr<StreamListener> listener;
  std::unique_ptr<StreamEnd> end[2];
  bool stopped[2] = {false, false};
  StreamTransportOptions options{.cob = test_cob()};
  u64 seed = 0;
  int dialed = -1;  // the descriptor of the last dial

  explicit Pair(Kind of) : kind(of) {
    TlsOptions tls_options{.cob_name = "test"};
    tls_options.key.fill(7);
    tls[0] = TlsContext::create(KernelId(0), tls_options).release_value();
    tls[1] = TlsContext::create(KernelId(1), tls_options).release_value();
    start_listener(1);
    start_dialer(1);
  }
  ~Pair() {
    end[0].reset();
    end[1].reset();
  }

  void start_listener(u32 epoch) {
    end[1].reset();
    listener.reset();
    std::unique_ptr<StreamAcceptor> acceptor;
    if (kind == Kind::tls) {
      if (address.length == 0) address = SocketAddress::ip("127.0.0.1:0").release_value();
      acceptor = TlsAcceptor::listen(tls[1], address).release_value();
    } else {
      if (address.length == 0)
        address = SocketAddress::local("@cob-stream-test-" + std::to_string(::getpid()) + "-" +
                                       std::to_string(reinterpret_cast<std::uintptr_t>(this)))
                      .release_value();
      acceptor = UnixAcceptor::listen(address).release_value();
    }
    address = address_of(acceptor->descriptor()).release_value();
    listener = std::make_shared<StreamListener>(
        ListenerOptions{.cob = options.cob, .self = KernelId(1)}, std::move(acceptor));
    end[1] = std::make_unique<StreamEnd>(1, 2, epoch);
    options.seed = ++seed;
    end[1]->join(0, options, listener);
  }
  std::unique_ptr<StreamDialer> dialer() const {
    if (kind == Kind::tls) return std::make_unique<TlsDialer>(tls[0], address);
    return std::make_unique<UnixDialer>(address);
  }
  void start_dialer(u32 epoch) {
    end[0].reset();
    end[0] = std::make_unique<StreamEnd>(0, 2, epoch);
    options.seed = ++seed;
    end[0]->join(1, options,
                 std::unique_ptr<StreamDialer>(std::make_unique<SpyDialer>(dialer(), dialed)));
  }

  void step(Duration by = Duration::microseconds(200)) {
    now = now + by;
    for (int i : {0, 1}) {
      if (end[i] == nullptr || stopped[i]) continue;
      (*end[i])->poll(now, 256);
      (*end[i])->flush();
    }
  }
  // For so long, in steps of a millisecond.
  void run(Duration time) {
    for (const Time to = now + time; now < to;) step(Duration::milliseconds(1));
  }
  void shoot() const { ::shutdown(dialed, SHUT_RDWR); }
  // Steps until `done`; false after `steps`.
  template <typename Done>
  bool until(Done done, int steps = 50'000) {
    for (int i = 0; i < steps; ++i) {
      if (done()) return true;
      step();
    }
    return done();
  }
  bool both_up() const { return end[0]->up(1) && end[1]->up(0); }
  StreamTransport& transport(int i) const { return *end[i]->transports[i == 0 ? 1 : 0]; }
};

}  // namespace cob::message::test
