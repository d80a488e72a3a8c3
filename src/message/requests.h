// Requests: a kernel's outstanding requests: their continuations, and their deadlines in order.
// Model: a fixed table; a tag is index and generation, so a forged reply finds nothing; a binary
// heap of indices by deadline, each entry knowing its place. Owned by the Messenger.
#pragma once

#include <memory>
#include <vector>

#include "base/clock.h"
#include "message/continuation.h"
#include "message/flat.h"

namespace cob::message {

class Requests {
 public:
  static constexpr u32 capacity = 4'096;

  enum class State : u8 {
    free,
    waiting,
    abandoned,  // timed out; keeps its place for the reply, which may come any time
  };
  struct Entry {
    Time deadline;
    Time asked;  // the loop's time; never(): not known
    u16 peer = 0;
    u16 reply_type = 0;
    u16 reply_lines = 0;     // reserved
    u16 reply_max_tail = 0;  // bytes
    bool reply_lends = false;
    u16 generation = 0;
    u16 heap_index = 0;
    Priority priority = Priority::normal;
    State state = State::free;
    u16 next_free = 0;
    Continuation continuation;
  };

  Requests();

  bool full() const { return free_ == none; }
  // Those waiting; abandoned ones do not count.
  u32 waiting() const { return static_cast<u32>(heap_.size()); }
  // A new entry, waiting until `deadline`; the caller fills in the rest. REQUIRES: !full().
  Entry& add(Time deadline, u32& tag);
  // The entry that `tag` names, waiting or abandoned, or nullptr.
  Entry* find(u32 tag);
  // Frees `entry`; runs its continuation if it was waiting. The continuation may add() others.
  void finish(Entry& entry, Arrival* arrival, const Error* why);
  // Runs the continuation with `why`, but keeps the entry. REQUIRES: waiting.
  void abandon(Entry& entry, Error why);
  // finish() for every entry of `peer`; returns how many were waiting.
  u32 finish_all_of(u16 peer, Error why);

  Time next_deadline() const {
    return heap_.empty() ? Time::never() : entries_[heap_.front()].deadline;
  }
  // The entry with the earliest deadline. REQUIRES: waiting() > 0.
  Entry& earliest() { return entries_[heap_.front()]; }

 private:
  static constexpr u16 none = 0xffff;

  void put(std::size_t place, u16 index);
  void rise(std::size_t place);
  void sink(std::size_t place);
  void stop_waiting(Entry& entry);

  std::unique_ptr<Entry[]> entries_;
  std::vector<u16> heap_;
  u16 free_ = 0;
};

}  // namespace cob::message
