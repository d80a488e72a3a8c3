// Streams' lives: opening, accepting, giving up, resets, breaches and the peer's end.
// See stream.h; the flows themselves are in stream_flow.cc. The kernel's loop.
#include "message/streams/stream.h"

#include "base/log.h"

namespace cob::message {

namespace {
constexpr int last_errno = 4'095;

bool is_errno(u32 reason) { return reason > 0 && reason <= u32{last_errno}; }
bool is_window(u32 bytes) { return bytes >= min_stream_window && bytes <= max_stream_window; }
}  // namespace

Streams::Streams(Messenger& messenger, const StreamOptions& options)
    : messenger_(messenger), options_(options), peers_(messenger.links().kernels()) {
  VERIFY(is_window(options.window_bytes) && options.lend_from_bytes >= min_stream_loan);
  for (std::size_t i = 0; i < peers_.size(); ++i) peers_[i].peer = KernelId(static_cast<u16>(i));
  messenger.on<StreamOpen, StreamOpened>(
      [this](KernelId from, const StreamOpen& open, ReplyToken<StreamOpened> token) {
        take_open(from, open, std::move(token));
      });
  messenger.on<StreamData>([this](Incoming& in, const StreamData& data) { take_data(in, data); });
  messenger.on<StreamCredit>(
      [this](KernelId from, const StreamCredit& credit) { take_credit(from, credit); });
  messenger.on<StreamReset>(
      [this](KernelId from, const StreamReset& reset) { take_reset(from, reset); });
}

Streams::~Streams() = default;

void Streams::on_open(u32 service, Acceptor acceptor) {
  const bool first = acceptors_.emplace(service, std::move(acceptor)).second;
  VERIFY(first);  // one acceptor a service
}

// ---- Places. A number is its place in `slots_` and, above it, a generation from 1.

StreamState* Streams::find(StreamId id) const {
  const u32 place = id.value & 0xffff;
  if (place >= slots_.size()) return nullptr;
  StreamState* stream = slots_[place].get();
  return stream->taken && stream->id == id ? stream : nullptr;
}

Result<StreamState*> Streams::held(StreamId id) {
  StreamState* stream = find(id);
  if (stream == nullptr || !stream->held) return Error::of(EBADF, "no such stream");
  look_at(stream->peer);
  return stream;
}

Result<StreamState*> Streams::add(PeerStreams& peer) {
  if (size() >= options_.max_streams || peer.streams.size() >= options_.max_streams_of_peer)
    return Error::of(EMFILE, "too many streams");
  StreamState* stream = free_.first();
  if (stream == nullptr) {
    slots_.push_back(std::make_unique<StreamState>());
    stream = slots_.back().get();
    stream->id = StreamId(static_cast<u32>(slots_.size() - 1) | 1U << 16);
  } else {
    free_.remove(*stream);
  }
  stream->taken = true;
  stream->peer = peer.peer;
  peer.streams.push(*stream);
  active_.push(peer);
  return stream;
}

void Streams::remove(StreamState& stream) {
  PeerStreams& peer = peers_[stream.peer.value];
  peer.in_flight -= stream.sent - stream.credited;
  peer.streams.remove(stream);
  peer.waiting.remove(stream);
  peer.owing.remove(stream);
  ready_.remove(stream);
  if (peer.streams.empty()) active_.remove(peer);
  stream.queue.clear(pool_);
  const u32 generation = (stream.id.value >> 16) == 0xffff ? 1 : (stream.id.value >> 16) + 1;
  const StreamId next((stream.id.value & 0xffff) | generation << 16);
  stream = StreamState{};
  stream.id = next;
  free_.push(stream);
}

void Streams::remove_if_over(StreamState& stream) {
  if (stream.held || stream.owes != Farewell::none) return;
  const bool over = stream.phase == Phase::failed ||
                    (stream.phase == Phase::open && stream.ended_in && stream.ended_out);
  if (over) remove(stream);
}

// ---- Opening.

Result<StreamId> Streams::open(KernelId to, u32 service, Time deadline, Opened opened) {
  if (to.value >= peers_.size()) return Error::of(ENETDOWN, "no such kernel");
  StreamState& stream = *TRY(add(look_at(to)));
  const StreamId id = stream.id;
  const auto request = messenger_.request<StreamOpen, StreamOpened>(
      to, StreamOpen{.stream = id.value, .service = service, .window = options_.window_bytes},
      deadline, [this, id](const Result<StreamOpened>& reply) { finish_open(id, reply); });
  if (request.is_error()) {
    remove(stream);
    return request.error();
  }
  stream.request = request.value();
  stream.opened = std::move(opened);
  return id;
}

void Streams::finish_open(StreamId id, const Result<StreamOpened>& reply) {
  StreamState* stream = find(id);
  VERIFY(stream != nullptr && stream->phase == Phase::opening);
  Opened opened = std::move(stream->opened);
  if (!reply.is_error() && reply.value().stream != 0 && is_window(reply.value().window)) {
    stream->remote = StreamId(reply.value().stream);
    stream->window_out = reply.value().window;
    stream->phase = Phase::open;
    ++stats(stream->peer).streams_opened;
    if (stream->wants_write) set_ready(*stream);
    opened(id);
    return;
  }
  Error why = reply.is_error() ? reply.error() : Error::of(EPROTO, "kernel broke a stream's rules");
  if (!reply.is_error()) count(stream->peer, StreamBreach::bad_window);
  if (stream->error != 0) why = Error::of(stream->error, "kernel broke a stream's rules");
  stream->held = false;
  // The peer may have accepted, or do so yet.
  if (!reply.is_error() || why.code == ETIMEDOUT || why.code == ECANCELED || stream->error != 0) {
    end_with(*stream, why.code, why.code);
  } else {
    remove(*stream);
  }
  opened(why);
}

// Why a peer's stream cannot be had; 0: it can.
int Streams::why_not(PeerStreams& peer, const StreamOpen& open) {
  StreamBreach breach = StreamBreach::bad_window;
  bool broken = open.stream == 0 || !is_window(open.window);
  for (const StreamState* s = peer.streams.first(); s != nullptr && !broken;
       s = peer.streams.after(*s)) {
    // One that has ended both ways may be at an end there already, and its number given anew.
    const bool there = s->phase == Phase::open && !(s->ended_in && s->ended_out);
    broken = there && s->accepted && s->remote.value == open.stream;
    if (broken) breach = StreamBreach::opened_twice;
  }
  if (!broken) return acceptors_.contains(open.service) ? 0 : ECONNREFUSED;
  count(peer.peer, breach);
  return EPROTO;
}

void Streams::take_open(KernelId from, const StreamOpen& open, ReplyToken<StreamOpened> token) {
  PeerStreams& peer = look_at(from);
  int refused = why_not(peer, open);
  StreamState* stream = nullptr;
  if (refused == 0) {
    auto added = add(peer);
    if (added.is_error()) {
      refused = added.error().code;
    } else {
      stream = added.value();
    }
  }
  if (refused != 0) {
    ++stats(from).streams_refused;
    token.fail(refused);
    return;
  }
  stream->remote = StreamId(open.stream);
  stream->window_out = open.window;
  stream->accepted = true;
  stream->phase = Phase::accepting;
  const u32 generation = peer.generation;
  const auto taken = acceptors_.find(open.service)->second(from, stream->id);
  const Link& link = *messenger_.links().find(from);
  if (!link.connected || link.generation != generation) {  // it has gone meanwhile
    fail(*stream, ECONNRESET);
    remove_if_over(*stream);
  } else if (taken.is_error() || !stream->held) {
    ++stats(from).streams_refused;
    remove(*stream);
    token.fail(taken.is_error() ? taken.error().code : ECONNABORTED);
  } else {
    ++stats(from).streams_accepted;
    stream->phase = Phase::open;
    token.answer({.stream = stream->id.value, .window = options_.window_bytes});
    if (stream->wants_write) set_ready(*stream);
  }
}

// ---- Ends.

Result<void> Streams::shutdown_write(StreamId id) {
  StreamState& stream = *TRY(held(id));
  if (stream.phase == Phase::opening) return Error::of(ENOTCONN, "stream is not open yet");
  if (stream.phase == Phase::failed) return Error::of(stream.error, "stream has failed");
  if (std::exchange(stream.ended_out, true)) return {};
  stream.owes = Farewell::end;
  owe(stream);
  return {};
}

Result<void> Streams::close(StreamId id) {
  StreamState& stream = *TRY(held(id));
  if (!stream.queue.empty()) return reset(id, ECONNRESET);
  if (stream.phase == Phase::opening) return reset(id, ECANCELED);
  if (stream.phase == Phase::open || stream.phase == Phase::accepting) (void)shutdown_write(id);
  stream.held = false;
  ready_.remove(stream);
  remove_if_over(stream);
  return {};
}

Result<void> Streams::reset(StreamId id, int reason) {
  VERIFY(is_errno(static_cast<u32>(reason)));
  StreamState& stream = *TRY(held(id));
  if (stream.phase == Phase::opening) {
    messenger_.cancel(stream.request);  // finish_open() does the rest
    return {};
  }
  stream.held = false;
  if (stream.phase == Phase::accepting) return {};  // take_open() does the rest
  if (stream.phase == Phase::open) {
    end_with(stream, reason, reason);
  } else {
    ready_.remove(stream);
    remove_if_over(stream);
  }
  return {};
}

// Over here, and for the peer as soon as it can be told. May remove the stream.
void Streams::end_with(StreamState& stream, int reason, int error) {
  fail(stream, error);
  stream.owes = Farewell::reset;
  stream.reason = reason;
  ++stats(stream.peer).stream_resets_out;
  owe(stream);
}

void Streams::fail(StreamState& stream, int error) {
  PeerStreams& peer = peers_[stream.peer.value];
  stream.phase = Phase::failed;
  stream.error = error;
  stream.owes = Farewell::none;
  stream.owes_credit = false;
  peer.in_flight -= stream.sent - std::exchange(stream.credited, stream.sent);
  peer.waiting.remove(stream);
  peer.owing.remove(stream);
  if (!stream.held || !stream.ended_in || error == EPROTO) {
    stream.queue.clear(pool_);
    stream.ended_in = false;
  }
  if (stream.held) {
    set_ready(stream);
  } else {
    ready_.remove(stream);
  }
}

StreamCounters Streams::counters() const {
  StreamCounters sum;
  for (const PeerStreams& peer : peers_) {
    const PeerStats& stats = this->stats(peer.peer);
    sum.opened += stats.streams_opened;
    sum.accepted += stats.streams_accepted;
    sum.refused += stats.streams_refused;
    sum.resets_in += stats.stream_resets_in;
    sum.resets_out += stats.stream_resets_out;
    sum.strays += stats.stream_strays;
    sum.bytes_in += stats.stream_bytes_in;
    sum.bytes_out += stats.stream_bytes_out;
    sum.loans_out += stats.stream_loans_out;
    sum.window_full += stats.stream_window_full;
    sum.ring_full += stats.stream_ring_full;
    for (std::size_t i = 0; i < stream_breaches; ++i)
      sum.breaches.counter[i] += stats.stream_breached.counter[i];
  }
  return sum;
}

void Streams::count(KernelId peer, StreamBreach breach) {
  Counter& counter = stats(peer).stream_breached[breach];
  if (counter == 0)
    COB_LOG(warn, "kernel {}: kernel {} broke a stream: {}", messenger_.links().self().value,
            peer.value, name_of(breach));
  ++counter;
}

void Streams::break_off(StreamState& stream, StreamBreach breach) {
  count(stream.peer, breach);
  if (stream.phase == Phase::opening) {
    stream.error = EPROTO;
    messenger_.cancel(stream.request);
  } else {
    end_with(stream, EPROTO, EPROTO);
  }
}

void Streams::take_reset(KernelId from, const StreamReset& reset) {
  look_at(from);
  StreamState* stream = nullptr;
  if (reset.to == 0) {
    const PeerStreams& peer = peers_[from.value];
    for (stream = peer.streams.first(); stream != nullptr; stream = peer.streams.after(*stream)) {
      if (stream->accepted && stream->remote.value == reset.from && stream->phase == Phase::open)
        break;
    }
    if (stream == nullptr) ++stats(from).stream_strays;
  } else {
    stream = addressed(from, reset.to, reset.from);
  }
  if (stream == nullptr) return;
  if (!is_errno(reset.reason)) return break_off(*stream, StreamBreach::bad_reason);
  ++stats(from).stream_resets_in;
  fail(*stream, static_cast<int>(reset.reason));
  remove_if_over(*stream);
}

// ---- The peer's end.

// Its streams end with the link that they were on.
PeerStreams& Streams::look_at(KernelId kernel) {
  PeerStreams& peer = peers_[kernel.value];
  const Link& link = *messenger_.links().find(kernel);
  if (peer.generation == link.generation && link.connected) [[likely]]
    return peer;
  peer.generation = link.generation;
  drop_all(peer);
  return peer;
}

void Streams::drop_all(PeerStreams& peer) {
  StreamState* next = nullptr;
  for (StreamState* stream = peer.streams.first(); stream != nullptr; stream = next) {
    next = peer.streams.after(*stream);
    // The Messenger ends the request; the acceptor has not decided.
    if (stream->phase == Phase::opening || stream->phase == Phase::accepting) continue;
    peer.owing.remove(*stream);
    stream->owes = Farewell::none;
    if (stream->phase != Phase::failed) fail(*stream, ECONNRESET);
    remove_if_over(*stream);
  }
}

}  // namespace cob::message
