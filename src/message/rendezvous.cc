// The greeting of two kernels, and the watch over their connection; see rendezvous.h.
// Model: whoever rings makes the doorbell and keeps the button, so neither can be hurt by what the
// other made; nothing is left of a connection that fails at any step. unix(7), epoll(7).
// The kernel's loop.
#include "message/rendezvous.h"

#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/log.h"

namespace cob::message {

namespace {

constexpr u32 hello_magic = 0x72626f63;  // "cobr"
enum class Kind : u32 { hello = 1, memory = 2, refused = 3 };
constexpr u64 listener_event = 0;
constexpr u16 anyone = 0xffff;
constexpr Duration listening_pause = Duration::milliseconds(100);

struct Short {
  u32 magic = hello_magic;
  Kind kind{};
  i32 code = 0;  // refused: an errno
  u32 reserved = 0;
};

Result<void> watch_in(FdRef epoll, FdRef fd, u32 events, u64 data) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0)
    return Error::from_errno("epoll_ctl");
  return {};
}

// Copies of `fd` elsewhere would keep the watch.
void unwatch_in(FdRef epoll, FdRef fd) {
  if (epoll.valid() && fd.valid()) ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, fd.get(), nullptr);
}

// Anything else could make a wait block, or never end.
bool is_bell(FdRef fd) {
  epoll_event event;
  return ::epoll_wait(fd.get(), &event, 1, 0) >= 0;
}

}  // namespace

struct Rendezvous::Hello {
  u32 magic = hello_magic;
  Kind kind = Kind::hello;
  u32 version = Rendezvous::version;
  u32 layout = LinkHeader::layout_version;
  u32 epoch = 0;
  u16 kernels = 0;
  u16 from = 0;
  u16 to = anyone;
  u16 reserved[3] = {};
};

Result<std::unique_ptr<Rendezvous>> Rendezvous::create(Messenger& messenger,
                                                       const RendezvousOptions& options) {
  std::unique_ptr<Rendezvous> made(new Rendezvous(messenger, options.bulk_bytes));
  TRY(made->start(options));
  return made;
}

Result<void> Rendezvous::start(const RendezvousOptions& options) {
  events_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!events_.valid()) return Error::from_errno("epoll_create1");
  if (options.place.empty()) return {};
  place_ = TRY(MeetingPlace::open(options.place));
  const KernelId self = messenger_.links().self();
  listener_ = TRY(place_.listen(self));
  TRY(watch_in(events_.ref(), listener_.ref(), EPOLLIN, listener_event));
  for (u16 lower = 0; lower < self.value; ++lower) {
    seats_[lower].calling = true;
    seats_[lower].call_at = next_call_ = Time{};
  }
  return {};
}

Rendezvous::~Rendezvous() {
  while (!connections_.empty()) close(connections_.begin(), Time{});
}

Result<void> Rendezvous::meet(Fd socket) {
  TRY(check_owner(socket.ref()));
  TRY(greet(std::move(socket), KernelId(anyone)));
  return {};
}

Result<void> Rendezvous::watch(FdRef epoll) {
  epoll_ = epoll;
  TRY(watch_in(epoll, events_.ref(), EPOLLIN, 0));
  for (const auto& [id, connection] : connections_) TRY(watch_bell(connection));
  return {};
}

Result<void> Rendezvous::watch_bell(const Connection& connection) const {
  if (!epoll_.valid() || !connection.bell.valid()) return {};
  return watch_in(epoll_, connection.bell.ref(), EPOLLIN | EPOLLET, bell_event(connection.peer));
}

bool Rendezvous::poll(Time now) {
  changed_ = false;
  while (const auto peer = messenger_.take_faulted()) {
    Seat& seat = seats_[peer->value];
    const auto entry = connections_.find(seat.connection);
    if (entry == connections_.end()) continue;  // it came in another way
    ++counts_.cut;
    seat.cut_epoch = entry->second.epoch;
    close(entry, now);
  }
  if (now >= next_look_) look(now);
  if (now >= listen_at_) {
    const auto again = watch_in(events_.ref(), listener_.ref(), EPOLLIN, listener_event);
    listen_at_ = again ? Time::never() : now + listening_pause;
  }
  if (now >= next_call_) call_due(now);
  return changed_;
}

Time Rendezvous::next_deadline() const { return std::min(next_call_, listen_at_); }

void Rendezvous::look(Time now) {
  std::array<epoll_event, 64> events;
  const int found = ::epoll_wait(events_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < found; ++i) {
    const u64 id = events[static_cast<std::size_t>(i)].data.u64;
    if (id == listener_event) {
      accept_all(now);
    } else {
      read_all(id, now);
    }
  }
  if (found <= 0) next_look_ = now + look_interval;
}

void Rendezvous::accept_all(Time now) {
  for (std::size_t budget = most_strangers; budget > 0; --budget) {
    auto socket = accept_one(listener_.ref());
    if (socket.is_error()) {
      const int code = socket.error().code;
      if (code == EAGAIN) return;
      if (code == EACCES) {
        note_refusal(socket.error());
      } else if (code == EMFILE || code == ENFILE || code == ENOMEM || code == ENOBUFS) {
        return pause_listening(now);
      }
      continue;
    }
    if (greet(socket.release_value(), KernelId(anyone)).is_error()) return pause_listening(now);
    close_oldest_stranger(now);
  }
}

// Out of descriptors: who waits is not looked at over and over.
void Rendezvous::pause_listening(Time now) {
  unwatch_in(events_.ref(), listener_.ref());
  listen_at_ = now + listening_pause;
}

void Rendezvous::close_oldest_stranger(Time now) {
  auto oldest = connections_.end();
  std::size_t strangers = 0;
  for (auto entry = connections_.begin(); entry != connections_.end(); ++entry) {
    if (entry->second.state != State::greeting || entry->second.called) continue;
    ++strangers;
    if (oldest == connections_.end() || entry->first < oldest->first) oldest = entry;
  }
  if (strangers > most_strangers) close(oldest, now);
}

void Rendezvous::call_due(Time now) {
  next_call_ = Time::never();
  for (u16 i = 0; i < messenger_.links().kernels(); ++i) {
    Seat& seat = seats_[i];
    if (seat.call_at == Time::never()) continue;
    if (now >= seat.call_at) {
      seat.call_at = now + seat.retry;
      seat.retry = std::min(seat.retry * 2, last_retry);
      auto socket = place_.call(KernelId(i));
      if (socket.is_error()) {
        if (socket.error().code == EACCES) note_refusal(socket.error());
      } else if (greet(socket.release_value(), KernelId(i))) {
        seat.call_at = Time::never();  // until it ends
      }
    }
    next_call_ = std::min(next_call_, seat.call_at);
  }
}

// Says hello, with the bell of a doorbell that we ring.
Result<void> Rendezvous::greet(Fd socket, KernelId called) {
  Doorbell doorbell = TRY(make_doorbell());
  Hello hello;
  hello.epoch = messenger_.peer_epoch(messenger_.links().self());
  hello.kernels = messenger_.links().kernels();
  hello.from = messenger_.links().self().value;
  hello.to = called.value;
  const FdRef passed[] = {doorbell.bell.ref()};
  TRY(watch_in(events_.ref(), socket.ref(), EPOLLIN | EPOLLRDHUP, next_id_));
  // One that has hung up already is heard of in the next look.
  (void)send_struct(socket.ref(), hello, passed, Blocking::never);
  Connection connection;
  connection.socket = std::move(socket);
  connection.button = std::move(doorbell.button);
  connection.called = called.value != anyone;
  connection.peer = called;
  connections_.emplace(next_id_++, std::move(connection));
  return {};
}

void Rendezvous::read_all(u64 id, Time now) {
  for (;;) {
    const auto entry = connections_.find(id);
    if (entry == connections_.end()) return;
    alignas(Hello) std::array<std::byte, sizeof(Hello) + 1> buffer{};
    auto received = receive_datagram(entry->second.socket.ref(), buffer, Blocking::never);
    if (received.is_error() && received.error().code == EAGAIN) return;
    // It left something of ours unread, which is told once; what it said itself comes after.
    if (received.is_error() && received.error().code == ECONNRESET) continue;
    if (received.is_error() || received.value().bytes == 0) return close(entry, now);
    const auto bytes = std::span(buffer).first(received.value().bytes);
    const auto done = on_datagram(entry->second, id, bytes, received.value());
    if (done.is_error()) return refuse(entry, done.error(), now);
  }
}

Result<void> Rendezvous::on_datagram(Connection& connection, u64 id,
                                     std::span<const std::byte> bytes, Datagram& datagram) {
  Short head;
  if (datagram.truncated || bytes.size() < sizeof head)
    return Error::of(EPROTO, "no rendezvous's datagram");
  std::memcpy(&head, bytes.data(), sizeof head);
  if (head.magic != hello_magic) return Error::of(EPROTO, "no rendezvous's datagram");
  if (head.kind == Kind::refused) {
    ++counts_.refused_us;
    return Error::of(head.code > 0 ? head.code : EPROTO, refused_by_peer);
  }
  if (head.kind == Kind::hello && connection.state == State::greeting) {
    Hello hello;
    if (bytes.size() < offsetof(Hello, epoch)) return Error::of(EPROTO, "a hello cut short");
    std::memcpy(&hello, bytes.data(), std::min(bytes.size(), sizeof hello));
    return on_hello(connection, id, hello, bytes.size(), datagram);
  }
  if (head.kind == Kind::memory && connection.state == State::opened)
    return on_memory(connection, datagram);
  return Error::of(EPROTO, "a datagram out of turn");
}

Result<void> Rendezvous::check_hello(const Connection& connection, const Hello& hello,
                                     std::size_t bytes) const {
  if (hello.version != version || hello.layout != LinkHeader::layout_version)
    return Error::of(EPROTONOSUPPORT, "hello of another version");
  if (bytes != sizeof hello || hello.epoch == 0) return Error::of(EPROTO, "a malformed hello");
  const Links& links = messenger_.links();
  if (hello.kernels != links.kernels())
    return Error::of(EINVAL, "hello from a group of another size");
  if (hello.from == links.self().value)
    return Error::of(EADDRINUSE, "hello from one with our own number");
  if (hello.from >= hello.kernels || (connection.called && hello.from != connection.peer.value) ||
      (hello.to != anyone && hello.to != links.self().value))
    return Error::of(EINVAL, "hello from, or to, another kernel");
  const Seat& seat = seats_[hello.from];
  if (seat.connection != 0)
    return Error::of(EADDRINUSE, "a living process has this kernel's number");
  if (hello.epoch == seat.cut_epoch)
    return Error::of(ESTALE, "hello from a kernel that was cut off");
  if (static_cast<i32>(hello.epoch - messenger_.peer_epoch(KernelId(hello.from))) < 0)
    return Error::of(ESTALE, "hello of an earlier epoch");
  return {};
}

Result<void> Rendezvous::on_hello(Connection& connection, u64 id, const Hello& hello,
                                  std::size_t bytes, Datagram& datagram) {
  // Its predecessor may have ended without having been looked at.
  if (hello.from < seats_.size()) {
    const auto before = connections_.find(seats_[hello.from].connection);
    if (before != connections_.end() && has_hung_up(before->second)) close(before, Time{});
  }
  if (const auto checked = check_hello(connection, hello, bytes); checked.is_error()) {
    const int code = checked.error().code;
    if (Link* link = messenger_.links().find(KernelId(hello.from)))
      messenger_.links().refuse(*link, code == EPROTONOSUPPORT ? Refusal::wrong_version
                                       : code == EADDRINUSE    ? Refusal::second_claim
                                       : code == EPROTO        ? Refusal::wrong_layout
                                                               : Refusal::wrong_kernel);
    return checked;
  }
  if (datagram.descriptors.size() != 1 || !is_bell(datagram.descriptors[0].ref()))
    return Error::of(EBADF, "hello without a doorbell");
  connection.peer = KernelId(hello.from);
  connection.epoch = hello.epoch;
  connection.bell = std::move(datagram.descriptors[0]);
  TRY(watch_bell(connection));
  const Fd memory =
      TRY(messenger_.open_link(connection.peer, connection.epoch,
                               Doorbell{std::move(connection.button), Fd()}, bulk_bytes_));
  connection.state = State::opened;
  seats_[hello.from].connection = id;
  const FdRef passed[] = {memory.ref()};
  Short sent;
  sent.kind = Kind::memory;
  const auto done = send_struct(connection.socket.ref(), sent, passed, Blocking::never);
  if (done.is_error() && done.error().code != EPIPE) return done;
  return {};  // or it has hung up: what it said before that is read first
}

Result<void> Rendezvous::on_memory(Connection& connection, Datagram& datagram) {
  if (datagram.descriptors.size() != 1) return Error::of(EBADF, "no memory came");
  TRY(messenger_.peer_up(connection.peer, connection.epoch, std::move(datagram.descriptors[0])));
  connection.state = State::up;
  seats_[connection.peer.value].retry = first_retry;
  ++counts_.met;
  changed_ = true;
  return {};
}

bool Rendezvous::has_hung_up(const Connection& connection) {
  pollfd watched{.fd = connection.socket.get(), .events = POLLRDHUP, .revents = 0};
  return ::poll(&watched, 1, 0) == 1;
}

void Rendezvous::refuse(Entry entry, const Error& error, Time now) {
  if (error.what != refused_by_peer) {
    ++counts_.refused;
    Short refused;
    refused.kind = Kind::refused;
    refused.code = error.code;
    (void)send_struct(entry->second.socket.ref(), refused, {}, Blocking::never);
  }
  note_refusal(error);
  close(entry, now);
}

void Rendezvous::note_refusal(const Error& error) {
  last_refusal_ = error;
  if (!told_.insert(error.what).second) return;
  COB_LOG(warn, "kernel {}: rendezvous: {}: {}", messenger_.links().self().value, error.what,
          std::strerror(error.code));
}

void Rendezvous::close(Entry entry, Time now) {
  const Connection connection = std::move(entry->second);
  const u64 id = entry->first;
  connections_.erase(entry);
  unwatch_in(events_.ref(), connection.socket.ref());
  unwatch_in(epoll_, connection.bell.ref());
  if (connection.peer.value >= seats_.size()) return;
  Seat& seat = seats_[connection.peer.value];
  if (seat.connection == id) {
    seat.connection = 0;
    messenger_.peer_down(connection.peer, connection.epoch);
  }
  if (connection.state == State::up) {
    ++counts_.ended;
    changed_ = true;
  }
  if (!connection.called) return;
  seat.call_at = now + seat.retry;
  seat.retry = std::min(seat.retry * 2, last_retry);
  next_call_ = std::min(next_call_, seat.call_at);
}

}  // namespace cob::message
