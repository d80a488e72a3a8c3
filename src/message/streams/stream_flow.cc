// Streams' flows: writing, reading, what the peer sends, credits, and turns at a full ring.
// See stream.h. The kernel's loop.
#include <algorithm>
#include <cstring>

#include "message/streams/stream.h"

namespace cob::message {

namespace {

constexpr u32 data_lines = lines_for(sizeof(StreamData) + StreamData::max_tail);
// What streams may fill of a link's ring of messages; the rest is for others. More than the lines
// that a reader may keep uncredited, so that room always comes.
constexpr u32 ring_lines = message_slots / 8 * 3;
static_assert(ring_lines >= MessageReader::credit_every + data_lines);
static_assert(ring_lines < Lane<message_slots>::half);

// A reader tells what it has read when it is a quarter of the window.
constexpr u32 worth_telling(u32 window) { return window / 4; }

}  // namespace

// ---- Writing.

Result<std::size_t> Streams::write(StreamId id, std::span<const std::byte> bytes) {
  StreamState& stream = *TRY(held(id));
  if (stream.phase == Phase::failed) return Error::of(stream.error, "stream has failed");
  if (stream.ended_out) return Error::of(EPIPE, "stream was shut down");
  PeerStreams& peer = peers_[stream.peer.value];
  std::size_t done = 0;
  while (done < bytes.size() && stream.phase == Phase::open) {
    const std::size_t room = stream.room();
    if (room == 0) {
      ++stats(stream.peer).stream_window_full;
      break;
    }
    const auto n =
        write_some(peer, stream, bytes.subspan(done, std::min(bytes.size() - done, room)));
    if (n.is_error()) {
      if (n.error().code == EAGAIN) break;
      look_at(stream.peer);
      if (stream.phase == Phase::open) return n.error();
      break;
    }
    stream.sent += static_cast<u32>(n.value());
    peer.in_flight += n.value();
    stats(stream.peer).stream_bytes_out += n.value();
    done += n.value();
  }
  stream.wants_write = done < bytes.size();
  if (done > 0 || bytes.empty()) return done;
  if (stream.phase == Phase::failed) return Error::of(stream.error, "stream has failed");
  return Error::of(EAGAIN, "no room for a stream's bytes now");
}

Result<std::size_t> Streams::write_some(PeerStreams& peer, StreamState& stream,
                                        std::span<const std::byte> bytes) {
  Link& link = *messenger_.links().find(stream.peer);
  const StreamData data{.to = stream.remote.value, .from = stream.id.value};
  if (const std::size_t lent = lendable(peer, stream, link, bytes.size())) {
    if (!may_use(peer, stream, link, 1)) return Error::of(EAGAIN, "no room in the ring");
    if (auto buffer = messenger_.allocate(stream.peer, lent)) {
      std::memcpy(buffer.value().bytes().data(), bytes.data(), lent);
      TRY(messenger_.send(stream.peer, data, {.lend = &buffer.value()}));
      ++link.counters.stream_loans_out;
      return lent;
    }
  }
  const std::size_t n = std::min(bytes.size(), StreamData::max_tail);
  if (!may_use(peer, stream, link, lines_for(sizeof data + n)))
    return Error::of(EAGAIN, "no room in the ring");
  TRY(messenger_.send(stream.peer, data, {.tail = bytes.first(n)}));
  return n;
}

// How many of `bytes` to send as one loan; 0: none. A quarter of the window at a time, so that
// reading and writing overlap. At most half of what the link can lend, in bytes and in loans, is
// with readers of streams: others borrow too.
std::size_t Streams::lendable(const PeerStreams& peer, const StreamState& stream, const Link& link,
                              std::size_t bytes) const {
  if (bytes < options_.lend_from_bytes || !link.connected) return 0;
  const std::size_t n =
      std::min<std::size_t>(bytes, std::max(stream.window_out / 4, options_.lend_from_bytes));
  const Lender& lender = *link.lender;
  return lender.lent() < max_loans / 2 && peer.in_flight + n <= lender.capacity() / 2 ? n : 0;
}

// Whether the stream may put `lines` into the ring now. If not it waits, and others do not pass it.
bool Streams::may_use(PeerStreams& peer, StreamState& stream, Link& link, u32 lines) {
  if (!link.connected) return true;  // for the Messenger to refuse
  const bool first = peer.waiting.empty() || peer.waiting.first() == &stream;
  const bool has_turn = stream.turn == round_ && stream.turn_lines >= lines;
  if (first || has_turn) {
    if (link.normal.out.room(lines, ring_lines) != Room::no) {
      if (has_turn) stream.turn_lines -= lines;
      peer.waiting.remove(stream);
      return true;
    }
    link.starved = true;
  }
  ++link.counters.stream_ring_full;
  peer.waiting.push(stream);
  return false;
}

// As many of those who wait as the ring has room for, each with its share of it, until the next
// poll. Those who do not use their turn wait no longer.
void Streams::give_turns(PeerStreams& peer) {
  if (peer.waiting.empty()) return;
  Link& link = *messenger_.links().find(peer.peer);
  auto& ring = link.normal.out;
  if (ring.room(ring_lines, ring_lines) == Room::fault) return;  // the next send cuts the link
  const u32 free = ring.in_flight() < ring_lines ? ring_lines - ring.in_flight() : 0;
  const u32 turns = std::min(free / data_lines, static_cast<u32>(peer.waiting.size()));
  if (turns == 0) link.starved = true;
  for (u32 i = 0; i < turns; ++i) {
    StreamState& stream = *peer.waiting.first();
    peer.waiting.remove(stream);
    stream.turn = round_;
    stream.turn_lines = free / turns;
    set_ready(stream);
  }
}

// ---- Reading.

Result<std::size_t> Streams::read(StreamId id, std::span<std::byte> to) {
  StreamState& stream = *TRY(held(id));
  if (stream.queue.empty()) {
    if (stream.ended_in || to.empty()) return std::size_t{0};
    if (stream.phase == Phase::failed) return Error::of(stream.error, "stream has failed");
    return Error::of(EAGAIN, "nothing to read now");
  }
  const std::size_t n = stream.queue.read(to, pool_);
  stream.consumed += static_cast<u32>(n);
  if (stream.phase == Phase::open && !stream.ended_in &&
      stream.consumed - stream.told >= worth_telling(options_.window_bytes)) {
    stream.owes_credit = true;
    owe(stream);
  }
  return n;
}

std::optional<Streams::Ready> Streams::next_ready() {
  StreamState* stream = ready_.first();
  if (stream == nullptr) return std::nullopt;
  ready_.remove(*stream);
  const bool failed = stream->phase == Phase::failed;
  return Ready{.stream = stream->id,
               .readable = failed || stream->ended_in || !stream->queue.empty(),
               .writable = failed || (stream->wants_write && stream->room() > 0)};
}

void Streams::set_ready(StreamState& stream) {
  if (stream.held) ready_.push(stream);
}

// ---- What the peer sends.

StreamState* Streams::addressed(KernelId from, u32 to, u32 sender) {
  look_at(from);
  StreamState* stream = find(StreamId(to));
  if (stream == nullptr || stream->peer != from) {
    ++stats(from).stream_strays;
    return nullptr;
  }
  if (stream->phase == Phase::failed) return nullptr;  // crossed with its reset
  if (stream->phase != Phase::open || stream->remote.value != sender) {
    break_off(*stream,
              stream->phase != Phase::open ? StreamBreach::too_early : StreamBreach::not_its_own);
    return nullptr;
  }
  return stream;
}

void Streams::take_data(Incoming& in, const StreamData& data) {
  const u64 strays = stats(in.from).stream_strays;
  StreamState* stream = addressed(in.from, data.to, data.from);
  if (stream == nullptr) {
    // Only by a reset can a stream have gone before its peer ended it: told again, if there is
    // room, so that nobody is left with half of one. Nothing ever answers a reset.
    if (stats(in.from).stream_strays != strays)
      (void)messenger_.send(in.from,
                            StreamReset{.to = data.from, .from = data.to, .reason = ECONNRESET});
    return;
  }
  const std::size_t bytes = in.tail.size() + in.loan.bytes().size();
  const u32 offered = options_.window_bytes - (stream->received - stream->told);
  if (stream->ended_in) return break_off(*stream, StreamBreach::after_end);
  if (bytes > offered) return break_off(*stream, StreamBreach::beyond_window);
  if (in.loan.valid() && (bytes < min_stream_loan || !in.tail.empty()))
    return break_off(*stream, StreamBreach::bad_loan);
  if (bytes == 0) {
    stream->ended_in = true;
    stream->owes_credit = false;
    set_ready(*stream);
    remove_if_over(*stream);
    return;
  }
  if (!stream->held) return end_with(*stream, ECONNRESET, ECONNRESET);
  stats(in.from).stream_bytes_in += bytes;
  stream->received += static_cast<u32>(bytes);
  if (in.loan.valid()) {
    stream->queue.append(std::move(in.loan), pool_);
  } else {
    stream->queue.append(in.tail, pool_);
  }
  set_ready(*stream);
}

void Streams::take_credit(KernelId from, const StreamCredit& credit) {
  StreamState* stream = addressed(from, credit.to, credit.from);
  if (stream == nullptr) return;
  const u32 more = credit.consumed - stream->credited;
  if (more > stream->sent - stream->credited) return break_off(*stream, StreamBreach::bad_credit);
  stream->credited += more;
  peers_[from.value].in_flight -= more;
  if (stream->wants_write) set_ready(*stream);
}

// ---- What we owe the peer.

// Says it now, unless there is no room or others wait for the same.
void Streams::owe(StreamState& stream) {
  PeerStreams& peer = peers_[stream.peer.value];
  if (stream.phase != Phase::accepting && peer.owing.empty() && pay(stream)) {
    remove_if_over(stream);
  } else {
    peer.owing.push(stream);
  }
}

// False: there is no room.
bool Streams::pay(StreamState& stream) {
  const auto said = [&](const auto& message) {
    const auto sent = messenger_.send(stream.peer, message);
    return !sent.is_error() || sent.error().code != EAGAIN;  // any other: the link has gone
  };
  const u32 to = stream.remote.value, from = stream.id.value;
  if (stream.owes_credit) {
    if (!said(StreamCredit{.to = to, .from = from, .consumed = stream.consumed})) return false;
    stream.told = stream.consumed;
    stream.owes_credit = false;
  }
  if (stream.owes == Farewell::end && !said(StreamData{.to = to, .from = from})) return false;
  if (stream.owes == Farewell::reset &&
      !said(StreamReset{.to = to, .from = from, .reason = static_cast<u32>(stream.reason)}))
    return false;
  stream.owes = Farewell::none;
  return true;
}

void Streams::poll() {
  ++round_;
  PeerStreams* next = nullptr;
  for (PeerStreams* peer = active_.first(); peer != nullptr; peer = next) {
    next = active_.after(*peer);
    look_at(peer->peer);
    while (StreamState* stream = peer->owing.first()) {
      if (!pay(*stream)) break;
      peer->owing.remove(*stream);
      remove_if_over(*stream);
    }
    give_turns(*peer);
  }
}

}  // namespace cob::message
