// A wire between two network interfaces that loses, duplicates, reorders, delays and paces frames,
// each way from a seed of its own: for tests and for docs/impaired.txt, as no netem is needed.
//   wire END END [--seed N] [--loss PPM] [--duplicate PPM] [--reorder PPM] [--corrupt PPM]
//        [--reorder-us US] [--delay-us US] [--rate BYTES_PER_SECOND] [--queue-us US]
// END is tap:NAME (made here, gone with the wire) or packet:NAME (AF_PACKET; Linux itself shall be
// silent there), each with @PID: in the network namespace of that process.
// Model: an end is a Device that only sends, inside a FaultDevice; what is read at one end is
// committed to the other's. Prints "ready", carries until its input ends, and prints what it did.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "net/snap_bean/fault.h"

namespace cob::net {
namespace {

constexpr std::size_t longest_frame = 4'096;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "wire: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

void enter(const std::string& path) {
  const Fd name_space(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!name_space.valid() || ::setns(name_space.get(), CLONE_NEWNET) != 0) fail(path);
}

Fd open_tap(const std::string& name) {
  Fd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI);
  if (!fd.valid() || ::ioctl(fd.get(), TUNSETIFF, &request) != 0) fail("tap:" + name);
  return fd;
}

Fd open_packet(const std::string& name) {
  Fd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(name.c_str()));
  const int room = 32 << 20, on = 1;
  if (!fd.valid() || ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0 ||
      ::setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0 ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    fail("packet:" + name);
  return fd;
}

Fd open_end(std::string end) {
  const auto at = end.find('@');
  if (at != std::string::npos) enter("/proc/" + end.substr(at + 1) + "/ns/net");
  end.resize(std::min(at, end.size()));
  const auto colon = end.find(':');
  const std::string name = colon == std::string::npos ? "" : end.substr(colon + 1);
  Fd fd = end.starts_with("packet:") ? open_packet(name) : open_tap(name);
  if (at != std::string::npos) enter("/proc/self/task/" + std::to_string(::getpid()) + "/ns/net");
  return fd;
}

class End final : public Device {
 public:
  explicit End(Fd fd) : fd_(std::move(fd)) {}

  std::size_t max_frame_bytes(Route) const override { return longest_frame; }
  bool skips_checksums(Route) const override { return false; }
  std::span<std::byte> reserve(Route, std::size_t bytes) override {
    return std::span(frame_).first(bytes);
  }
  bool commit(std::size_t bytes, FrameFlags) override {
    if (::write(fd_.get(), frame_.data(), bytes) < 0) ++refused_;
    return true;
  }
  void flush() override {}
  std::size_t poll(std::size_t budget, FrameSink& sink) override {
    for (std::size_t taken = 0; taken < budget; ++taken) {
      const auto bytes = ::read(fd_.get(), frame_.data(), frame_.size());
      if (bytes <= 0) return taken;
      sink.on_frame(std::span(frame_).first(static_cast<std::size_t>(bytes)), {}, {});
    }
    return budget;
  }
  FdRef wait_fd() const override { return fd_.ref(); }
  u64 dropped_out() const override { return refused_; }

 private:
  Fd fd_;
  u64 refused_ = 0;
  std::array<std::byte, longest_frame> frame_;
};

class Across final : public FrameSink {
 public:
  explicit Across(FaultDevice& far) : far_(far) {}
  void on_frame(std::span<const std::byte> frame, Route, FrameFlags) override {
    const auto room = far_.reserve({}, frame.size());
    std::ranges::copy(frame, room.begin());
    far_.commit(frame.size(), {});
  }

 private:
  FaultDevice& far_;
};

FaultOptions options_of(int argc, char** argv) {
  FaultOptions options;
  for (int i = 3; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const u64 value = std::strtoull(argv[i + 1], nullptr, 10);
    const auto us = Duration::microseconds(static_cast<i64>(value));
    const auto ppm = static_cast<u32>(value);
    if (name == "--seed")
      options.seed = value;
    else if (name == "--loss")
      options.loss_ppm = ppm;
    else if (name == "--duplicate")
      options.duplicate_ppm = ppm;
    else if (name == "--reorder")
      options.reorder_ppm = ppm;
    else if (name == "--corrupt")
      options.corrupt_ppm = ppm;
    else if (name == "--reorder-us")
      options.reorder_window = us;
    else if (name == "--delay-us")
      options.delay = us;
    else if (name == "--rate")
      options.bytes_per_second = value;
    else if (name == "--queue-us")
      options.queue = us;
    else
      errno = EINVAL, fail(name);
  }
  return options;
}

void carry(End& near, End& far, FaultDevice& to_near, FaultDevice& to_far) {
  Across from_near(to_far), from_far(to_near);
  std::array<pollfd, 3> waits{{{near.wait_fd().get(), POLLIN, 0},
                               {far.wait_fd().get(), POLLIN, 0},
                               {STDIN_FILENO, POLLIN, 0}}};
  while (waits[2].revents == 0) {
    const Time due = std::min(to_near.next_release(), to_far.next_release());
    const i64 ns =
        due == Time::never() ? 1'000'000'000 : std::max<i64>(0, (due - HostClock::read()).ns);
    const timespec wait{ns / 1'000'000'000, ns % 1'000'000'000};
    ::ppoll(waits.data(), waits.size(), &wait, nullptr);
    near.poll(64, from_near);
    far.poll(64, from_far);
    to_far.flush();
    to_near.flush();
  }
}

void print(const char* name, const FaultDevice& way) {
  const auto& c = way.counters();
  std::printf(
      "%s sent=%llu lost=%llu duplicated=%llu reordered=%llu corrupted=%llu "
      "queue_full=%llu refused=%llu\n",
      name, static_cast<unsigned long long>(c.sent), static_cast<unsigned long long>(c.lost),
      static_cast<unsigned long long>(c.duplicated), static_cast<unsigned long long>(c.reordered),
      static_cast<unsigned long long>(c.corrupted), static_cast<unsigned long long>(c.queue_full),
      static_cast<unsigned long long>(way.dropped_out()));
}

int wire_main(int argc, char** argv) {
  if (argc < 3 || argc % 2 == 0) {
    std::fputs("wire END END [OPTION VALUE]...: see its source\n", stderr);
    return 2;
  }
  ::prctl(PR_SET_TIMERSLACK, 1);
  FaultOptions options = options_of(argc, argv);
  const HostClock clock;
  End near(open_end(argv[1])), far(open_end(argv[2]));
  FaultDevice to_far(far, clock, options);
  options.seed = ~options.seed;
  FaultDevice to_near(near, clock, options);
  std::puts("ready");
  std::fflush(stdout);
  carry(near, far, to_near, to_far);
  print("there", to_far);
  print("back", to_near);
  return 0;
}

}  // namespace
}  // namespace cob::net

int main(int argc, char** argv) { return cob::net::wire_main(argc, argv); }
