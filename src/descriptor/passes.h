// Passes: descriptions on their way from a program of one kernel to one of another.
// docs/descriptors.md, 5.
// Model: the receiver refers to all of them at their homes, or, if one cannot be had, to none; only
// then it answers, and who passed may let go. Both sides; owned by the kernel's loop; ends before
// its Holder.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "descriptor/holder.h"
#include "descriptor/pass_protocol.h"

namespace cob::descriptor {

class Passes {
 public:
  static constexpr u32 max_arriving = 64;  // at a time; then ENOBUFS

  struct Item {
    KernelId home{0};
    Handle handle;
    u64 name = 0;
    u32 status_flags = 0;
    u8 traits = 0;  // PassTrait
  };
  struct Arrived {
    Holder::Ref ref;  // one reference
    Item item;
  };
  struct Counters {
    u64 passed = 0, arrived = 0;  // descriptions
    u64 failed = 0;               // passes, of both kinds
    u64 refused = 0;              // that no honest kernel sends
  };
  // Takes the references, or says why not.
  using Taker = std::move_only_function<Result<void>(KernelId from, u32 program,
                                                     std::span<const Arrived> descriptions)>;
  using Done = std::move_only_function<void(Result<void>)>;

  // Registers its handler: before the Messenger's first link.
  Passes(message::Messenger& messenger, Holder& holder);
  Passes(const Passes&) = delete;
  Passes& operator=(const Passes&) = delete;

  void on_arrival(Taker taker) { taker_ = std::move(taker); }
  // All or nothing. The caller sees to it that somebody holds each of them until `done`.
  // REQUIRES: at most max_pass.
  void pass(KernelId to, u32 program, std::span<const Item> items, Done done);
  // Passes what found no room.
  void poll();
  bool unsent() const { return !unsent_.empty(); }
  const Counters& counters() const { return counters_; }

 private:
  struct Arriving {
    KernelId from{0};
    u32 program = 0;
    std::vector<Arrived> all;
    std::vector<bool> had;
    std::size_t left = 0;
    int error = 0;
    message::ReplyToken<Passed> reply;
  };
  struct Leaving {
    KernelId to{0};
    u32 program = 0;
    std::vector<PassField> fields;
    Done done;
  };

  void on_pass(message::Incoming& in, const Pass& m, message::ReplyToken<Passed> reply);
  void settle(Arriving& arriving);
  bool send(Leaving& leaving);

  message::Messenger& messenger_;
  Holder& holder_;
  Taker taker_;
  u32 arriving_ = 0;
  std::deque<Leaving> unsent_;
  Counters counters_;
};

}  // namespace cob::descriptor
