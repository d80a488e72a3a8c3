// Accepting and greeting. See stream_listener.h.
// Model: every guest is looked at in each poll; there are at most most_greeting.
// The kernel's loop.
#include "message/socket/stream_listener.h"

#include <algorithm>

namespace cob::message {

void StreamListener::serve(KernelId peer, StreamHost& host) {
  VERIFY(std::none_of(served_.begin(), served_.end(),
                      [&](const Served& one) { return one.peer == peer; }));
  served_.push_back({peer, &host});
}

void StreamListener::forget(KernelId peer) {
  std::erase_if(served_, [&](const Served& one) { return one.peer == peer; });
}

void StreamListener::poll(Time now) {
  if (polled_ == now) return;
  polled_ = now;
  if (now - looked_ >= look_every) look(now);
  for (auto guest = guests_.begin(); guest != guests_.end();)
    guest = greet(*guest, now) ? guests_.erase(guest) : std::next(guest);
}

Time StreamListener::next_deadline() const {
  Time next = Time::never();
  for (const Guest& guest : guests_) next = std::min(next, guest.until);
  if (polled_ > looked_) next = std::min(next, looked_ + look_every);  // not looked when woken
  return next;
}

Result<void> StreamListener::watch(FdRef epoll) {
  epoll_ = epoll;
  TRY(watch_edges(epoll, acceptor_->descriptor()));
  for (const Guest& guest : guests_) TRY(watch_edges(epoll, guest.stream->descriptor()));
  return {};
}

void StreamListener::look(Time now) {
  for (int i = 0; i < accepts_a_look; ++i) {
    std::unique_ptr<ByteStream> stream = acceptor_->accept();
    if (stream == nullptr) {
      looked_ = now;
      return;
    }
    if (guests_.size() >= options_.most_greeting) {
      refuse(guests_.front(), StreamRefusal::too_many, 0);
      guests_.pop_front();
    }
    if (watch_edges(epoll_, stream->descriptor()).is_error()) continue;
    guests_.push_back({std::move(stream), {}, now + options_.hello_within});
  }
}

bool StreamListener::greet(Guest& guest, Time now) {
  const bool opened = guest.stream->advance() == ByteStream::State::open;
  const auto got = opened ? guest.greeting.read(*guest.stream) : StreamGreeting::Got::nothing;
  if (got == StreamGreeting::Got::refused) {
    refuse(guest, guest.greeting.refusal(), 0);
    return true;
  }
  if (got == StreamGreeting::Got::nothing) {
    if (guest.stream->state() == ByteStream::State::closed) {
      if (guest.stream->why_closed().code == EACCES)
        refusals_.count(StreamRefusal::wrong_key, "a connection", options_.self.value);
      return true;
    }
    if (now < guest.until) return false;
    refuse(guest, StreamRefusal::too_late, 0);
    return true;
  }
  if (guest.greeting.kind() != RecordKind::hello) {
    refuse(guest, StreamRefusal::unknown_record, 0);
    return true;
  }
  const auto hello = read_as<Hello>(guest.greeting.body());
  const KernelId from(hello.from);
  StreamRefusal refusal = check_hello(hello, options_.cob, options_.self);
  const auto served = std::find_if(served_.begin(), served_.end(),
                                   [&](const Served& one) { return one.peer == from; });
  if (refusal == StreamRefusal::none &&
      (served == served_.end() || guest.stream->peer().value_or(from) != from))
    refusal = StreamRefusal::wrong_kernel;
  if (refusal != StreamRefusal::none) {
    refuse(guest, refusal, hello.from);
    return true;
  }
  served->host->accept(std::move(guest.stream), hello, now);
  return true;
}

void StreamListener::refuse(Guest& guest, StreamRefusal refusal, u16 kernel) {
  refusals_.count(refusal, "a connection", kernel);
  if (guest.stream->state() == ByteStream::State::open) say_bye(*guest.stream, EPROTO, refusal);
}

}  // namespace cob::message
