// cob-bench-call: the program that `cob bench calls` runs on a cob and on plain Linux; it does not
// know where it is.
//   nothing SECONDS CORE         round trips of cob_nothing(), exported by libcob.so; CORE -1:
//   where it was started miss ADDRESS PORT SECONDS    non-blocking recv on a connected socket that
//   has nothing echo-server ADDRESS PORT     sends back what it gets, one connection after another,
//   until it is ended echo ADDRESS PORT SECONDS    64 bytes there and back
//   udp-server ADDRESS PORT     sends back datagrams; counts those of a stream, until it is ended
//   udp-echo ADDRESS PORT SECONDS    a datagram of 64 bytes there and back
//   udp-stream ADDRESS PORT SECONDS    datagrams of 64 bytes one way, by sendmmsg and recvmmsg: the
//   time for each that arrived
// Prints "NAME MEDIAN P99 RUNS" in nanoseconds. One thread.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/types.h"
#include "bench/samples.h"

namespace {

using cob::Fd;
using cob::i64;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "cob-bench-call: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

i64 clock_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<i64>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

template <typename Operation>
void measure(const char* name, double seconds, int batch, Operation operation) {
  std::vector<double> samples;
  const i64 end = clock_ns() + static_cast<i64>(seconds * 1e9);
  while (clock_ns() < end && samples.size() < 2'000'000) {
    const i64 before = clock_ns();
    for (int i = 0; i < batch; ++i) operation();
    samples.push_back(static_cast<double>(clock_ns() - before) / batch);
  }
  samples.erase(samples.begin(),
                samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 10));
  const cob::bench::Summary summary = cob::bench::summarize(std::move(samples));
  std::printf("%s %.1f %.1f %zu\n", name, summary.median, summary.p99, summary.runs);
}

sockaddr_in endpoint(const char* address, const char* port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(static_cast<uint16_t>(std::atoi(port)));
  if (inet_pton(AF_INET, address, &at.sin_addr) != 1) die(address);
  return at;
}

Fd listen_at(const sockaddr_in& at) {
  Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) die("bind");
  if (listen(listener.get(), 16) != 0) die("listen");
  return listener;
}

// Tries for 5 seconds: the server may still be starting.
Fd connect_to(const sockaddr_in& at) {
  for (int attempt = 0; attempt < 250; ++attempt) {
    Fd connection(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(connection.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0) {
      const int on = 1;
      setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      return connection;
    }
    usleep(20'000);
  }
  die("connect");
}

void nothing(double seconds, int core) {
  // NOLINTNEXTLINE: dlsym gives an object pointer for a function by design
  const auto call = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "cob_nothing"));
  if (call == nullptr) {
    std::fprintf(stderr, "cob-bench-call: not on a cob (no cob_nothing)\n");
    std::exit(1);
  }
  if (core >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(core), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) die("sched_setaffinity");
  }
  if (call() != 0) die("cob_nothing");
  measure("nothing", seconds, 16, [call] {
    if (call() != 0) die("cob_nothing");
  });
}

void miss(const sockaddr_in& at, double seconds) {
  const Fd listener = listen_at(at);
  const Fd connection = connect_to(at);
  const Fd accepted(accept(listener.get(), nullptr, nullptr));
  if (!accepted.valid()) die("accept");
  char byte = 0;
  measure("miss", seconds, 64, [&] {
    if (recv(accepted.get(), &byte, 1, MSG_DONTWAIT) != -1 || errno != EAGAIN) die("recv");
  });
}

void echo_server(const sockaddr_in& at) {
  const Fd listener = listen_at(at);
  for (;;) {
    const Fd connection(accept(listener.get(), nullptr, nullptr));
    if (!connection.valid()) die("accept");
    const int on = 1;
    setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    char data[64];
    for (ssize_t got = 0; (got = recv(connection.get(), data, sizeof data, 0)) > 0;) {
      if (send(connection.get(), data, static_cast<size_t>(got), MSG_NOSIGNAL) != got) break;
    }
  }
}

void echo(const sockaddr_in& at, double seconds) {
  const Fd connection = connect_to(at);
  char out[64], in[64];
  unsigned turn = 0;
  measure("echo", seconds, 1, [&] {
    std::memset(out, static_cast<int>(++turn & 0xff), sizeof out);
    if (send(connection.get(), out, sizeof out, MSG_NOSIGNAL) != sizeof out) die("send");
    if (recv(connection.get(), in, sizeof in, MSG_WAITALL) != sizeof in) die("recv");
    if (std::memcmp(in, out, sizeof in) != 0) {
      std::fprintf(stderr, "cob-bench-call: the echo differs from what was sent\n");
      std::exit(1);
    }
  });
}

constexpr unsigned batch = 32;
constexpr std::size_t datagram_bytes = 64;
enum : char { udp_echoed = 'e', udp_counted = 'c', udp_asked = 'q' };

// A batch of datagrams of this first byte.
struct Batch {
  explicit Batch(char kind) {
    for (unsigned i = 0; i < batch; ++i) {
      std::memset(data[i], 0, sizeof data[i]);
      data[i][0] = kind;
      part[i] = {data[i], sizeof data[i]};
      message[i] = {};
      message[i].msg_hdr.msg_iov = &part[i];
      message[i].msg_hdr.msg_iovlen = 1;
    }
  }
  char data[batch][datagram_bytes];
  iovec part[batch];
  mmsghdr message[batch];
};

Fd datagram_socket() { return Fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)); }

void udp_server(const sockaddr_in& at) {
  const Fd fd = datagram_socket();
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) die("bind");
  Batch in('\0');
  sockaddr_in from[batch];
  cob::u64 counted = 0;
  for (;;) {
    for (unsigned i = 0; i < batch; ++i) {
      in.message[i].msg_hdr.msg_name = &from[i];
      in.message[i].msg_hdr.msg_namelen = sizeof from[i];
    }
    const int got = recvmmsg(fd.get(), in.message, batch, MSG_WAITFORONE, nullptr);
    if (got < 0) die("recvmmsg");
    for (int i = 0; i < got; ++i) {
      if (in.data[i][0] == udp_counted) {
        ++counted;
        continue;
      }
      if (in.data[i][0] == udp_asked) std::memcpy(in.data[i] + 8, &counted, sizeof counted);
      sendto(fd.get(), in.data[i], in.message[i].msg_len, 0,
             reinterpret_cast<const sockaddr*>(&from[i]), sizeof from[i]);
    }
  }
}

// Connected, and answered: the server may still be starting.
Fd udp_client(const sockaddr_in& at) {
  Fd fd = datagram_socket();
  const timeval brief{.tv_sec = 0, .tv_usec = 50'000};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) die("connect");
  for (int attempt = 0; attempt < 250; ++attempt) {
    char byte = udp_echoed;
    if (send(fd.get(), &byte, 1, 0) == 1 && recv(fd.get(), &byte, 1, 0) == 1) return fd;
    usleep(20'000);
  }
  die("no answer");
}

void udp_echo(const sockaddr_in& at, double seconds) {
  const Fd fd = udp_client(at);
  char out[datagram_bytes] = {udp_echoed}, in[datagram_bytes];
  unsigned turn = 0;
  measure("udp-echo", seconds, 1, [&] {
    std::memcpy(out + 1, &++turn, sizeof turn);
    do {
      if (send(fd.get(), out, sizeof out, 0) != sizeof out) die("send");
    } while (recv(fd.get(), in, sizeof in, 0) != sizeof in || std::memcmp(in, out, sizeof in) != 0);
  });
}

// How many the server has counted.
cob::u64 ask_count(int fd) {
  char question[datagram_bytes] = {udp_asked}, answer[datagram_bytes];
  static unsigned turn = 0;
  std::memcpy(question + 1, &++turn, sizeof turn);
  for (int attempt = 0; attempt < 100; ++attempt) {
    if (send(fd, question, sizeof question, 0) != sizeof question) die("send");
    while (recv(fd, answer, sizeof answer, 0) == sizeof answer) {
      if (std::memcmp(answer, question, 5) != 0) continue;
      cob::u64 counted = 0;
      std::memcpy(&counted, answer + 8, sizeof counted);
      return counted;
    }
  }
  die("the server counts no more");
}

void udp_stream(const sockaddr_in& at, double seconds) {
  constexpr int windows = 20;
  const Fd fd = udp_client(at);
  Batch out(udp_counted);
  cob::u64 before = ask_count(fd.get());
  std::vector<double> samples;
  for (int i = 0; i < windows; ++i) {
    const i64 begin = clock_ns();
    const i64 end = begin + static_cast<i64>(seconds * 1e9 / windows);
    while (clock_ns() < end) {
      if (sendmmsg(fd.get(), out.message, batch, 0) <= 0) die("sendmmsg");
    }
    const cob::u64 after = ask_count(fd.get());
    if (after != before)
      samples.push_back(static_cast<double>(clock_ns() - begin) /
                        static_cast<double>(after - before));
    before = after;
  }
  const cob::bench::Summary summary = cob::bench::summarize(std::move(samples));
  std::printf("udp-stream %.1f %.1f %zu\n", summary.median, summary.p99, summary.runs);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "nothing" && argc == 4) {
    nothing(std::atof(argv[2]), std::atoi(argv[3]));
  } else if (what == "miss" && argc == 5) {
    miss(endpoint(argv[2], argv[3]), std::atof(argv[4]));
  } else if (what == "echo-server" && argc == 4) {
    echo_server(endpoint(argv[2], argv[3]));
  } else if (what == "echo" && argc == 5) {
    echo(endpoint(argv[2], argv[3]), std::atof(argv[4]));
  } else if (what == "udp-server" && argc == 4) {
    udp_server(endpoint(argv[2], argv[3]));
  } else if (what == "udp-echo" && argc == 5) {
    udp_echo(endpoint(argv[2], argv[3]), std::atof(argv[4]));
  } else if (what == "udp-stream" && argc == 5) {
    udp_stream(endpoint(argv[2], argv[3]), std::atof(argv[4]));
  } else {
    std::fprintf(stderr, "cob-bench-call is run by `cob bench calls`\n");
    return 2;
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}
