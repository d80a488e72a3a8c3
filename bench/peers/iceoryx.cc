// Peer: Eclipse iceoryx 2.0, a publisher and a subscriber in each direction.
// Messages are written and read in place, in chunks of RouDi's shared memory; the subscriber polls
// hasData(), and a publisher waits for a slow one. RouDi, its daemon, is started and ended here:
// its names are fixed, so nobody else's may run where this runs. iceoryx.io
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iceoryx_hoofs/log/logmanager.hpp>
#include <iceoryx_posh/popo/untyped_publisher.hpp>
#include <iceoryx_posh/popo/untyped_subscriber.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>

#include "bench/peers/peer.h"

namespace cob::peers {
namespace {

// iceoryx's own default, its most, unless that were a gigabyte.
std::size_t capacity(const Settings& settings) {
  return settings.size > 65'536 ? settings.window() : iox::popo::SubscriberOptions().queueCapacity;
}

// One pool of chunks of this size: a window in each direction, and what ends hold meanwhile.
class RouDi {
 public:
  explicit RouDi(const Settings& settings) : config_(socket_path("roudi.toml")) {
    std::ofstream(config_) << "[general]\nversion = 1\n[[segment]]\n[[segment.mempool]]\nsize = "
                           << (settings.size + 7) / 8 * 8
                           << "\ncount = " << 2 * capacity(settings) + 32 << "\n";
    starter_ = ::getpid();
    pid_ = ::fork();
    require(pid_ >= 0, "fork");
    if (pid_ > 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::execlp("iox-roudi", "iox-roudi", "-c", config_.c_str(), "-l", "off", nullptr);
    fail("iox-roudi cannot be run (package iceoryx)");
  }
  RouDi(const RouDi&) = delete;
  RouDi& operator=(const RouDi&) = delete;
  ~RouDi() {
    if (::getpid() != starter_) return;  // in the answerer, a copy
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
    ::unlink(config_.c_str());
  }

 private:
  std::string config_;
  pid_t starter_ = -1;
  pid_t pid_ = -1;
};

class IceoryxEnd {
 public:
  IceoryxEnd(const Settings& settings, FdRef /*link*/, bool driver)
      : size_(static_cast<u32>(settings.size)),
        publisher_(channel(driver), publisher_options()),
        subscriber_(channel(!driver), subscriber_options(settings)) {
    while (subscriber_.getSubscriptionState() != iox::SubscribeState::SUBSCRIBED ||
           !publisher_.hasSubscribers()) {
      ::usleep(1'000);
    }
  }

  void send(u64 number) {
    auto loan = publisher_.loan(size_);
    require(!loan.has_error(), "no chunk to loan");
    stamp(loan.value(), size_, number);
    publisher_.publish(loan.value());
  }
  void post(u64 number) { send(number); }
  void flush() {}

  u64 receive() {
    while (!subscriber_.hasData()) {
    }
    auto taken = subscriber_.take();
    require(!taken.has_error(), "no message to take");
    const u64 number = read_stamp(taken.value(), size_);
    subscriber_.release(taken.value());
    return number;
  }

 private:
  static iox::capro::ServiceDescription channel(bool to_answerer) {
    if (to_answerer) return {"cob", "peer", "there"};
    return {"cob", "peer", "back"};
  }
  static iox::popo::PublisherOptions publisher_options() {
    iox::popo::PublisherOptions options;
    options.subscriberTooSlowPolicy = iox::popo::ConsumerTooSlowPolicy::WAIT_FOR_CONSUMER;
    return options;
  }
  static iox::popo::SubscriberOptions subscriber_options(const Settings& settings) {
    iox::popo::SubscriberOptions options;
    options.queueCapacity = capacity(settings);
    options.queueFullPolicy = iox::popo::QueueFullPolicy::BLOCK_PRODUCER;
    return options;
  }

  u32 size_;
  iox::popo::UntypedPublisher publisher_;
  iox::popo::UntypedSubscriber subscriber_;
};

int run(const Settings& settings) {
  iox::log::LogManager::GetLogManager().SetDefaultLogLevel(iox::log::LogLevel::kOff);
  // Static, like the runtime, and older: it ends RouDi after the runtime has taken its leave.
  static const RouDi roudi(settings);
  return run_pair(
      settings,
      [](const Settings& same, FdRef link) {
        iox::runtime::PoshRuntime::initRuntime("cob-peer-driver");
        IceoryxEnd end(same, link, true);
        drive(same, end);
        part(link, true);
      },
      [](const Settings& same, FdRef link) {
        iox::runtime::PoshRuntime::initRuntime("cob-peer-answerer");
        {
          IceoryxEnd end(same, link, false);
          answer(same, end);
          part(link, false);
        }
        std::exit(0);  // not run_pair()'s _exit(2): see above
      });
}

}  // namespace
}  // namespace cob::peers

int main(int argc, char** argv) { return cob::peers::run(cob::peers::parse(argc, argv)); }
