// Relays: what a program that cannot be attached (static, set-user-ID) gets for its parent's cob
// sockets. Model: before exec or spawn of such an image the kernel is asked for a host socket in
// each connection's place, which it relays (docs/calls.md, "Relays"); an undecided socket becomes a
// host socket; a listener, or what the kernel refuses, a socket that is shut. The description is
// shared with the relay from then on, so a failed exec takes nothing away. Owned by one exec or
// spawn; async-signal-safe.
#pragma once

#include <spawn.h>

#include "shim/process.h"

namespace cob::shim {

struct Socket;

struct RelayedNumber {
  int fd;
  Socket* socket;   // counted
  int end;          // hidden: the host socket in its place
  int placeholder;  // hidden: what was at the number, while the host socket is
  bool close_on_exec;
};

enum class Relay : u8 { nothing, inherited };

class RelayedNumbers {
 public:
  // Of the numbers that are close-on-exec, those that `actions` duplicate.
  explicit RelayedNumbers(Relay which, const posix_spawn_file_actions_t* actions = nullptr);
  // Puts back what put() replaced; to be reached only when the exec failed, or after a spawn.
  ~RelayedNumbers();
  RelayedNumbers(const RelayedNumbers&) = delete;
  RelayedNumbers& operator=(const RelayedNumbers&) = delete;

  // The host sockets at their numbers, and the liveness socket inheritable: exec is next.
  void put();

  u32 count() const { return count_; }
  const RelayedNumber& operator[](u32 index) const { return numbers_[index]; }
  // Tells the kernel by its end that the image, and what it started, are gone; -1: nothing is
  // relayed.
  int liveness() const { return liveness_; }
  // Some socket that the image would have could not be relayed.
  bool incomplete() const { return incomplete_; }

 private:
  int end_for(u32 index, Socket* socket, int fd);
  int relayed(Socket* socket);

  Scratch scratch_;
  RelayedNumber* numbers_ = nullptr;
  u32 count_ = 0;
  u32 child_ = 0;  // its number in the kernel
  int liveness_ = -1;
  bool put_ = false;
  bool incomplete_ = false;
};

}  // namespace cob::shim
