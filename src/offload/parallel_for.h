// parallel_for: a loop over a range, shared with the cores of an island that this program started:
//   island.host()  ...  parallel_for(host, {0, n, 4096}, [=](u64 i) { y[i] += a * x[i]; });
// Model: the island is the same program, so the body's type is known there by its number among the
// program's loops; the body's captures are sent as they are. They must be trivially copyable and
// may have: numbers; pointers and spans into the host's arena (Array), which lies at the same
// address in both. They may not have: references, pointers to anything else (this, globals' heap).
// What the body calls may use constants and its arguments, not what the host changed since its
// start: the island is another process. Loops are gathered before main(), in the one global here.
#pragma once

#include <limits>
#include <typeinfo>

#include "offload/host.h"

namespace cob::offload {

// Elements in the arena that both processes address alike. Not beyond its Host's life.
template <detail::Element T>
class Array {
 public:
  // Zeroed. ENOMEM, ENOSPC.
  static Result<Array> create(Host& host, u64 elements) {
    Array array;
    array.buffer_ = TRY(host.buffer<T>(elements));
    array.data_ = TRY(array.buffer_.write()).data();
    return array;
  }
  T* data() const { return data_; }
  u64 size() const { return buffer_.size(); }
  T& operator[](u64 i) const { return data_[i]; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size(); }

 private:
  Buffer<T> buffer_;
  T* data_ = nullptr;
};

namespace detail {

struct Loop {
  const char* type;  // of the body, as the compiler names it
  TaskSet::Entry entry;
};
u32 remember_loop(const char* type, TaskSet::Entry entry);

template <typename Body>
struct LoopTask {
  static void run(void (*)(), const Part& part, const Call& call) {
    alignas(Body) std::byte room[sizeof(Body)];
    std::memcpy(room, call.arguments.data(), sizeof room);
    const Body& body = *std::launder(reinterpret_cast<const Body*>(room));
    for (u64 i = part.begin; i < part.end; ++i) body(i);
  }
  static inline const u32 number =
      remember_loop(typeid(Body).name(), {.name = {},
                                          .least_arguments = sizeof(Body),
                                          .most_arguments = sizeof(Body),
                                          .trusts_host = true,
                                          .run = &run});
};

Result<void> run_loop(Host& host, const Range& range, u32 loop, std::span<const std::byte> body,
                      const void* stack);

}  // namespace detail

// The loops of this program, for the island's table of tasks.
Result<void> add_loops(TaskSet& tasks);

// Runs body(i) for each i of the range, here, on the island or on both, and returns when all are
// done. Where the island cannot have the body (another program, no common addresses, no island) or
// the body has a pointer into this thread's stack, it runs here. An island that dies in the middle
// is an error: parts may have been done.
template <typename Body>
Result<void> parallel_for(Host& host, const Range& range, const Body& body) {
  static_assert(std::is_trivially_copyable_v<Body>, "the captures are sent as bytes");
  static_assert(sizeof(Body) <= max_argument_bytes, "the captures are too large for a message");
  const int here = 0;
  return detail::run_loop(host, range, detail::LoopTask<Body>::number,
                          std::as_bytes(std::span(&body, 1)), &here);
}

}  // namespace cob::offload
