// Holders: who holds a description; nearly always one program. Model: one lies inside, several in a
// vector of their own. Kernel's loop only.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "base/types.h"

namespace cob::kernel {

class Program;

// A listener's offers to one of its holders.
struct Offers {
  u32 settled = 0;  // up to here they were seen taken or taken back
  u32 made = 0;
  u32 settled_at_check = 0, made_at_check = 0;  // when the holder's patience was last looked at
  u32 outstanding() const { return made - settled; }
};

struct Holder {
  Program* program = nullptr;
  u32 slot = 0;
  u16 offer_ring = 0;         // listener: where its offers lie (Program::offers); 0: none yet
  bool wants_accept = false;  // listener: connections may be offered here
};

class Holders {
 public:
  std::size_t size() const {
    if (several_ != nullptr) return several_->size();
    return one_.program != nullptr ? 1 : 0;
  }
  bool empty() const { return size() == 0; }
  Holder* begin() { return several_ != nullptr ? several_->data() : &one_; }
  const Holder* begin() const { return const_cast<Holders*>(this)->begin(); }
  Holder* end() { return begin() + size(); }
  const Holder* end() const { return begin() + size(); }
  Holder& operator[](std::size_t i) { return begin()[i]; }
  const Holder& operator[](std::size_t i) const { return begin()[i]; }
  Holder& front() { return *begin(); }
  const Holder& front() const { return *begin(); }

  void push_back(const Holder& holder) {
    if (size() == 0) {
      one_ = holder;
      return;
    }
    if (several_ == nullptr)
      several_ = std::make_unique<std::vector<Holder>>(1, std::exchange(one_, {}));
    several_->push_back(holder);
  }
  void erase(std::size_t index) {
    if (several_ == nullptr) {
      one_ = {};
      return;
    }
    several_->erase(several_->begin() + static_cast<std::ptrdiff_t>(index));
    if (several_->size() > 1) return;
    one_ = several_->front();
    several_.reset();
  }

 private:
  Holder one_;  // while there are not several; no program: none
  std::unique_ptr<std::vector<Holder>> several_;
};

}  // namespace cob::kernel
