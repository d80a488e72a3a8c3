// Peer: nng, a pair of sockets (pair0) over ipc.
// nng moves messages with threads of its own: see README.md for where they run. A message is filled
// in the buffer that is sent and read in the buffer that came. nng_ipc(7), nng_pair(7)
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <unistd.h>

#include <algorithm>

#include "bench/peers/peer.h"

namespace cob::peers {
namespace {

void check(int status, const char* what) {
  if (status != 0) fail(std::string(what) + ": " + nng_strerror(status));
}

class NngEnd {
 public:
  NngEnd(const Settings& settings, FdRef link, bool driver) : size_(settings.size) {
    check(nng_pair0_open(&socket_), "nng_pair0_open");
    const auto window = static_cast<int>(settings.window());
    check(nng_socket_set_int(socket_, NNG_OPT_SENDBUF, window), NNG_OPT_SENDBUF);
    check(nng_socket_set_int(socket_, NNG_OPT_RECVBUF, window), NNG_OPT_RECVBUF);
    check(nng_socket_set_size(socket_, NNG_OPT_RECVMAXSZ, size_), NNG_OPT_RECVMAXSZ);
    if (driver) {
      const std::vector<char> address = receive_blob(link);
      check(nng_dial(socket_, address.data(), nullptr, 0), "nng_dial");
    } else {
      path_ = socket_path("nng");
      const std::string address = "ipc://" + path_;
      check(nng_listen(socket_, address.c_str(), nullptr, 0), "nng_listen");
      send_blob(link, address.c_str(), address.size() + 1);
    }
  }
  NngEnd(const NngEnd&) = delete;
  NngEnd& operator=(const NngEnd&) = delete;
  ~NngEnd() {
    nng_close(socket_);
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  void send(u64 number) {
    nng_msg* message = nullptr;
    check(nng_msg_alloc(&message, size_), "nng_msg_alloc");
    stamp(nng_msg_body(message), size_, number);
    check(nng_sendmsg(socket_, message, 0), "nng_sendmsg");
  }
  void post(u64 number) { send(number); }
  void flush() {}  // its threads do

  u64 receive() {
    nng_msg* message = nullptr;
    check(nng_recvmsg(socket_, &message, 0), "nng_recvmsg");
    require(nng_msg_len(message) == size_, "a message of another size");
    const u64 number = read_stamp(nng_msg_body(message), size_);
    nng_msg_free(message);
    return number;
  }

 private:
  std::size_t size_;
  nng_socket socket_{};
  std::string path_;  // of the end that listens
};

}  // namespace
}  // namespace cob::peers

int main(int argc, char** argv) { return cob::peers::run_ends<cob::peers::NngEnd>(argc, argv); }
