// OnDemand: a part that few need; it reads as a default one until somebody makes it. Model: one
// pointer. Kernel's loop only.
#pragma once

#include <memory>

namespace cob::kernel {

template <typename T>
class OnDemand {
 public:
  const T* operator->() const { return part_ != nullptr ? part_.get() : &absent; }
  const T& operator*() const { return *operator->(); }
  bool made() const { return part_ != nullptr; }
  T& make() {
    if (part_ == nullptr) part_ = std::make_unique<T>();
    return *part_;
  }

 private:
  static inline const T absent{};
  std::unique_ptr<T> part_;
};

}  // namespace cob::kernel
