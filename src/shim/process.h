// What the process functions share: the environment of an image to be started, and what a forked
// child puts right. Model: an image is attached through two variables, LD_PRELOAD and COB_SHIM, put
// back whatever the program passes; they are built in memory mapped for the purpose, so that a
// forked child of a program with threads can do it (signal-safety(7)). Any thread.
#pragma once

#include <limits.h>
#include <stdio.h>

#include "shim/contract.h"

namespace cob::shim {

// A block of anonymous memory, unmapped at the end; data is null when there is none.
class Scratch {
 public:
  explicit Scratch(size_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  char* data_;
  size_t bytes_;
};

// The program's environment with the shim's variables in it.
class ImageEnvironment {
 public:
  // liveness: a number, or liveness_none, liveness_own (contract.h).
  ImageEnvironment(char* const* envp, int liveness, bool place = false);
  char* const* get() const { return vector_; }  // null: out of memory
  int attach_right() const { return attach_right_; }

 private:
  Scratch scratch_;
  char* const* vector_ = nullptr;
  int attach_right_ = -1;
};

// prctl(2) and seccomp(2) (confine.cc).
long own_prctl(long option, long a, long b, long c, long d);
long own_seccomp(long operation, long flags, long argument);

// Remembers where libcob.so lies and registers the fork hooks; called once at start, before any
// handler of the program is registered, so that its own fork handlers run outside ours.
void process_start();

// Whether the shim will be in an image: not in one that is static, set-user-ID, with capabilities,
// or of another word size.
class Verdict {
 public:
  // `file` is searched for in PATH as execvp does when `search`. `directory`: AT_FDCWD, or what
  // execveat was given.
  Verdict(int directory, const char* file, bool search);
  bool attachable() const { return why_ == nullptr; }
  // Says on stderr, once a process, that it is not, and that it does not get all sockets.
  void warn() const;

 private:
  const char* file_;
  const char* why_ = nullptr;
  char found_[PATH_MAX];
};

// fclose and pclose of a stream that popen made: waits for its child and gives its status. -1 when
// it is none.
int close_piped(FILE* stream, bool& was_piped);

}  // namespace cob::shim
