// Gate: counts the operations under way, so that shutdown can close the door and know when the last
// one has left. Model: Seastar's gate (enter, leave, close) without futures: close() takes what to
// run when the gate is empty. Owned by one kernel's loop.
#pragma once

#include <functional>
#include <utility>

#include "base/result.h"
#include "base/types.h"

namespace cob {

class Gate {
 public:
  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() { VERIFY(inside_ == 0); }

  // ESHUTDOWN once close() was called.
  Result<void> enter() {
    if (closed_) return Error::of(ESHUTDOWN, "gate is closed");
    ++inside_;
    return {};
  }
  // REQUIRES: a matching enter(). May run the function given to close(), which may destroy nothing
  // but its own.
  void leave() {
    VERIFY(inside_ > 0);
    if (--inside_ == 0 && closed_) finish();
  }
  // Lets nobody in any more; `empty` runs once, now or with the last leave(). REQUIRES: not closed
  // before.
  void close(std::move_only_function<void()> empty) {
    VERIFY(!closed_);
    closed_ = true;
    empty_ = std::move(empty);
    if (inside_ == 0) finish();
  }

  bool closed() const { return closed_; }
  u32 inside() const { return inside_; }

  // enter() on construction by hold(), leave() on destruction.
  class Holder {
   public:
    Holder() = default;
    Holder(Holder&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Holder& operator=(Holder&& other) noexcept {
      if (this != &other) {
        reset();
        gate_ = std::exchange(other.gate_, nullptr);
      }
      return *this;
    }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;
    ~Holder() { reset(); }
    void reset() {
      if (Gate* gate = std::exchange(gate_, nullptr)) gate->leave();
    }

   private:
    friend class Gate;
    explicit Holder(Gate& gate) : gate_(&gate) {}
    Gate* gate_ = nullptr;
  };
  Result<Holder> hold() {
    TRY(enter());
    return Holder(*this);
  }

 private:
  void finish() {
    if (auto run = std::exchange(empty_, nullptr)) run();
  }

  u32 inside_ = 0;
  bool closed_ = false;
  std::move_only_function<void()> empty_;
};

}  // namespace cob
