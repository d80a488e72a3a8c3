// Peer: Boost.Interprocess, a message_queue in each direction.
// Its queue is a mutex, two condition variables and a heap of fixed slots in named shared memory.
// Both ends spin with try_send() and try_receive(), pausing between: a wait for its conditions
// would sleep. One thread a process.
#include <unistd.h>

#include <algorithm>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <cstdlib>

#include "bench/peers/peer.h"

namespace cob::peers {
namespace {

namespace ipc = boost::interprocess;

class QueueEnd {
 public:
  QueueEnd(const Settings& settings, FdRef link, bool driver)
      : size_(settings.size), out_(size_), in_(size_) {
    if (driver) {
      const std::vector<char> name = receive_blob(link);
      name_ = name.data();
      to_ = open(name_ + "-there");
      from_ = open(name_ + "-back");
      // Both processes have them: the names may go.
      ipc::message_queue::remove((name_ + "-there").c_str());
      ipc::message_queue::remove((name_ + "-back").c_str());
    } else {
      name_ = "cob-peer-boost-" + std::to_string(::getpid());
      from_ = create(name_ + "-there", settings.window());
      to_ = create(name_ + "-back", settings.window());
      send_blob(link, name_.c_str(), name_.size() + 1);
    }
  }

  void send(u64 number) {
    stamp(out_.data(), size_, number);
    while (!to_->try_send(out_.data(), size_, 0)) rest();
  }
  void post(u64 number) { send(number); }
  void flush() {}

  u64 receive() {
    std::size_t got = 0;
    unsigned priority = 0;
    while (!from_->try_receive(in_.data(), size_, got, priority)) rest();
    require(got == size_, "a message of another size");
    return read_stamp(in_.data(), size_);
  }

 private:
  // Leaves the mutex to the other end for a moment: faster than to try again at once.
  static void rest() {
    for (int i = 0; i < 20; ++i) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#else
      __asm__ volatile("" ::: "memory");
#endif
    }
  }

  using Queue = std::unique_ptr<ipc::message_queue>;
  Queue create(const std::string& name, std::size_t messages) const try {
    return std::make_unique<ipc::message_queue>(ipc::create_only, name.c_str(), messages, size_);
  } catch (const std::exception& error) {
    fail("message_queue: " + std::string(error.what()));
  }
  static Queue open(const std::string& name) try {
    return std::make_unique<ipc::message_queue>(ipc::open_only, name.c_str());
  } catch (const std::exception& error) {
    fail("message_queue: " + std::string(error.what()));
  }

  std::size_t size_;
  std::vector<char> out_;
  std::vector<char> in_;
  std::string name_;
  Queue to_;
  Queue from_;
};

}  // namespace
}  // namespace cob::peers

int main(int argc, char** argv) { return cob::peers::run_ends<cob::peers::QueueEnd>(argc, argv); }
