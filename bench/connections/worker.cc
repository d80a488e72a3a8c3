// The loop of worker.h: wait, accept up to a budget, serve what is ready.
// A request is read when its connection is accepted, for it is often there already; one that asks
// while it is being answered breaks the protocol and is cut off. The worker's own thread.
// epoll(7), accept4(2); ERRORS of accept(2) for running out of descriptors.
#include "bench/connections/worker.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/clock.h"

namespace cob::bench {

namespace {

constexpr int accept_budget = 64;  // connections a turn, so that those accepted are not starved

i64 now_ns() { return HostClock::read().ns; }

void work(u32 ns, bool blocks) {
  if (ns == 0) return;
  if (blocks) {
    timespec left{.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
    return;
  }
  const i64 end = now_ns() + ns;
  while (now_ns() < end) {
  }
}

}  // namespace

Worker::Worker(std::size_t number, const ServerOptions& options, Listeners& listeners)
    : number_(number),
      options_(options),
      listeners_(listeners),
      set_(epoll_create1(EPOLL_CLOEXEC)),
      bell_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      reserve_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {
  const bool shared = options.mode == Mode::shared && options.workers > 1;
  watch(bell_.get(), EPOLLIN);
  watch(own_listener(), shared ? EPOLLIN | EPOLLEXCLUSIVE : EPOLLIN);
  if (listeners.affinity && options.workers > 1)
    watch(listeners.affinity->bell(number).get(), EPOLLIN | EPOLLET);
}

int Worker::own_listener() const {
  return listeners_.sockets[number_ % listeners_.sockets.size()].get();
}

bool Worker::watch(int fd, u32 events) {
  epoll_event event{.events = events, .data = {.fd = fd}};
  return epoll_ctl(set_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void Worker::stop() {
  stop_.store(true, std::memory_order_relaxed);
  const u64 one = 1;
  (void)!write(bell_.get(), &one, sizeof one);
}

void Worker::run() {
  prctl(PR_SET_TIMERSLACK, 1);  // of what blocks
  if (!options_.cores.empty()) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(options_.cores[number_ % options_.cores.size()]), &set);
    sched_setaffinity(0, sizeof set, &set);
  }
  epoll_event events[256];
  const int stealer_bell = listeners_.affinity ? listeners_.affinity->bell(number_).get() : -1;
  while (!stop_.load(std::memory_order_relaxed)) {
    const int count = epoll_wait(set_.get(), events, 256, -1);
    if (count < 0 && errno != EINTR) return;
    if (listeners_.hermes) listeners_.hermes->begins(number_, now_ns(), std::max(count, 0));
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == own_listener() || fd == stealer_bell) {
        accept_some();
      } else if (fd != bell_.get()) {
        serve(fd);
      }
      if (listeners_.hermes) listeners_.hermes->handled(number_);
    }
    if (listeners_.hermes) listeners_.hermes->publish(now_ns());
  }
}

// A connection of `listener`, or -1.
int Worker::take(int listener) {
  const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0 || (errno != EMFILE && errno != ENFILE)) return fd;
  reserve_.reset();
  const Fd refused(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (refused.valid()) ++counts_.refused;
  reserve_ = Fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  return -1;
}

void Worker::accept_some() {
  const bool steals = listeners_.affinity.has_value() && options_.workers > 1;
  if (steals) listeners_.affinity->look(number_);
  for (int i = 0; i < accept_budget; ++i) {
    const std::size_t victim = steals ? listeners_.affinity->victim(number_) : number_;
    int fd = -1;
    bool stolen = false;
    if (victim == number_ || own_in_a_row_ < Affinity::own_for_one_stolen) {
      fd = take(own_listener());
      ++own_in_a_row_;
    }
    if (fd < 0 && victim != number_) {
      own_in_a_row_ = 0;
      fd = take(listeners_.sockets[victim].get());
      stolen = fd >= 0;
      if (fd < 0) fd = take(own_listener());
    }
    if (fd < 0) return;
    ++counts_.accepted;
    if (stolen) ++counts_.stolen;
    opened(fd);
  }
}

void Worker::opened(int fd) {
  const auto index = static_cast<std::size_t>(fd);
  if (index >= connections_.size())
    connections_.resize(std::max(index + 1, 2 * connections_.size()));
  connections_[index] = {.open = true};
  if (listeners_.hermes) listeners_.hermes->holds(number_, ++held_);
  serve(fd);
}

void Worker::close(int fd) {
  connections_[static_cast<std::size_t>(fd)].open = false;
  if (listeners_.hermes) listeners_.hermes->holds(number_, --held_);
  ::close(fd);
}

void Worker::serve(int fd) {
  if (static_cast<std::size_t>(fd) >= connections_.size()) return;
  Connection& connection = connections_[static_cast<std::size_t>(fd)];
  if (!connection.open) return;
  Step step = Step::goes_on;
  while (step == Step::goes_on) {
    step = connection.size > 0 ? send(fd, connection) : receive(fd, connection);
  }
  if (step == Step::waits && !connection.registered) {
    connection.registered = watch(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    if (!connection.registered) step = Step::over;
  }
  if (step == Step::over) close(fd);
}

Worker::Step Worker::receive(int fd, Connection& connection) {
  std::byte buffer[4 * sizeof(Request)];  // longer than a request: what fills it was not drained
  const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
  if (got < 0) return errno == EAGAIN ? Step::waits : Step::over;
  if (got == 0) return Step::over;
  const auto bytes = static_cast<u32>(got);
  if (connection.have + bytes > sizeof(Request)) {
    ++counts_.refused;
    return Step::over;
  }
  std::memcpy(connection.request + connection.have, buffer, bytes);
  connection.have += bytes;
  if (connection.have < sizeof(Request)) return Step::waits;
  const auto request = parse_request(std::span(connection.request));
  if (!request) {
    ++counts_.refused;
    return Step::over;
  }
  connection.have = 0;
  connection.closing = (request->flags & Request::server_closes) != 0;
  connection.offset = request->offset;
  connection.sent = 0;
  connection.size = request->response_bytes;
  work(request->work_ns, (request->flags & Request::blocks) != 0);
  return Step::goes_on;
}

Worker::Step Worker::send(int fd, Connection& connection) {
  while (connection.sent < connection.size) {
    const auto piece =
        pattern_.piece(connection.offset, connection.sent, connection.size - connection.sent);
    const ssize_t sent = ::send(fd, piece.data(), piece.size(), MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN ? Step::waits : Step::over;
    connection.sent += static_cast<u64>(sent);
  }
  connection.size = 0;
  // What was read was shorter than the buffer, so nothing is left but what an edge will tell.
  return connection.closing ? Step::over : Step::waits;
}

}  // namespace cob::bench
