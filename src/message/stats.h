// StatsPage: what a kernel counts about each of its peers, as it lies in a page that others may map
// read-only. Model: a header, then one PeerStats a kernel; every counter is one aligned u64 in the
// host's byte order, stored by one writer, loaded by anyone at any time: each word is exact, two
// words may be a few messages apart. Written by the kernel's loop; see docs/messaging.md, 10.
#pragma once

#include <algorithm>
#include <array>

#include "base/clock.h"
#include "base/histogram.h"
#include "message/flat.h"

namespace cob::message {

// A plain load and a plain store for its writer; no reader ever sees half of one.
class Counter {
 public:
  constexpr Counter() = default;
  Counter& operator=(u64 value) {
    __atomic_store_n(&value_, value, __ATOMIC_RELAXED);
    return *this;
  }
  Counter& operator+=(u64 n) { return *this = get() + n; }
  Counter& operator++() { return *this += 1; }
  u64 get() const { return __atomic_load_n(&value_, __ATOMIC_RELAXED); }
  operator u64() const { return get(); }  // NOLINT(google-explicit-constructor)

 private:
  u64 value_ = 0;
};

// One counter for each of an enum's values, from 0. Converts to their sum.
template <typename Enum, std::size_t n>
struct CounterOf {
  static constexpr std::size_t size = n;
  Counter counter[n];

  Counter& operator[](Enum which) { return counter[static_cast<std::size_t>(which)]; }
  const Counter& operator[](Enum which) const { return counter[static_cast<std::size_t>(which)]; }
  operator u64() const {  // NOLINT(google-explicit-constructor)
    u64 sum = 0;
    for (const Counter& c : counter) sum += c;
    return sum;
  }
};

// Why a request of ours failed.
enum class Failure : u8 {
  deadline,       // ETIMEDOUT
  cancelled,      // by us
  peer_ended,     // ECONNRESET
  lease_ran_out,  // EHOSTDOWN
  peer_broke,     // EPROTO: it broke the protocol and was cut off
  handler,        // the handler's own error
  no_handler,     // ENOSYS, also if a handler says so itself
  unanswered,     // ECANCELED: the handler dropped its token, or says so itself
};
inline constexpr std::size_t failures = 8;

// What a peer, or somebody who claimed to be one, was refused for. Those from `bad_sequence` on cut
// the link.
enum class Refusal : u8 {
  unsealed_memory,  // or no memory at all
  wrong_size,       // of the memory
  wrong_layout,     // no link's memory, or no cob's connection
  wrong_version,    // of it
  wrong_kernel,     // of another kernel, or another epoch than was announced
  wrong_schema,     // a message type whose layouts conflict
  wrong_key,        // or another cob
  second_claim,     // a second peer with a kernel's number
  bad_sequence,     // in a ring's line
  bad_length,       // more than a ring's message can have, or not the type's
  bad_kind,
  bad_form,  // flags or priority that the type does not have
  unknown_type,
  unasked_reply,    // or one that does not fit what was asked
  unreserved_room,  // its request reserved less than its reply takes
  bad_credit,
  bad_loan,   // outside of its bulk area, or a returned one that was not lent
  bad_frame,  // impossible entry of the frame ring
};
inline constexpr std::size_t refusals = 18;

// Why a connection of the socket transport was turned away or cut.
enum class StreamRefusal : u8 {
  none = 0,
  wrong_key,
  wrong_magic,
  wrong_version,
  wrong_cob,
  wrong_kernel,  // not for us, not known here, or not the one that the key was for
  second_peer,   // claims the number of a kernel that is another, or a later one
  old_attempt,   // a connection older than the one we have, or a copy of it
  bad_length,    // truncated or oversized
  unknown_record,
  bad_record,  // an index, offset, count or credit that cannot be
  too_late,    // did not authenticate in time
  too_many,    // waited longest among too many that have not authenticated
  too_large,   // its bulk area
  by_peer,     // we were turned away
};
inline constexpr std::size_t stream_refusals = 15;

// How a peer can break the rules of a stream. It is reset with EPROTO; the link goes on, since
// nobody else is harmed.
enum class StreamBreach : u8 {
  opened_twice,   // a second open of one that is still open
  bad_window,     // outside the bounds
  too_early,      // before the answer to open
  not_its_own,    // another stream's number as its sender
  beyond_window,  // more bytes than were credited
  after_end,      // bytes, or another end
  bad_loan,       // too short, or with a tail
  bad_credit,     // for what was not sent
  bad_reason,     // of a reset: no errno
};
inline constexpr std::size_t stream_breaches = 9;

enum class TransportKind : u8 { none, self, coherent, window, socket, simulated, other };

const char* name_of(Failure failure);
const char* name_of(Refusal refusal);
const char* name_of(TransportKind kind);
const char* name_of(StreamRefusal refusal);
const char* name_of(StreamBreach breach);

// Requests that were answered, by the time from request() to the answer's delivery, as far as the
// loop's own clock tells: from the `now` of the last poll() before the request to the `now` of the
// poll() that delivered. So it contains what the loop did in that turn before it asked, and lacks
// the time that the last turn had run when the answer was found: each at most a turn.
// Not timed: requests that were sent before the first poll, or between waking up and the next poll.
struct RoundTrips {
  static constexpr std::size_t buckets = 128;  // four a power of two; the last: all above 7.5 s
  using Scale = LogLinear<2>;

  Counter sum_ns;
  Counter max_ns;
  // Sum of the turns before those that delivered, without those that slept: divided by the count,
  // about how far a round trip may be off.
  Counter turns_ns;
  Counter reserved[5];
  Counter bucket[buckets];

  void record(Duration taken, Duration turn) {
    const auto value = static_cast<u64>(std::max<i64>(taken.ns, 0));
    ++bucket[std::min(Scale::bucket_of(value), buckets - 1)];
    sum_ns += value;
    turns_ns += static_cast<u64>(std::max<i64>(turn.ns, 0));
    if (value > max_ns) max_ns = value;
  }
  u64 count() const;
  // Never below the exact percentile of what was recorded, at most a quarter above; 0 if empty.
  u64 percentile(double percent) const;
};

struct alignas(cache_line_bytes) PeerStats {
  // Sending.
  CounterOf<Priority, 2> messages_out;  // all kinds: one-way, requests, answers
  Counter bytes_out;                    // of messages, without heads
  Counter requests_out;
  Counter answers_out;
  Counter errors_out;     // requests of the peer answered with an error
  Counter messages_full;  // sends refused with EAGAIN: the ring had no room
  Counter requests_full;  // requests refused with EAGAIN: too many outstanding
  // Receiving.
  CounterOf<Priority, 2> messages_in;
  Counter bytes_in;
  Counter requests_in;
  Counter answered;      // requests of ours, with a reply
  Counter answers_late;  // after the request's deadline or cancellation
  Counter doorbells_rung;
  Counter doorbells_heard;  // as far as the kernel says so: Messenger::heard()
  CounterOf<Failure, failures> failed;
  // The link.
  Counter connected;  // 0 or 1
  Counter epoch;      // the peer's, of the present or the last session
  Counter transport;  // TransportKind
  Counter sessions_begun;
  Counter sessions_ended;
  Counter messages_unhandled;  // received, but nobody registered for them
  Counter faults;              // times the link was cut for a broken protocol
  Counter reserved;
  // Frames and loans.
  Counter frames_out;
  Counter frames_in;
  Counter frames_full;  // dropped
  Counter loans_out;    // lent to the peer
  Counter loan_bytes_out;
  Counter loans_returned;  // by the peer
  Counter loans_in;        // lent by the peer
  Counter loan_bytes_in;
  CounterOf<Refusal, refusals> refused;
  // Connections of the socket transport. Those of strangers: at the kernel's own PeerStats.
  CounterOf<StreamRefusal, stream_refusals> connections_refused;
  // Streams.
  Counter streams_opened;
  Counter streams_accepted;
  Counter streams_refused;  // by us
  Counter stream_resets_in;
  Counter stream_resets_out;
  Counter stream_strays;  // messages for streams that are no more, or never were
  Counter stream_bytes_in;
  Counter stream_bytes_out;
  Counter stream_loans_out;
  Counter stream_window_full;  // writes cut short
  Counter stream_ring_full;    // likewise
  CounterOf<StreamBreach, stream_breaches> stream_breached;
  Counter reserved_too[3];
  RoundTrips round_trips;  // of requests to the peer

  // True the first time: worth a line in the log.
  bool refuse(Refusal why) {
    ++refused[why];
    return refused[why] == 1;
  }
};
static_assert(sizeof(PeerStats) == 12 * 64 + 64 + 128 * 8);

// What only counts up, by name; beside it there are the counters by priority and by cause.
struct StatsField {
  const char* name;
  Counter PeerStats::* counter;
};
inline constexpr auto stats_fields = std::to_array<StatsField>({
    {"bytes_out", &PeerStats::bytes_out},
    {"bytes_in", &PeerStats::bytes_in},
    {"requests_out", &PeerStats::requests_out},
    {"requests_in", &PeerStats::requests_in},
    {"requests_full", &PeerStats::requests_full},
    {"answered", &PeerStats::answered},
    {"answers_late", &PeerStats::answers_late},
    {"answers_out", &PeerStats::answers_out},
    {"errors_out", &PeerStats::errors_out},
    {"messages_full", &PeerStats::messages_full},
    {"messages_unhandled", &PeerStats::messages_unhandled},
    {"doorbells_rung", &PeerStats::doorbells_rung},
    {"doorbells_heard", &PeerStats::doorbells_heard},
    {"sessions_begun", &PeerStats::sessions_begun},
    {"sessions_ended", &PeerStats::sessions_ended},
    {"faults", &PeerStats::faults},
    {"frames_out", &PeerStats::frames_out},
    {"frames_in", &PeerStats::frames_in},
    {"frames_full", &PeerStats::frames_full},
    {"loans_out", &PeerStats::loans_out},
    {"loan_bytes_out", &PeerStats::loan_bytes_out},
    {"loans_returned", &PeerStats::loans_returned},
    {"loans_in", &PeerStats::loans_in},
    {"loan_bytes_in", &PeerStats::loan_bytes_in},
    {"streams_opened", &PeerStats::streams_opened},
    {"streams_accepted", &PeerStats::streams_accepted},
    {"streams_refused", &PeerStats::streams_refused},
    {"stream_resets_in", &PeerStats::stream_resets_in},
    {"stream_resets_out", &PeerStats::stream_resets_out},
    {"stream_strays", &PeerStats::stream_strays},
    {"stream_bytes_in", &PeerStats::stream_bytes_in},
    {"stream_bytes_out", &PeerStats::stream_bytes_out},
    {"stream_loans_out", &PeerStats::stream_loans_out},
    {"stream_window_full", &PeerStats::stream_window_full},
    {"stream_ring_full", &PeerStats::stream_ring_full},
});

struct alignas(cache_line_bytes) StatsHeader {
  static constexpr u32 magic_value = 0x73626f63;  // "cobs", and the byte order
  static constexpr u32 layout_version = 2;

  u32 magic = 0;  // stored last
  u32 version = layout_version;
  u16 kernel = 0;
  u16 kernels = 0;  // as many PeerStats follow, by number; the kernel's own among them
  u32 epoch = 0;    // the kernel's
  u32 peer_bytes = sizeof(PeerStats);
  u32 reserved[11] = {};
};
static_assert(sizeof(StatsHeader) == 64);

}  // namespace cob::message
