// Continuation: a callable kept in place, without allocation: what runs when a request's reply,
// error or deadline comes. Model: std::move_only_function of one shape, at most 64 bytes of
// captures, neither copied nor moved once placed. Owned by the table of outstanding requests.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

#include "base/result.h"

namespace cob::message {

struct Arrival;  // messenger.h

class Continuation {
 public:
  static constexpr std::size_t capacity = 64;

  Continuation() = default;
  Continuation(const Continuation&) = delete;
  Continuation& operator=(const Continuation&) = delete;
  ~Continuation() { clear(); }

  // `f` is called as f(Arrival*, const Error*), one of them not null: what came, or why nothing
  // did; valid during the call only. (A Result would be written in parts and read as a whole.)
  template <typename F>
  void place(F&& f) {
    using Callable = std::decay_t<F>;
    static_assert(sizeof(Callable) <= capacity, "capture less: a pointer to state kept elsewhere");
    static_assert(alignof(Callable) <= alignof(std::max_align_t));
    clear();
    ::new (static_cast<void*>(storage_)) Callable(std::forward<F>(f));
    run_ = [](void* at, Arrival* arrival, const Error* why) {
      (*std::launder(static_cast<Callable*>(at)))(arrival, why);
    };
    if constexpr (!std::is_trivially_destructible_v<Callable>) {
      destroy_ = [](void* at) { std::launder(static_cast<Callable*>(at))->~Callable(); };
    }
  }
  // REQUIRES: placed. Leaves the callable in place: clear() it afterwards.
  void run(Arrival* arrival, const Error* why) { run_(storage_, arrival, why); }
  void clear() {
    if (auto destroy = std::exchange(destroy_, nullptr)) destroy(storage_);
  }

 private:
  void (*run_)(void*, Arrival*, const Error*) = nullptr;
  void (*destroy_)(void*) = nullptr;
  alignas(std::max_align_t) std::byte storage_[capacity];
};

}  // namespace cob::message
