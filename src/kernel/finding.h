// Finding: placeholders that this kernel does not know: which kernel has the description, held at
// its home before the program that shows one has it. docs/descriptors.md, 5; find_protocol.h.
// Model: all kernels are asked, the first who knows it decides; several programs may wait for one.
// Bounded: beyond max_names, and max_askers of a name, EAGAIN. Kernel's loop only; ends before its
// Messenger.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "kernel/files.h"
#include "kernel/find_protocol.h"
#include "kernel/sockets.h"

namespace cob::kernel {

class Finding {
 public:
  static constexpr std::size_t max_names = 1'024, max_askers = 64;

  struct Asker {
    CallOrigin origin;
    u32 image = 0;  // of the program
  };
  // What was found is one description of `sockets`, published under its name: once, for all who
  // asked; 0 or an errno.
  using Done = std::move_only_function<void(const std::vector<Asker>& askers, u64 name, int error)>;

  // Registers its handler: before the Messenger's first link.
  Finding(message::Messenger& messenger, Files& files, KernelId self, u16 kernels);
  Finding(const Finding&) = delete;
  Finding& operator=(const Finding&) = delete;

  void serve(Sockets& sockets, Done done) {
    sockets_ = &sockets;
    done_ = std::move(done);
  }
  // An errno if it cannot be asked; else `done` runs later.
  int find(u64 name, const Asker& asker);
  // Under way and not asked of all yet: links had no room.
  bool unsent() const { return unsent_ > 0; }
  void poll();
  std::size_t under_way() const { return wanted_.size(); }

  // A description of this kernel for what it holds at a home by `ref`, published as `field.name`.
  // The reference is the description's from then on; the caller has one to the description.
  Result<Description*> make(descriptor::Holder::Ref ref, const descriptor::PassField& field,
                            u32 share);
  // As others hold it.
  descriptor::PassField field_of(const Description& d, u64 name) const;

 private:
  struct Wanted {
    std::vector<Asker> askers;
    std::vector<u16> to_ask;
    u64 round = 0;  // tells a name's searches apart
    u32 asked = 0;  // not answered yet
    bool found = false;
    int error = ENOENT;
  };

  void on_find(const FindMessage& m, message::ReplyToken<FoundMessage> reply);
  void ask(u64 name, Wanted& wanted);
  void heard(u64 name, u64 round, const Result<FoundMessage>& answer);
  void hold(u64 name, const FoundMessage& found);
  void end(u64 name, int error);

  message::Messenger& messenger_;
  Files& files_;
  KernelId self_;
  u16 kernels_;
  Sockets* sockets_ = nullptr;
  Done done_;
  std::map<u64, Wanted> wanted_;
  std::size_t unsent_ = 0;
  u64 rounds_ = 0;
};

}  // namespace cob::kernel
