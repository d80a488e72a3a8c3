// Locker: the locks that programs of this kernel ask for on descriptions of other homes.
// docs/descriptors.md, 4.
// Model: everything is asked of the home; here are only the waits, by their numbers, and what found
// no room at the link. A description is referred to while something is asked of it. Owned by the
// kernel's loop; ends before its Holder.
#pragma once

#include <deque>
#include <functional>
#include <unordered_map>

#include "descriptor/holder.h"
#include "descriptor/lock_protocol.h"

namespace cob::descriptor {

class Locker {
 public:
  struct Wish {
    LockKind kind{};
    LockMode mode{};  // none: unlock
    LockRange range;
    u32 program = 0;  // whose POSIX lock it is
    u32 pid = 0;
  };
  // Errors as lock_protocol.h, ENOENT among them; ESTALE: the home, or the link to it, has ended.
  using Done = std::move_only_function<void(Result<Locked>)>;

  // Before the Messenger's first link.
  Locker(message::Messenger& messenger, Holder& holder);
  Locker(const Locker&) = delete;
  Locker& operator=(const Locker&) = delete;

  // REQUIRES of all: holder.lives(ref).
  void set(Holder::Ref ref, const Wish& wish, Done done);
  void test(Holder::Ref ref, const Wish& wish, Done done);
  // The program has closed the file; its POSIX locks there are gone when `done` runs.
  void close(Holder::Ref ref, u32 program, Done done);
  // Its POSIX locks there are those of program `heir` of kernel `to`, which holds the file too.
  void give(Holder::Ref ref, u32 program, KernelId to, u32 heir, Done done);
  // `done` when it is had, refused, or has been cancelled (EINTR).
  u32 wait(Holder::Ref ref, const Wish& wish, Done done);
  void cancel(u32 wait);

  // Asks what found no room.
  void poll();
  bool unsent() const { return !unsent_.empty(); }
  std::size_t waits() const { return waits_.size(); }

 private:
  struct Ask {
    Holder::Ref ref;
    Lock message{};
    Done done;  // none: of cancel
  };

  Ask asking(Holder::Ref ref, const Wish& wish, LockCall call, Done done);
  void ask(Ask ask);
  bool send(Ask& ask);

  message::Messenger& messenger_;
  Holder& holder_;
  std::deque<Ask> unsent_;
  std::unordered_map<u32, Holder::Ref> waits_;
  u32 numbers_ = 0;
};

}  // namespace cob::descriptor
