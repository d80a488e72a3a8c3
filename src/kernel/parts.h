// Parts: listeners that programs of several kernels hold: forked children on other kernels
// (`cob run --spread`), whom a descriptor was sent there; docs/descriptors.md, 10. Model: each of
// these kernels has a description of its own, a *part*, with its own queue and backlog; all have
// one token and one group of claims. A kernel that is asked for a token that it does not know joins
// the listener of one that does. Parts tell each other what is set, and whose programs ask for
// connections: only there they are led. Kernel's loop only.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "kernel/messages.h"
#include "kernel/sockets.h"

namespace cob::message {
class Messenger;
}

namespace cob::kernel {

class ListenerParts {
 public:
  // This kernel's part, or why there is none: ENOENT, EAGAIN: later; ENFILE, EADDRINUSE.
  using Joined = std::move_only_function<void(Description* part, i32 error)>;

  // How long a kernel may take to say what its part is.
  static constexpr Duration join_patience = Duration::milliseconds(500);
  // How long connections that nobody was offered wait for a program of this kernel while programs
  // of others ask for some; then they are reset.
  static constexpr Duration strand_patience = Duration::seconds(1);
  // How long a kernel that has appeared may take to be connected.
  static constexpr Duration appear_patience = Duration::seconds(2);
  static constexpr std::size_t max_joins = 1'024;  // under way; beyond: ENOBUFS
  // What could not be told yet because rings were full; beyond, the oldest is lost.
  static constexpr std::size_t max_owed = 4'096;

  struct Counters {
    u64 joined = 0;    // parts made here for listeners of other kernels
    u64 stranded = 0;  // connections that were reset: nobody here asked for them
    u64 lost_news = 0;
  };

  ListenerParts(Sockets& sockets, Directory& directory, KernelId self, u16 kernels)
      : sockets_(sockets), directory_(directory), self_(self), kernels_(kernels) {
    sockets.set_parts(*this);
  }
  // Registers the message handlers. `messenger` outlives this.
  void attach(message::Messenger& messenger);

  // Makes a part of the listener with this token, asking `first`, then the other kernels. `done` is
  // called once, perhaps at once; the description has a reference while it runs.
  void join(u64 token, std::optional<KernelId> first, Time now, Joined done);
  bool joining(u64 token) const { return joins_.contains(token); }

  // Of a description that is a part. Whether programs of this kernel ask for its connections may
  // have changed.
  void look(Description& d);
  void left(Description& d);  // it ends
  // To the others: `words`: as many as the news has, none: zero.
  void tell(const Description& d, PartNews news, const call::u64* words);
  void tell_listen(const Description& d, u32 backlog);

  void poll(Time now);
  Time next_deadline() const;
  // It runs and is not connected yet: nobody is told that it knows no listener before it was asked.
  void peer_appeared(KernelId peer, Time now);
  void peer_up(KernelId peer);
  void peer_down(KernelId peer);

  const Counters& counters() const { return counters_; }

 private:
  struct Join {
    std::optional<KernelId> first;
    u32 asked = 0;  // so many of: first, then kernels in order
    i32 error = 0;  // worth telling, of one that was asked
    std::vector<Joined> waiting;
  };
  struct Owed {
    KernelId peer;
    PartMessage message;
  };

  void ask_next(u64 token);
  void make_part(u64 token, KernelId from, const JoinReply& reply);
  void finish(u64 token, Description* part, i32 error);
  SharedListener& become_part(Description& d, u64 group);
  JoinReply describe(Description& d) const;
  void settle(Description& d, const JoinReply& reply);
  void on_news(KernelId from, const PartMessage& m);
  void on_state(KernelId from, Description& d, u64 bits);
  void listen_again(Description& d, u32 backlog);
  void tell_state(const Description& d, std::optional<KernelId> only, bool ask);
  void send(KernelId peer, const PartMessage& message);
  void send_all(const PartMessage& message);
  // One that has connected instead, and was closed, is ending and left out.
  template <typename F>
  void for_each_part(F f) const {
    for (const u32 handle : parts_)
      if (Description* d = sockets_.at_handle(handle)) f(*d, *d->shared.make().part);
  }
  bool other_kernel(KernelId kernel) const {
    return kernel != self_ && kernel.value < kernels_ && directory_.in_reach(kernel);
  }

  Sockets& sockets_;
  Directory& directory_;
  KernelId self_;
  u16 kernels_;
  message::Messenger* messenger_ = nullptr;
  std::unordered_map<u64, Join> joins_;
  std::vector<u32> parts_;  // handles
  std::deque<Owed> owed_;
  std::unordered_map<u16, Time> appeared_;  // not connected yet: by number, until when it may be
  Time now_;
  Counters counters_;
};

}  // namespace cob::kernel
