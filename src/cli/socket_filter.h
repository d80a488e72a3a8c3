// SocketFilter: which sockets `cob ss` shows: states, and an expression over the two ends, in the
// words of ss(8). Model: states are a set of bits; the expression a tree of closures, made by
// recursive descent. The command's thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernel/view.h"

namespace cob::cli {

class SocketFilter {
 public:
  static constexpr u32 bit(u8 state) {
    return state == kernel::state_listening ? 1u << 16 : state < 16 ? 1u << state : 0;
  }
  static constexpr u32 all_states = 0x1'03ff;
  static u32 connected_states();  // what is shown when nothing else is asked for

  // What stands behind the options: [state S | exclude S]... [EXPRESSION]. The sentence that says
  // what is wrong; empty: nothing.
  std::string parse(const std::vector<std::string>& words);
  void set_states(u32 states) { states_ = states; }
  bool states_given() const { return states_given_; }
  u32 states() const { return states_; }

  bool matches(const kernel::SocketRow& row) const {
    return (bit(row.state) & states_) != 0 && (!expression_ || expression_(row));
  }

 private:
  using Test = std::function<bool(const kernel::SocketRow&)>;
  class Parser;

  u32 states_ = all_states;
  bool states_given_ = false;
  Test expression_;
};

}  // namespace cob::cli
