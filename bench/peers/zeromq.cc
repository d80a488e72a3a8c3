// Peer: ZeroMQ, a PAIR of sockets over ipc.
// ZeroMQ has one I/O thread a process, which by default runs beside ours: see README.md for where.
// A message is filled in the buffer that is sent and read in the buffer that came. zmq_ipc(7)
#include <unistd.h>
#include <zmq.h>

#include <cerrno>

#include "bench/peers/peer.h"

namespace cob::peers {
namespace {

void check(bool good, const char* what) {
  if (!good) fail(std::string(what) + ": " + zmq_strerror(zmq_errno()));
}

class ZeroMqEnd {
 public:
  ZeroMqEnd(const Settings& settings, FdRef link, bool driver)
      : size_(settings.size), context_(zmq_ctx_new()), socket_(zmq_socket(context_, ZMQ_PAIR)) {
    check(socket_ != nullptr, "zmq_socket");
    // The default, 1,000 messages, unless that were a gigabyte.
    const int high_water = settings.size > 65'536 ? static_cast<int>(settings.window()) : 1'000;
    zmq_setsockopt(socket_, ZMQ_SNDHWM, &high_water, sizeof high_water);
    zmq_setsockopt(socket_, ZMQ_RCVHWM, &high_water, sizeof high_water);
    if (driver) {
      const std::vector<char> address = receive_blob(link);
      check(zmq_connect(socket_, address.data()) == 0, "zmq_connect");
    } else {
      path_ = socket_path("zeromq");
      const std::string address = "ipc://" + path_;
      check(zmq_bind(socket_, address.c_str()) == 0, "zmq_bind");
      send_blob(link, address.c_str(), address.size() + 1);
    }
  }
  ZeroMqEnd(const ZeroMqEnd&) = delete;
  ZeroMqEnd& operator=(const ZeroMqEnd&) = delete;
  ~ZeroMqEnd() {
    zmq_close(socket_);
    zmq_ctx_term(context_);
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  void send(u64 number) {
    zmq_msg_t message;
    check(zmq_msg_init_size(&message, size_) == 0, "zmq_msg_init_size");
    stamp(zmq_msg_data(&message), size_, number);
    check(zmq_msg_send(&message, socket_, 0) >= 0, "zmq_msg_send");
  }
  void post(u64 number) { send(number); }
  void flush() {}  // its I/O thread does

  u64 receive() {
    zmq_msg_t message;
    zmq_msg_init(&message);
    check(zmq_msg_recv(&message, socket_, 0) >= 0, "zmq_msg_recv");
    require(zmq_msg_size(&message) == size_, "a message of another size");
    const u64 number = read_stamp(zmq_msg_data(&message), size_);
    zmq_msg_close(&message);
    return number;
  }

 private:
  std::size_t size_;
  void* context_;
  void* socket_;
  std::string path_;  // of the end that bound it
};

}  // namespace
}  // namespace cob::peers

int main(int argc, char** argv) { return cob::peers::run_ends<cob::peers::ZeroMqEnd>(argc, argv); }
