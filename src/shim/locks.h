// Locks on files of other islands: fcntl(2), flock(2), lockf(3). docs/calls.md, "Locks".
// Model: the kernel has them; here is only what a close must tell it. Any thread.
#pragma once

#include "shim/socket.h"

namespace cob::shim {

// fcntl's six commands for locks. libc's result.
int file_lock(int number, int command, struct flock* lock);
int file_flock(int number, int operation);
int file_lockf(int number, int command, off_t bytes);

// A longjmp, or its cancellation, took this thread out of a wait on the file: it is to be had no
// more, and is unlocked if it is had.
void abandon_lock_waits(Socket* file);

// This program may have POSIX locks from now on: every close is told.
void note_posix_locks();
bool may_have_posix_locks();
// A forked child has none.
void forget_posix_locks();

// Around a number's close: what is at it, no longer in the table, is about to lose that reference.
// settle(): behind that; what the close has unlocked is so when it returns. Inside a critical
// section.
class LockClosing {
 public:
  explicit LockClosing(Object* object) {
    if (object != nullptr && object->kind == Kind::file) tell(reinterpret_cast<Socket*>(object));
  }
  // One more number's.
  void add(Object* object) {
    if (object != nullptr && object->kind == Kind::file) tell(reinterpret_cast<Socket*>(object));
  }
  void settle() {
    if (unsettled_) wait();
  }

 private:
  void tell(Socket* file);
  void wait();
  bool unsettled_ = false;
};

}  // namespace cob::shim
