// Relays: copying between host sockets and connections; see relay.h. Every read and write of a host
// socket is bounded and MSG_DONTWAIT; the epoll watch is edge-triggered, so `readable` and
// `writable` hold until a call says EAGAIN. recv(2), send(2), shutdown(2).
#include "kernel/relay.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace cob::kernel {

namespace {

constexpr int pass_rights = 83;  // SO_PASSRIGHTS, Linux 6.16; not in every libc's headers

// Both directions are over: the other end is closed, or shut down both ways.
bool hung_up(FdRef socket) {
  pollfd p{.fd = socket.get(), .events = 0, .revents = 0};
  return ::poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) != 0;
}

u32 unread_at(FdRef socket) {
  int bytes = 0;
  return ::ioctl(socket.get(), FIONREAD, &bytes) == 0 ? static_cast<u32>(bytes) : 0;
}

}  // namespace

Relays::Relay* Relays::find(u32 id) {
  const auto found = relays_.find(id);
  return found == relays_.end() ? nullptr : found->second.get();
}

Result<Relays::Relay*> Relays::make(Description& d) {
  if (relays_.size() >= most_) end_unused();
  if (relays_.size() >= most_) return Error::of(ENFILE, "relays of this kernel");
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return Error::from_errno("socketpair of a relay");
  auto relay = std::make_unique<Relay>();
  relay->ours = Fd(ends[0]);
  relay->theirs = Fd(ends[1]);
  // Descriptors sent to us would be closed by us, and closing may wait.
  const int no = 0;
  ::setsockopt(ends[0], SOL_SOCKET, pass_rights, &no, sizeof no);
  relay->id = next_id_++;
  relay->description = &d;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u64 = event_mark | relay->id;
  if (::epoll_ctl(events_.get(), EPOLL_CTL_ADD, ends[0], &event) != 0)
    return Error::from_errno("epoll_ctl of a relay");
  sockets_.retain(d);
  SharedPart& shared = d.shared.make();
  shared.relays.push_back(relay->id);
  shared.relay_unread = 0;
  return relays_.emplace(relay->id, std::move(relay)).first->second.get();
}

Result<Relays::Lent> Relays::lend(Description& d) {
  if (d.state == call::SocketState::undecided || d.state == call::SocketState::listening ||
      d.state == call::SocketState::file || d.datagram != nullptr)
    return Error::of(EOPNOTSUPP, "relay of a socket that is no connection");
  Relay* relay = d.shared->relays.empty() ? nullptr : find(d.shared->relays.back());
  if (relay == nullptr || !relay->theirs.valid()) relay = TRY(make(d));
  ++relay->users;
  sockets_.stir(d);
  return Lent{relay->id, relay->theirs.ref()};
}

void Relays::returned(u32 id) {
  Relay* relay = find(id);
  if (relay == nullptr) return;
  if (relay->users > 0) --relay->users;
  heat(*relay);
}

// The relay is over: the connection goes on without it, or is closed with it.
void Relays::end(Relay& r) {
  Description& d = *r.description;
  const bool left_bytes = r.left_bytes;
  const u32 events = sockets_.shared_events(d);
  std::erase(d.shared.make().relays, r.id);
  d.shared.make().relay_unread = 0;
  relays_.erase(r.id);
  if (d.references > 1 && (d.shared->relays.empty() || sockets_.shared_events(d) != events))
    sockets_.write_flags(d);
  sockets_.release(d, left_bytes);
}

// Those whose program tells no more, and has closed its end.
void Relays::end_unused() {
  std::vector<u32> unused;
  for (const auto& [id, relay] : relays_)
    if (relay->users == 0 && relay->description->seat < 0) unused.push_back(id);
  for (const u32 id : unused)
    if (Relay* relay = find(id)) before_call(*relay->description, false);
}

void Relays::heat(Relay& r) {
  if (r.hot) return;
  r.hot = true;
  hot_.push_back(r.id);
}

void Relays::on_event(u32 id) {
  Relay* relay = find(id);
  if (relay == nullptr) return;
  relay->readable = relay->writable = true;
  heat(*relay);
}

bool Relays::poll() {
  if (relays_.empty()) return false;
  for (const u32 handle : sockets_.take_stirred()) {
    Description* d = sockets_.at_handle(handle);
    if (d == nullptr) continue;
    d->shared.make().stirred = false;
    for (const u32 id : d->shared->relays)
      if (Relay* relay = find(id)) heat(*relay);
  }
  bool work = false;
  for (const u32 id : std::exchange(hot_, {})) {
    Relay* relay = find(id);
    if (relay == nullptr) continue;
    relay->hot = false;
    work |= pump(id);
  }
  return work;
}

// One turn of a relay; true if it moved something, and then it has another turn.
bool Relays::pump(u32 id) {
  Relay* r = find(id);
  Description& d = *r->description;
  if (d.state == call::SocketState::connecting || !sockets_.claim_seat(d)) return false;
  r = find(id);  // its program may have been drained
  if (r == nullptr) return true;
  if (r->theirs.valid() && d.only_relayed()) {
    r->theirs.reset();
    r->readable = true;
  }
  const u32 events = sockets_.shared_events(d);
  bool over = false;
  bool moved = to_network(*r, budget, send_limit, over);
  if (!over) moved |= to_program(*r);
  // After a reset the program is given what came before it, no more.
  const bool reset = (d.flags & call::flag_reset) != 0;
  if (reset && (d.kept.size() == 0 || r->deaf || d.shared->relays.back() != id)) over = true;
  if (over) {
    end(*r);
    return true;
  }
  if (r->theirs.valid() && d.shared->relays.back() == id) {
    d.shared.make().relay_unread = unread_at(r->theirs.ref());
  } else if (d.shared->relays.back() == id) {
    d.shared.make().relay_unread = 0;
  }
  if (sockets_.shared_events(d) != events) sockets_.write_flags(d);
  if (moved) heat(*r);
  return moved;
}

bool Relays::to_program(Relay& r) {
  Description& d = *r.description;
  if (d.shared->relays.back() != r.id) return false;
  std::size_t left = budget;
  bool moved = false;
  while (r.writable && !r.deaf && left > 0 && d.kept.size() > 0) {
    if (d.urgent && sockets_.step_over_mark(d, false) == 0 && d.kept.size() == 0) break;
    auto bytes = sockets_.kept_to_mark(d);
    bytes = bytes.first(std::min(left, bytes.size()));
    const ssize_t sent =
        ::send(r.ours.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      sockets_.take_kept(d, static_cast<std::size_t>(sent));
      left -= static_cast<std::size_t>(sent);
      moved = true;
    } else if (errno == EAGAIN) {
      r.writable = false;
    } else if (errno != EINTR) {
      r.left_bytes |= errno == ECONNRESET;
      r.deaf = true;
    }
  }
  // Who shut its receiving side only reads nothing, and must not stop its peer.
  if (r.deaf && d.only_relayed() && !hung_up(r.ours.ref())) sockets_.take_kept(d, d.kept.size());
  // What is taken back cannot be given again behind the end: while it can be, the end waits.
  const bool all_given =
      d.kept.size() == 0 && (!r.theirs.valid() || unread_at(r.theirs.ref()) == 0);
  if (all_given && !r.told_end && (d.flags & call::flag_peer_closed) != 0) {
    r.told_end = true;
    ::shutdown(r.ours.get(), SHUT_WR);
    moved = true;
  }
  return moved;
}

// `over`: the program's end is closed, and everything that it wrote was taken.
bool Relays::to_network(Relay& r, std::size_t most, std::size_t limit, bool& over) {
  Description& d = *r.description;
  bool moved = false;
  while (r.readable && most > 0) {
    const bool closed = d.tcb == net::no_tcb || (d.flags & call::flag_send_closed) != 0;
    if (closed && !r.said_end) {  // writing is EPIPE, and what was written goes nowhere
      r.said_end = true;
      ::shutdown(r.ours.get(), SHUT_RD);
    }
    const std::size_t room = closed ? scratch_.size() : sockets_.send_room(d, limit);
    const std::size_t part = std::min({room, most, scratch_.size()});
    if (part == 0) return moved;
    const ssize_t got = ::recv(r.ours.get(), scratch_.data(), part, MSG_DONTWAIT);
    if (got > 0) {
      most -= static_cast<std::size_t>(got);
      if (!closed)
        sockets_.append_send(d, std::span(scratch_).first(static_cast<std::size_t>(got)));
      moved = true;
    } else if (got == 0) {
      r.readable = false;
      over = at_end(r);
      return true;
    } else if (errno == EAGAIN) {
      r.readable = false;
    } else if (errno == ECONNRESET) {
      r.left_bytes = true;  // the next read is the end
    } else if (errno != EINTR) {
      r.readable = false;
      over = !r.theirs.valid();
    }
  }
  return moved;
}

// The program's stream has ended. True: it closed its end.
bool Relays::at_end(Relay& r) {
  if (!r.theirs.valid() && hung_up(r.ours.ref())) return true;
  if (!r.said_end) {
    r.said_end = true;
    sockets_.finish_send(*r.description);
  }
  return false;
}

// What the program has not read is in front of what it was not given yet.
void Relays::take_back(Relay& r) {
  std::vector<std::byte> bytes;
  for (;;) {
    const ssize_t got = ::recv(r.theirs.get(), scratch_.data(), scratch_.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    bytes.insert(bytes.end(), scratch_.begin(), scratch_.begin() + got);
  }
  if (!bytes.empty()) sockets_.put_back_kept(*r.description, bytes);
  r.description->shared.make().relay_unread = 0;
  r.writable = true;
}

void Relays::before_call(Description& d, bool reads) {
  if (d.seat >= 0) return;  // no relay has begun
  for (const u32 id : std::vector<u32>(d.shared->relays)) {
    Relay* r = find(id);
    if (r == nullptr) continue;
    bool over = false;
    r->readable = true;
    to_network(*r, SIZE_MAX, SIZE_MAX, over);
    const bool unused = r->users == 0;
    if (!over && r->theirs.valid() && (reads || unused)) take_back(*r);
    if (!over && r->theirs.valid() && unused) {  // whether anyone has it shows when we have not
      r->theirs.reset();
      r->readable = true;
      to_network(*r, SIZE_MAX, SIZE_MAX, over);
    }
    if (over) {
      r->left_bytes = false;  // they were taken back, or are the others'
      end(*r);
    } else {
      heat(*r);
    }
  }
}

}  // namespace cob::kernel
