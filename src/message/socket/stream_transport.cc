// Sessions: beginning, carrying, ending. What leads to a live connection: stream_connect.cc.
// A session's end is seen by a poll() that opens no other, so its user can tell them apart. See
// stream_transport.h. The kernel's loop.
#include "message/socket/stream_transport.h"

#include <algorithm>

#include "message/coherent.h"

namespace cob::message {

namespace {

// Each is a record through TLS, and wakes two kernels. A stream loses none: only a pause delays
// them.
constexpr i64 beats_a_lease = 4;

}  // namespace

StreamTransport::StreamTransport(const StreamTransportOptions& options,
                                 std::unique_ptr<StreamDialer> dialer)
    : options_(options),
      random_(options.seed),
      instance_(random_.next()),
      dialer_(std::move(dialer)),
      back_off_(options.least_back_off) {}

StreamTransport::StreamTransport(const StreamTransportOptions& options,
                                 std::shared_ptr<StreamListener> listener)
    : options_(options),
      random_(options.seed),
      instance_(random_.next()),
      listener_(std::move(listener)),
      back_off_(options.least_back_off) {}

StreamTransport::~StreamTransport() {
  end(Error::of(ECONNRESET, "transport is gone"));
  if (listener_ != nullptr) listener_->forget(KernelId(header_.to));
}

void StreamTransport::count_in(PeerStats& peer, PeerStats& own) {
  refusals_.count_in(peer);
  if (listener_ != nullptr) listener_->count_in(own);
}

void StreamTransport::start(const LinkHeader& mine) {
  header_ = mine;
  VERIFY(dials() == (header_.from < header_.to));
  if (listener_ != nullptr) listener_->serve(KernelId(header_.to), *this);
}

void StreamTransport::poll(Time now) {
  now_ = now;
  if (listener_ != nullptr) listener_->poll(now);
  may_begin_ = session_ == nullptr;
  if (session_ != nullptr && now - polled_ >= options_.lease) {
    // We have been stopped, and the peer has not heard of us for so long.
    end_session(Error::of(EHOSTDOWN, "this kernel was stopped for longer than the lease"));
    lose_connection();
  }
  polled_ = now;
  if (std::exchange(overlent_, false) && session_ != nullptr) fault(StreamRefusal::bad_record);
  if (arrived_.has_value()) admit(*std::exchange(arrived_, std::nullopt));
  if (dials() && connection_.phase == Phase::none && now >= next_dial_) dial();
  while (step()) {
  }
  if (connection_.phase == Phase::live) transfer();
  keep_alive();
}

void StreamTransport::transfer() {
  const std::size_t n =
      session_->receiver->pump(*connection_.stream, *session_->sender, options_.poll_bytes);
  if (n > 0) heard_ = now_;
  counters_.bytes_in += n;
  if (session_->receiver->refusal() != StreamRefusal::none) {
    fault(session_->receiver->refusal());
  } else if (session_->receiver->bye()) {
    end_session(Error::of(ECONNRESET, "kernel has ended the session"));
    lose_connection();
  } else {
    send();
    if (connection_.stream->state() == ByteStream::State::closed) lose_connection();
  }
}

void StreamTransport::send() {
  if (session_->sender->pump(*connection_.stream, session_->receiver->received().bulk,
                             options_.poll_bytes))
    said_ = now_;
}

void StreamTransport::keep_alive() {
  if (session_ == nullptr) return;
  if (now_ - heard_ >= options_.lease) {
    end_session(Error::of(EHOSTDOWN, "kernel was not heard of for its lease"));
    lose_connection();
  } else if (connection_.phase == Phase::live && now_ - said_ >= options_.lease / beats_a_lease &&
             session_->sender->whole()) {
    session_->sender->heartbeat(*connection_.stream);
    said_ = now_;
  }
}

Time StreamTransport::next_deadline() const {
  Time next = listener_ != nullptr ? listener_->next_deadline() : Time::never();
  if (session_ != nullptr) next = std::min(next, heard_ + options_.lease);
  switch (connection_.phase) {
    case Phase::none:
      return dials() ? std::min(next, next_dial_) : next;
    case Phase::live:
      return std::min(next, said_ + options_.lease / beats_a_lease);
    default:
      return std::min(next, connection_.until);
  }
}

bool StreamTransport::pending() const {
  if (arrived_.has_value() || overlent_ || connection_.phase == Phase::ready) return true;
  return connection_.phase == Phase::live &&
         (session_->receiver->unfinished() || session_->sender->unfinished() ||
          connection_.stream->state() == ByteStream::State::closed);
}

Result<void> StreamTransport::watch(FdRef epoll) {
  epoll_ = epoll;
  if (listener_ != nullptr) TRY(listener_->watch(epoll));
  if (connection_.stream != nullptr) TRY(watch_edges(epoll, connection_.stream->descriptor()));
  return {};
}

void StreamTransport::publish() {
  if (connection_.phase == Phase::live) send();
}

void StreamTransport::lend(u64 offset, u64 bytes) {
  if (session_ == nullptr) return;
  VERIFY(offset <= options_.bulk_bytes && bytes <= options_.bulk_bytes - offset);
  if (!session_->sender->lend(offset, bytes)) overlent_ = true;
}

void StreamTransport::end(const Error& why) {
  if (session_ == nullptr) return;
  if (connection_.phase == Phase::live && session_->sender->whole())
    say_bye(*connection_.stream, why.code, StreamRefusal::none);
  end_session(why);
  lose_connection();
}

void StreamTransport::fault(StreamRefusal refusal) {
  refusals_.count(refusal, "a session", header_.to);
  if (connection_.phase == Phase::live && session_->sender->whole())
    say_bye(*connection_.stream, EPROTO, refusal);
  end_session(Error::of(EPROTO, "kernel broke the format of the stream"));
  lose_connection();
}

Result<void> StreamTransport::begin_session() {
  const LinkHeader mine = header_now();
  const u64 in_bulk = connection_.header.bulk_bytes;
  auto memory = std::make_shared<Memory>();
  memory->out = TRY(Mapping::anonymous(sizeof(LinkMemory) + options_.bulk_bytes));
  memory->in = TRY(Mapping::anonymous(sizeof(LinkMemory) + in_bulk));
  LinkMemory* out = initialise(memory->out, mine);
  LinkMemory* in = initialise(memory->in, connection_.header);
  session_ = std::make_unique<Session>();
  session_->number = connection_.session;
  session_->ends = {.out = out,
                    .in = in,
                    .out_bulk_bytes = options_.bulk_bytes,
                    .in_bulk_bytes = in_bulk,
                    .hold = memory,
                    .bulk = out->bulk()};
  session_->sender.emplace(out, out->bulk());
  session_->receiver.emplace(in, in_bulk, out);
  ++sessions_;
  ++counters_.sessions;
  return {};
}

void StreamTransport::end_session(const Error& why) {
  why_down_ = why;
  overlent_ = false;
  session_.reset();
}

}  // namespace cob::message
