// The passage: calls on files of other islands, and what closes numbers, pass through it; a thread
// that takes the program to another kernel (leave.h) closes it, waits until all who are within have
// left, and opens it again. docs/moving.md, 10.
// Model: a count and a word that says "closed"; a thread counts once however deep it nests, its
// handlers too. Not held over a wait for events. Any thread.
#pragma once

#include "shim/lock.h"

namespace cob::shim {

extern thread_local u32 passage_depth
    __attribute__((visibility("hidden"), tls_model("initial-exec")));

void enter_passage();
void leave_passage();

class Passage {
 public:
  explicit Passage(bool wanted = true) : within_(wanted) {
    if (within_) enter_passage();
  }
  ~Passage() { leave(); }
  Passage(const Passage&) = delete;
  Passage& operator=(const Passage&) = delete;
  void leave() {
    if (within_) leave_passage();
    within_ = false;
  }

 private:
  bool within_;
};

// False: some did not leave within that time; it is open again. REQUIRES: the caller is not within.
bool close_passage(i64 patience_ns);
void open_passage();
// A forked child: nobody else is within.
void forget_passage();

}  // namespace cob::shim
