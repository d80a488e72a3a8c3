// The loop of flights.h: start what is due, wait, handle, expire.
// It waits by yielding when the next arrival is near, so that a timer's wake-up does not count as
// latency, and by sleeping where yields turn out to be long, as kernels do (kernel/rest.h).
// The generator's one thread. connect(2) on a non-blocking socket; epoll(7), edge-triggered.
#include "bench/connections/flights.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "base/clock.h"

namespace cob::bench {

namespace {

constexpr i64 near_ns = 200'000;             // yields instead of sleeping so long before an arrival
constexpr i64 contested_yield_ns = 300'000;  // a longer one met a computing process
constexpr i64 calm_ns = 20'000'000;
constexpr i64 expiry_ns = 20'000'000;  // how often timeouts are looked for
constexpr int batch = 256;
// Before it looks at what has come: those that are late are late anyway.
constexpr u32 most_starts = 64;

i64 now_ns() { return HostClock::read().ns; }
i64 to_ns(double seconds) { return static_cast<i64>(seconds * 1e9); }

sockaddr_in endpoint(const LoadOptions& options) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(options.port);
  inet_pton(AF_INET, options.address.c_str(), &at.sin_addr);
  return at;
}

}  // namespace

Outcome<std::unique_ptr<Flights>> Flights::make(const LoadOptions& options) {
  using Made = Outcome<std::unique_ptr<Flights>>;
  in_addr parsed{};
  if (inet_pton(AF_INET, options.address.c_str(), &parsed) != 1)
    return Made::failed(options.address + " is no IPv4 address");
  std::unique_ptr<Flights> flights(new Flights(options));
  if (!flights->set_.valid()) return Made::failed("epoll_create1");
  return Made(std::move(flights));
}

Flights::Flights(const LoadOptions& options)
    : options_(options),
      at_(endpoint(options)),
      set_(epoll_create1(EPOLL_CLOEXEC)),
      flights_(options.in_flight),
      buffer_(Pattern::window),
      random_(options.seed),
      begin_ns_(now_ns()),
      end_ns_(begin_ns_ + to_ns(options.seconds)),
      timeout_ns_(to_ns(options.timeout_seconds)),
      arrivals_(options.plan.empty()
                    ? Arrivals(options.rate > 0 ? options.rate : 1, options.seed, begin_ns_)
                    : Arrivals(options_.plan, begin_ns_)),
      next_expiry_ns_(begin_ns_ + expiry_ns),
      stop_ns_(options.stop_pid > 0 ? begin_ns_ + to_ns(options.stop_seconds) : INT64_MAX) {
  for (u32 i = options.in_flight; i > 0; --i) free_.push_back(i - 1);
  tally_.seconds = options.seconds;
  tally_.answered_ns.assign(options.plan.size(), -1);
  if (options.realtime) calm_until_ns_ = INT64_MAX;
  prctl(PR_SET_TIMERSLACK, 1);
}

bool Flights::starting(i64 now) const {
  if (options_.hold > 0) return opened_to_hold_ < options_.hold && now < end_ns_;
  return now < end_ns_;
}

void Flights::run() {
  epoll_event events[batch];
  for (;;) {
    i64 now = now_ns();
    start_due(now);
    stop_worker(now);
    const bool more = open_loop() ? arrivals_left() : starting(now) && options_.hold == 0;
    if (active_ == 0 && !more && (options_.hold == 0 || !starting(now))) break;
    i64 until = std::min(next_expiry_ns_, stop_ns_);
    if (!free_.empty() && arrivals_left()) until = std::min(until, arrivals_.next_ns());
    const int count = wait(until, events);
    for (int i = 0; i < count; ++i) handle(events[i].data.u32, events[i].events);
    now = now_ns();
    if (now >= next_expiry_ns_) expire(now);
  }
}

void Flights::start_due(i64 now) {
  if (open_loop()) {
    for (u32 started = 0; started < most_starts; ++started) {
      if (!arrivals_left() || arrivals_.next_ns() > now) return;
      if (free_.empty()) {
        if (now - arrivals_.next_ns() <= timeout_ns_) return;
        ++tally_.failed[static_cast<std::size_t>(Failure::timed_out)];
        ++tally_.started;
        arrivals_.advance();
        continue;
      }
      const u32 slot = free_.back();
      free_.pop_back();
      start(slot, arrivals_.next_ns());
      arrivals_.advance();
    }
    return;
  }
  // One try a slot and pass: a failing connect must not keep the loop here.
  for (std::size_t left = free_.size(); left > 0 && starting(now); --left) {
    const u32 slot = free_.back();
    free_.pop_back();
    if (options_.hold > 0) ++opened_to_hold_;
    start(slot, now_ns());
  }
}

void Flights::start(u32 slot, i64 intended_ns) {
  Flight& flight = flights_[slot];
  ++tally_.started;
  ++active_;
  flight.active = true;
  flight.asked = false;
  flight.intended_ns = intended_ns;
  flight.arrival = static_cast<u32>(arrivals_.number());
  tally_.lag.record(static_cast<u64>(std::max<i64>(0, now_ns() - intended_ns)));
  flight.socket = Fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!flight.socket.valid()) return fail(slot, failure_of(errno));
  const int fd = flight.socket.get();
  if (!bind_source(flight)) return fail(slot, Failure::no_port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&at_), sizeof at_) != 0 && errno != EINPROGRESS)
    return fail(slot, failure_of(errno));
  epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.u32 = slot}};
  if (epoll_ctl(set_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return fail(slot, failure_of(errno));
}

// To the address and port that are planned for it.
bool Flights::bind_source(const Flight& flight) const {
  if (options_.plan.empty()) return true;
  const PlannedArrival& planned = options_.plan[flight.arrival];
  if (planned.source_address == 0) return true;
  const int fd = flight.socket.get(), on = 1;
  sockaddr_in source{};
  source.sin_family = AF_INET;
  source.sin_port = htons(planned.source_port);
  source.sin_addr.s_addr = htonl(planned.source_address);
  return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
         bind(fd, reinterpret_cast<const sockaddr*>(&source), sizeof source) == 0;
}

// From the planned time until the last arrival; the server takes the signal in turns.
void Flights::stop_worker(i64 now) {
  if (now < stop_ns_) return;
  kill(options_.stop_pid, SIGUSR1);
  stop_ns_ = stopped_ ? INT64_MAX : end_ns_;
  stopped_ = true;
}

bool Flights::ask(Flight& flight) {
  const u64 drawn = next_random(random_);
  const u32 closes = options_.client_closes || options_.keep_alive || options_.hold > 0
                         ? 0
                         : Request::server_closes;
  const Request request{
      .flags = closes | (options_.blocks ? Request::blocks : 0),
      .response_bytes = options_.response_bytes,
      .offset = static_cast<u32>(drawn % Pattern::offsets),
      .work_ns = options_.plan.empty() ? options_.work_ns : options_.plan[flight.arrival].work_ns,
      .number = drawn};
  flight.asked = true;
  flight.received = 0;
  flight.offset = request.offset;
  return send(flight.socket.get(), &request, sizeof request, MSG_NOSIGNAL) == sizeof request;
}

void Flights::handle(u32 slot, u32 events) {
  Flight& flight = flights_[slot];
  if (!flight.active) return;
  if ((events & EPOLLERR) != 0) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(flight.socket.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    return fail(slot, failure_of(error));
  }
  if (!flight.asked) {
    if ((events & EPOLLOUT) == 0) return;
    if (!ask(flight)) return fail(slot, failure_of(errno));
    if ((events & (EPOLLIN | EPOLLRDHUP)) == 0) return;
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) == 0) return;
  read(slot, (events & (EPOLLRDHUP | EPOLLHUP)) != 0);
}

void Flights::read(u32 slot, bool peer_closed) {
  Flight& flight = flights_[slot];
  for (;;) {
    const ssize_t got = recv(flight.socket.get(), buffer_.data(), buffer_.size(), 0);
    if (got < 0) {
      if (errno != EAGAIN) fail(slot, failure_of(errno));
      return;
    }
    if (got == 0) {
      if (flight.received != options_.response_bytes) return fail(slot, Failure::cut_short);
      return whole(slot, true);
    }
    const auto bytes = static_cast<std::size_t>(got);
    if (flight.received + bytes > options_.response_bytes ||
        !pattern_.matches(flight.offset, flight.received, std::span(buffer_).first(bytes))) {
      return fail(slot, Failure::wrong_bytes);
    }
    flight.received += bytes;
    if (flight.received == options_.response_bytes) return whole(slot, peer_closed);
    if (bytes < buffer_.size() && !peer_closed) return;  // drained: an edge will tell
  }
}

// The response is there; who closes the connection decides whether that is the end.
void Flights::whole(u32 slot, bool peer_closed) {
  Flight& flight = flights_[slot];
  if (options_.hold > 0) {
    epoll_ctl(set_.get(), EPOLL_CTL_DEL, flight.socket.get(), nullptr);
    held_.push_back(std::move(flight.socket));
    return complete(slot);
  }
  if (options_.keep_alive && !peer_closed) {
    const i64 now = now_ns();
    if (now < end_ns_) {
      tally_.latency.record(static_cast<u64>(now - flight.intended_ns));
      ++tally_.completed;
      tally_.bytes += flight.received;
      ++tally_.started;
      flight.intended_ns = now;
      if (!ask(flight)) fail(slot, failure_of(errno));
      return;
    }
  } else if (options_.keep_alive) {
    return fail(slot, Failure::cut_short);
  } else if (!options_.client_closes && !peer_closed) {
    char nothing = 0;
    const ssize_t got = recv(flight.socket.get(), &nothing, 1, 0);
    if (got > 0) return fail(slot, Failure::wrong_bytes);
    if (got < 0) {
      if (errno != EAGAIN) fail(slot, failure_of(errno));
      return;  // the end will be told
    }
  }
  complete(slot);
}

void Flights::complete(u32 slot) {
  const Flight& flight = flights_[slot];
  const i64 now = now_ns();
  const i64 took = std::max<i64>(0, now - flight.intended_ns);
  tally_.latency.record(static_cast<u64>(took));
  if (!options_.plan.empty()) tally_.answered_ns[flight.arrival] = took;
  if (now < end_ns_) {
    ++tally_.completed;
    tally_.bytes += flight.received;
  } else {
    ++tally_.late;
  }
  release(slot);
}

void Flights::fail(u32 slot, Failure failure) {
  ++tally_.failed[static_cast<std::size_t>(failure)];
  release(slot);
}

void Flights::release(u32 slot) {
  Flight& flight = flights_[slot];
  flight.socket.reset();
  flight.active = false;
  --active_;
  free_.push_back(slot);
}

void Flights::expire(i64 now) {
  next_expiry_ns_ = now + expiry_ns;
  for (u32 slot = 0; slot < flights_.size(); ++slot) {
    if (flights_[slot].active && now - flights_[slot].intended_ns > timeout_ns_)
      fail(slot, Failure::timed_out);
  }
}

// What happened, at the latest when it is time.
int Flights::wait(i64 until_ns, std::span<epoll_event> events) {
  const auto most = static_cast<int>(events.size());
  const i64 now = now_ns();
  const bool calm = now < calm_until_ns_;
  if (until_ns - now < near_ns && !calm) {
    const int count = epoll_wait(set_.get(), events.data(), most, 0);
    if (count != 0 || until_ns <= now) return count;
    const i64 before = now_ns();
    sched_yield();
    const i64 after = now_ns();
    if (after - before > contested_yield_ns) calm_until_ns_ = after + calm_ns;
    return 0;
  }
  const i64 sleep = std::max<i64>(0, until_ns - now - (calm ? 0 : near_ns / 2));
  const timespec span{.tv_sec = sleep / 1'000'000'000, .tv_nsec = sleep % 1'000'000'000};
  return epoll_pwait2(set_.get(), events.data(), most, &span, nullptr);
}

}  // namespace cob::bench
