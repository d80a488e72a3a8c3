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

  // `f` is called as f(Result<Arrival*>): what came, valid during the call only.
  template <typename F>
  void place(F&& f) {
    using Callable = std::decay_t<F>;
    static_assert(sizeof(Callable) <= capacity, "capture less: a pointer to state kept elsewhere");
    static_assert(alignof(Callable) <= alignof(std::max_align_t));
    clear();
    ::new (static_cast<void*>(storage_)) Callable(std::forward<F>(f));
    run_ = [](void* at, Result<Arrival*> reply) {
      (*std::launder(static_cast<Callable*>(at)))(std::move(reply));
    };
    if constexpr (!std::is_trivially_destructible_v<Callable>) {
      destroy_ = [](void* at) { std::launder(static_cast<Callable*>(at))->~Callable(); };
    }
  }
  // REQUIRES: placed. Leaves the callable in place: clear() it afterwards.
  void run(Result<Arrival*> reply) { run_(storage_, reply); }
  void clear() {
    if (auto destroy = std::exchange(destroy_, nullptr)) destroy(storage_);
  }

 private:
  void (*run_)(void*, Result<Arrival*>) = nullptr;
  void (*destroy_)(void*) = nullptr;
  alignas(std::max_align_t) std::byte storage_[capacity];
};

}  // namespace cob::message
