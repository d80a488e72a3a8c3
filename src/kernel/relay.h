// Relays: connections of programs that cannot be attached (static, set-user-ID). Model: a relay is
// a reference to a description without a holder, and a host socketpair: the program has one end at
// the socket's number, the kernel copies bytes between the other and the connection. While others
// hold the description too, the kernel keeps a copy of the program's end: it takes back what the
// program has not read when a holder reads, or when the program is gone. Nothing here blocks; what
// a program does to its end harms itself only. unix(7), epoll(7). Kernel's loop only.
#pragma once

#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "kernel/sockets.h"

namespace cob::kernel {

class Relays final {
 public:
  // What an epoll event of a relay carries beside its id.
  static constexpr u64 event_mark = u64{4} << 32;
  static constexpr std::size_t send_limit =
      std::size_t{256} * 1024;  // bytes a relay may have under way
  static constexpr std::size_t budget =
      std::size_t{64} * 1024;  // bytes a relay and direction, each turn

  // `events`: the epoll set of the loop. `most`: reaction when full: those that no program is
  // known to use end, then ENFILE.
  Relays(Sockets& sockets, FdRef events, u32 most)
      : sockets_(sockets), events_(events), most_(most), scratch_(budget) {}

  struct Lent {
    u32 id;
    FdRef end;  // the program's
  };
  // The relay of a connection, for one more program. EOPNOTSUPP: it is none.
  Result<Lent> lend(Description& d);
  // A program that was lent an end is gone, or at least tells no more.
  void returned(u32 id);
  // A holder is about to operate the description: what the relay's program wrote comes first, and
  // what it has not read is anyone's.
  void before_call(Description& d, bool reads);

  void on_event(u32 id);
  // Copies what can be copied; true if anything was.
  bool poll();
  std::size_t count() const { return relays_.size(); }

 private:
  struct Relay {
    u32 id;
    Description* description;
    Fd ours;
    Fd theirs;      // while others hold the description
    u32 users = 0;  // programs that were lent `theirs` and have not returned it
    bool hot = false;
    bool readable = true, writable = true;
    bool deaf = false;        // the program reads no more
    bool told_end = false;    // the program was told of the peer's FIN
    bool said_end = false;    // the program's own end of its stream was passed on
    bool left_bytes = false;  // it closed its end with bytes unread
  };

  Relay* find(u32 id);
  Result<Relay*> make(Description& d);
  void heat(Relay& r);
  bool pump(u32 id);
  bool to_program(Relay& r);
  bool to_network(Relay& r, std::size_t most, std::size_t limit, bool& over);
  bool at_end(Relay& r);
  void take_back(Relay& r);
  void withdraw(Relay& r);
  void end(Relay& r);
  void end_unused();

  Sockets& sockets_;
  FdRef events_;
  u32 most_;
  std::vector<std::byte> scratch_;
  std::unordered_map<u32, std::unique_ptr<Relay>> relays_;
  std::vector<u32> hot_;
  u32 next_id_ = 1;
};

}  // namespace cob::kernel
