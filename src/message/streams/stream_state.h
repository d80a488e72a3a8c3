// What Streams keeps of each stream and of each peer, and the lists that thread them.
// Model: plain data; intrusive lists, so that being on one allocates nothing and leaving one costs
// the same wherever it stands. Owned by Streams.
#pragma once

#include <functional>

#include "message/messenger.h"
#include "message/streams/stream_messages.h"
#include "message/streams/stream_queue.h"

namespace cob::message {

template <typename T>
struct ListPlace {
  T* previous = nullptr;
  T* next = nullptr;
  bool taken = false;
};

// First in, first out. Its members are on it at most once, and leave it before they end.
template <typename T, ListPlace<T> T::* place>
class List {
 public:
  bool empty() const { return first_ == nullptr; }
  std::size_t size() const { return size_; }
  T* first() const { return first_; }
  static T* after(const T& item) { return (item.*place).next; }
  void push(T& item) {  // nothing if it is there already
    if ((item.*place).taken) return;
    item.*place = {.previous = last_, .next = nullptr, .taken = true};
    (last_ == nullptr ? first_ : (last_->*place).next) = &item;
    last_ = &item;
    ++size_;
  }
  void remove(T& item) {  // nothing if it is not there
    const ListPlace<T> at = std::exchange(item.*place, {});
    if (!at.taken) return;
    (at.previous == nullptr ? first_ : (at.previous->*place).next) = at.next;
    (at.next == nullptr ? last_ : (at.next->*place).previous) = at.previous;
    --size_;
  }

 private:
  T* first_ = nullptr;
  T* last_ = nullptr;
  std::size_t size_ = 0;
};

struct StreamState {
  enum class Phase : u8 {
    opening,    // asked for; the answer is outstanding
    accepting,  // the service's handler is deciding
    open,
    failed,  // `error` says why; nothing comes or goes any more
  };
  enum class Farewell : u8 { none, end, reset };

  StreamId id;
  StreamId remote;  // the peer's end; 0: not known
  KernelId peer;
  bool taken = false;  // not one of the free places
  Phase phase = Phase::opening;
  bool held = true;          // by whoever opened or accepted it, until close() or reset()
  bool accepted = false;     // opened by the peer
  bool ended_in = false;     // the peer's flow is complete
  bool ended_out = false;    // ours is; said so unless owed
  bool wants_write = false;  // a write() found no room
  bool owes_credit = false;
  Farewell owes = Farewell::none;
  int reason = 0;  // of the reset that is owed
  int error = 0;
  RequestId request;
  // Bytes of the two flows, modulo 2^32.
  u32 sent = 0, credited = 0, window_out = 0;
  u32 received = 0, consumed = 0, told = 0;
  u64 turn = 0;        // the round in which it may write before those who wait
  u32 turn_lines = 0;  // how much then
  StreamQueue queue;
  std::move_only_function<void(Result<StreamId>)> opened;
  ListPlace<StreamState> siblings, readiness, waiting, owing;

  u32 room() const { return window_out - (sent - credited); }
};

struct PeerStreams {
  KernelId peer;
  u32 generation = 0;  // of the link, when last looked at
  u64 in_flight = 0;   // bytes sent on all its streams and not credited
  List<StreamState, &StreamState::siblings> streams;
  List<StreamState, &StreamState::waiting> waiting;  // for room in the ring
  List<StreamState, &StreamState::owing> owing;      // credit, end or reset
  ListPlace<PeerStreams> active;
};

}  // namespace cob::message
