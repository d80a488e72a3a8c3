// Peer: a stream socket pair of the host, unix(7).
// Both ends spin with MSG_DONTWAIT, so that no wake-up is paid; a stream gathers a window of
// messages in one sendmsg(2), and the receiver reads what is there. One thread a process.
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

#include "bench/peers/peer.h"

namespace cob::peers {
namespace {

class SocketEnd {
 public:
  SocketEnd(const Settings& settings, FdRef link, bool /*driver*/)
      : socket_(link.get()),
        size_(settings.size),
        window_(settings.window()),
        out_(size_ * window_),
        in_(std::max(size_, std::size_t{256} << 10)),
        parts_(window_) {
    // Larger buffers help the large sizes; the host clips them to its limit.
    const int bytes = 4 << 20;
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  }

  void send(u64 number) {
    post(number);
    flush();
  }

  void post(u64 number) {
    char* message = out_.data() + size_ * posted_;
    stamp(message, size_, number);
    parts_[posted_++] = {message, size_};
    if (posted_ == window_ || number == last) flush();
  }

  void flush() {
    msghdr gather{};
    gather.msg_iov = parts_.data();
    gather.msg_iovlen = posted_;
    while (gather.msg_iovlen > 0) {
      const ssize_t sent = ::sendmsg(socket_, &gather, MSG_DONTWAIT | MSG_NOSIGNAL);
      require(sent >= 0 || errno == EAGAIN, "sendmsg");
      consume(gather, static_cast<std::size_t>(std::max<ssize_t>(sent, 0)));
    }
    posted_ = 0;
  }

  u64 receive() {
    while (filled_ - taken_ < size_) {
      if (taken_ > 0) {
        std::memmove(in_.data(), in_.data() + taken_, filled_ - taken_);
        filled_ -= taken_;
        taken_ = 0;
      }
      const ssize_t got = ::recv(socket_, in_.data() + filled_, in_.size() - filled_, MSG_DONTWAIT);
      require(got > 0 || (got < 0 && errno == EAGAIN), "recv");
      filled_ += static_cast<std::size_t>(std::max<ssize_t>(got, 0));
    }
    const u64 number = read_stamp(in_.data() + taken_, size_);
    taken_ += size_;
    return number;
  }

 private:
  static void consume(msghdr& gather, std::size_t bytes) {
    while (bytes > 0) {
      iovec& part = *gather.msg_iov;
      const std::size_t now = std::min(bytes, part.iov_len);
      part.iov_base = static_cast<char*>(part.iov_base) + now;
      part.iov_len -= now;
      bytes -= now;
      if (part.iov_len > 0) return;
      ++gather.msg_iov;
      --gather.msg_iovlen;
    }
  }

  int socket_;
  std::size_t size_;
  std::size_t window_;
  std::vector<char> out_;
  std::vector<char> in_;
  std::vector<iovec> parts_;
  std::size_t posted_ = 0;
  std::size_t filled_ = 0;
  std::size_t taken_ = 0;
};

}  // namespace
}  // namespace cob::peers

int main(int argc, char** argv) { return cob::peers::run_ends<cob::peers::SocketEnd>(argc, argv); }
