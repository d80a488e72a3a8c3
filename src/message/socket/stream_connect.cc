// From a stream to a live connection: dialing, hellos, `open`; who is refused.
// docs/messaging.md, 8: three messages, so that a copy of an old connection, whose first one is
// true, ends at the third. The kernel's loop.
#include <algorithm>

#include "message/socket/stream_transport.h"

namespace cob::message {

void StreamTransport::dial() {
  auto stream = dialer_->dial();
  ++counters_.dials;
  ++attempt_;
  if (stream.is_error() || watch_edges(epoll_, stream.value()->descriptor()).is_error()) {
    lose_connection();
    return;
  }
  connection_ = {.stream = std::move(stream).value(),
                 .phase = Phase::opening,
                 .greeting = {},
                 .until = now_ + options_.lease,
                 .live_since = {}};
}

void StreamTransport::accept(std::unique_ptr<ByteStream> stream, const Hello& hello, Time) {
  if (arrived_.has_value() && arrived_->hello.from_epoch == hello.from_epoch &&
      arrived_->hello.attempt > hello.attempt)
    return;
  arrived_ = {std::move(stream), hello};
}

void StreamTransport::admit(Arrived arrived) {
  const u32 epoch = peer_epoch_;
  const StreamRefusal refusal = judge(arrived.hello);
  if (refusal != StreamRefusal::none) {
    refusals_.count(refusal, "a connection", header_.to);
    say_bye(*arrived.stream, EPROTO, refusal);
    return;
  }
  ++counters_.dials;
  const bool resumes = session_ != nullptr && epoch == peer_epoch_ &&
                       arrived.hello.session == session_->number &&
                       arrived.hello.to_epoch == header_.from_epoch;
  if (session_ != nullptr && !resumes) end_session(Error::of(ECONNRESET, "kernel has begun anew"));
  connection_ = {.stream = std::move(arrived.stream),
                 .phase = Phase::open,
                 .greeting = {},
                 .theirs = arrived.hello,
                 .session = resumes ? session_->number : ++session_numbers_,
                 .nonce = random_.next(),
                 .resumes = resumes,
                 .until = now_ + options_.lease,
                 .live_since = {}};
  const Hello answer = hello_now(connection_.session, connection_.nonce);
  if (!say(*connection_.stream, RecordKind::hello, bytes_of(answer)) || !say_open(0))
    lose_connection();
}

StreamRefusal StreamTransport::judge(const Hello& hello) {
  const bool known = peer_epoch_ != 0;
  const bool same = known && hello.from_epoch == peer_epoch_;
  if (known && static_cast<i32>(hello.from_epoch - peer_epoch_) < 0)
    return StreamRefusal::second_peer;
  if (same && hello.instance != peer_instance_) return StreamRefusal::second_peer;
  if (dials()) {
    if (hello.attempt != attempt_) return StreamRefusal::old_attempt;
  } else {
    if (hello.attempt == 0 || (same && hello.attempt <= attempt_))
      return StreamRefusal::old_attempt;
    attempt_ = hello.attempt;
  }
  peer_epoch_ = hello.from_epoch;
  peer_instance_ = hello.instance;
  return StreamRefusal::none;
}

Hello StreamTransport::hello_now(u64 session, u64 nonce) const {
  return {.magic = stream_magic,
          .version = stream_version,
          .cob = options_.cob,
          .from = header_.from,
          .to = header_.to,
          .from_epoch = header_.from_epoch,
          .to_epoch = peer_epoch_,
          .reserved = 0,
          .instance = instance_,
          .attempt = attempt_,
          .session = session,
          .nonce = nonce,
          .received = session_ != nullptr ? session_->receiver->received() : Received{}};
}

LinkHeader StreamTransport::header_now() const {
  LinkHeader header = header_;
  header.to_epoch = peer_epoch_;
  header.bulk_bytes = options_.bulk_bytes;
  return header;
}

bool StreamTransport::say_open(u64 nonce) {
  const Open open{.nonce = nonce};
  if (connection_.resumes) return say(*connection_.stream, RecordKind::open, bytes_of(open));
  const LinkHeader mine = header_now();
  return say(*connection_.stream, RecordKind::open, bytes_of(open), bytes_of(mine));
}

bool StreamTransport::step() {
  switch (connection_.phase) {
    case Phase::none:
    case Phase::live:
      return false;
    case Phase::ready:
      return (connection_.resumes || may_begin_) && go_live();
    case Phase::opening:
      if (connection_.stream->advance() == ByteStream::State::open) {
        const Hello mine = hello_now(session_ != nullptr ? session_->number : 0, 0);
        connection_.phase = Phase::hello;
        return say(*connection_.stream, RecordKind::hello, bytes_of(mine));
      }
      break;
    default:
      if (step_greeting()) return true;
  }
  if (connection_.phase == Phase::none) return false;
  const bool closed = connection_.stream->state() == ByteStream::State::closed;
  if (closed && connection_.stream->why_closed().code == EACCES)
    refusals_.count(StreamRefusal::wrong_key, "a connection", header_.to);
  if (closed || now_ >= connection_.until) lose_connection();
  return false;
}

bool StreamTransport::step_greeting() {
  const auto got = connection_.greeting.read(*connection_.stream);
  if (got == StreamGreeting::Got::nothing) return false;
  if (got == StreamGreeting::Got::refused) return refuse(connection_.greeting.refusal());
  const RecordKind kind = connection_.greeting.kind();
  const auto body = connection_.greeting.body();
  if (kind == RecordKind::bye) {
    on_bye(body);
    return false;
  }
  const bool expects_hello = connection_.phase == Phase::hello;
  if (expects_hello != (kind == RecordKind::hello)) return refuse(StreamRefusal::unknown_record);
  return expects_hello ? on_hello(read_as<Hello>(body)) : on_open(body);
}

void StreamTransport::on_bye(std::span<const std::byte> body) {
  const auto bye = read_as<Bye>(body);
  const u32 refusal = bye.refusal < stream_refusals ? u32{bye.refusal} : 0;
  if (refusal != 0)
    refusals_.count(StreamRefusal::by_peer, name_of(static_cast<StreamRefusal>(refusal)),
                    header_.to);
  lose_connection();
}

bool StreamTransport::on_hello(const Hello& hello) {
  const u32 epoch = peer_epoch_;
  StreamRefusal refusal = check_hello(hello, options_.cob, KernelId(header_.from));
  if (refusal == StreamRefusal::none && hello.from != header_.to)
    refusal = StreamRefusal::wrong_kernel;
  if (refusal == StreamRefusal::none) refusal = judge(hello);
  if (refusal != StreamRefusal::none) return refuse(refusal);
  connection_.theirs = hello;
  connection_.session = hello.session;
  connection_.resumes =
      session_ != nullptr && epoch == peer_epoch_ && session_->number == hello.session;
  if (session_ != nullptr && !connection_.resumes)
    end_session(Error::of(ECONNRESET, "kernel has begun anew"));
  connection_.phase = Phase::open;
  return true;
}

bool StreamTransport::on_open(std::span<const std::byte> body) {
  const auto open = read_as<Open>(body);
  const auto header = body.subspan(sizeof open);
  if (open.nonce != connection_.nonce || header.empty() != connection_.resumes)
    return refuse(StreamRefusal::bad_record);
  if (!connection_.resumes) {
    connection_.header = read_as<LinkHeader>(header);
    if (connection_.header.from_epoch != connection_.theirs.from_epoch ||
        connection_.header.bulk_bytes % 4'096 != 0)
      return refuse(StreamRefusal::bad_record);
    if (connection_.header.bulk_bytes > options_.max_peer_bulk_bytes)
      return refuse(StreamRefusal::too_large);
  }
  connection_.phase = Phase::ready;
  return true;
}

bool StreamTransport::go_live() {
  if (dials() && !say_open(connection_.theirs.nonce)) {
    lose_connection();
    return false;
  }
  if (!connection_.resumes && begin_session().is_error()) {
    lose_connection();
    return false;
  }
  session_->receiver->reset();
  connection_.phase = Phase::live;
  connection_.live_since = heard_ = said_ = now_;
  ++counters_.connections;
  if (connection_.resumes && !session_->sender->resume(connection_.theirs.received))
    fault(StreamRefusal::bad_record);
  return false;
}

bool StreamTransport::refuse(StreamRefusal refusal) {
  refusals_.count(refusal, "a connection", header_.to);
  say_bye(*connection_.stream, EPROTO, refusal);
  lose_connection();
  return false;
}

void StreamTransport::lose_connection() {
  const bool lasted =
      connection_.phase == Phase::live && now_ - connection_.live_since >= options_.lease / 8;
  connection_ = {};
  if (!dials()) return;
  if (lasted) back_off_ = options_.least_back_off;
  const auto jitter = static_cast<i64>(random_.below(static_cast<u64>(back_off_.ns / 2) + 1));
  next_dial_ = now_ + back_off_ / 2 + Duration::nanoseconds(jitter);
  back_off_ = std::min(back_off_ * 2, options_.most_back_off);
}

}  // namespace cob::message
