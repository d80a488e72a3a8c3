// The table of outstanding requests and the heap of their deadlines.
// See requests.h. One thread.
#include "message/requests.h"

namespace cob::message {

Requests::Requests() : entries_(new Entry[capacity]) {
  heap_.reserve(capacity);
  for (u32 i = 0; i < capacity; ++i)
    entries_[i].next_free = i + 1 < capacity ? static_cast<u16>(i + 1) : none;
}

Requests::Entry& Requests::add(Time deadline, u32& tag) {
  VERIFY(!full());
  const u16 index = free_;
  Entry& entry = entries_[index];
  free_ = entry.next_free;
  entry.deadline = deadline;
  entry.state = State::waiting;
  heap_.push_back(index);
  rise(heap_.size() - 1);
  tag = static_cast<u32>(entry.generation) << 16 | index;
  return entry;
}

Requests::Entry* Requests::find(u32 tag) {
  const u32 index = tag & 0xffff;
  if (index >= capacity) return nullptr;
  Entry& entry = entries_[index];
  return entry.state != State::free && entry.generation == tag >> 16 ? &entry : nullptr;
}

void Requests::finish(Entry& entry, Arrival* arrival, const Error* why) {
  if (entry.state == State::waiting) {
    stop_waiting(entry);
    entry.state = State::abandoned;  // not free while its continuation runs
    entry.continuation.run(arrival, why);
    entry.continuation.clear();
  }
  entry.state = State::free;
  ++entry.generation;
  entry.next_free = free_;
  free_ = static_cast<u16>(&entry - entries_.get());
}

void Requests::abandon(Entry& entry, Error why) {
  VERIFY(entry.state == State::waiting);
  stop_waiting(entry);
  entry.state = State::abandoned;
  entry.continuation.run(nullptr, &why);
  entry.continuation.clear();
}

u32 Requests::finish_all_of(u16 peer, Error why) {
  u32 failed = 0;
  for (u32 i = 0; i < capacity; ++i) {
    if (entries_[i].state == State::free || entries_[i].peer != peer) continue;
    if (entries_[i].state == State::waiting) ++failed;
    finish(entries_[i], nullptr, &why);
  }
  return failed;
}

void Requests::stop_waiting(Entry& entry) {
  const std::size_t place = entry.heap_index;
  const u16 last = heap_.back();
  heap_.pop_back();
  if (place == heap_.size()) return;
  put(place, last);
  rise(place);
  sink(entries_[last].heap_index);
}

void Requests::put(std::size_t place, u16 index) {
  heap_[place] = index;
  entries_[index].heap_index = static_cast<u16>(place);
}

void Requests::rise(std::size_t place) {
  const u16 index = heap_[place];
  while (place > 0) {
    const std::size_t parent = (place - 1) / 2;
    if (entries_[heap_[parent]].deadline <= entries_[index].deadline) break;
    put(place, heap_[parent]);
    place = parent;
  }
  put(place, index);
}

void Requests::sink(std::size_t place) {
  const u16 index = heap_[place];
  while (true) {
    std::size_t child = 2 * place + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() &&
        entries_[heap_[child + 1]].deadline < entries_[heap_[child]].deadline)
      ++child;
    if (entries_[index].deadline <= entries_[heap_[child]].deadline) break;
    put(place, heap_[child]);
    place = child;
  }
  put(place, index);
}

}  // namespace cob::message
