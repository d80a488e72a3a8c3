// Peer: Cap'n Proto RPC over a Unix socket pair.
// A round trip is a call with the bytes as argument and result; the stream is calls declared
// `-> stream`, which the library keeps in flight by its own flow control. Both ends poll their
// event loop without sleeping. One thread a process. capnproto.org/cxxrpc.html
#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include "bench/peers/peer.h"
#include "capnproto.capnp.h"

namespace cob::peers {
namespace {

u64 read(capnp::Data::Reader message, const Settings& settings) {
  require(message.size() == settings.size, "a message of another size");
  return read_stamp(message.begin(), message.size());
}

class PeerServer final : public Peer::Server {
 public:
  explicit PeerServer(const Settings& settings) : settings_(settings), meter_(settings) {}

 protected:
  kj::Promise<void> ping(PingContext context) override {
    const u64 number = read(context.getParams().getMessage(), settings_);
    auto results = context.getResults(capnp::MessageSize{settings_.size / 8 + 16, 0});
    stamp(results.initMessage(static_cast<unsigned>(settings_.size)).begin(), settings_.size,
          number);
    return kj::READY_NOW;
  }
  kj::Promise<void> push(PushContext context) override {
    meter_.count(read(context.getParams().getMessage(), settings_));
    return kj::READY_NOW;
  }

 private:
  const Settings& settings_;
  Meter meter_;
};

// Waits by polling.
template <typename T>
auto wait(T promise, kj::WaitScope& scope) {
  while (!promise.poll(scope)) {
  }
  return promise.wait(scope);
}

void drive_calls(const Settings& settings, FdRef link) {
  auto io = kj::setupAsyncIo();
  auto socket = io.lowLevelProvider->wrapSocketFd(link.get());
  capnp::TwoPartyClient client(*socket);
  Peer::Client peer = client.bootstrap().castAs<Peer>();
  const auto size = static_cast<unsigned>(settings.size);
  const capnp::MessageSize hint{settings.size / 8 + 16, 0};
  const auto ping = [&](u64 number) {
    auto request = peer.pingRequest(hint);
    stamp(request.initMessage(size).begin(), size, number);
    return read(wait(request.send(), io.waitScope).getMessage(), settings);
  };
  measure_round_trips(settings, ping);
  stream(settings, [&](u64 number) {
    auto request = peer.pushRequest(hint);
    stamp(request.initMessage(size).begin(), size, number);
    wait(request.send(), io.waitScope);
  });
  require(ping(last) == last, "the stream was not acknowledged");
  part(link, true);
}

void answer_calls(const Settings& settings, FdRef link) {
  auto io = kj::setupAsyncIo();
  auto socket = io.lowLevelProvider->wrapSocketFd(link.get());
  capnp::TwoPartyServer server(kj::heap<PeerServer>(settings));
  auto accepted = server.accept(*socket);
  // Until the driver, which has its last reply, closes.
  while (!accepted.poll(io.waitScope)) {
  }
}

}  // namespace
}  // namespace cob::peers

int main(int argc, char** argv) {
  using namespace cob::peers;
  const Settings settings = parse(argc, argv);
  if (settings.size > std::size_t{48} << 20) unsupported("its readers stop at 64 MiB a message");
  return run_pair(settings, drive_calls, answer_calls);
}
