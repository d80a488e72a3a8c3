// CableEnd: a supervisor's end of a cable: the socket to the other cob's supervisor, and the wires
// between the kernels of the two. Model: unplugged -> greeting (hello sent) -> plugged ->
// unplugged; the socket's end is the other cob's. The other supervisor may be hostile: what it
// sends is checked, costs bounded work, and whatever is wrong ends the cable and nothing else.
// Owned by the supervisor's single thread; nothing here blocks.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/passing.h"
#include "cli/arguments.h"
#include "cli/cable_protocol.h"
#include "cli/kernel_slot.h"
#include "cli/outbox.h"

namespace cob::cli {

class CableEnd {
 public:
  // Of one kernel of the other cob, in the window: more ends the cable.
  static constexpr std::size_t most_lives = 16;
  static constexpr Duration lives_window = Duration::seconds(10);
  // That the other does not take: two for each pair of kernels, and some. More end the cable.
  static constexpr std::size_t max_queued = 2 * max_kernels * max_kernels + 256;
  static constexpr Duration hello_timeout = Duration::seconds(5);

  enum class Role { maker, other };
  using Log = std::function<void(const std::string&)>;

  // `kernels` and `steering` (this cob's tables) outlive it.
  CableEnd(std::string name, CobAddress address, std::vector<KernelSlot>& kernels, FdRef steering,
           Log log);

  // Starts to talk. EBUSY: there is a cable. EPERM: no SOCK_SEQPACKET of the Unix domain.
  Result<void> plug(Fd socket, Role role, Time now);
  // Kernels hear of it. `why`: kept for status, and logged.
  void unplug(const std::string& why);
  bool in_use() const { return socket_.valid(); }
  bool plugged() const { return in_use() && greeted_; }
  FdRef socket() const { return socket_.ref(); }
  bool has_queued() const { return !outbox_.empty(); }
  void flush() { outbox_.flush(socket_.ref()); }

  // The socket has something. Unplugs when it ended, or sends what it must not.
  void on_socket(Time now);
  Time deadline() const { return in_use() && !greeted_ ? greet_until_ : Time::never(); }
  void on_deadline(Time now);

  void on_kernel_up(KernelSlot& kernel);
  void on_kernel_down(const KernelSlot& kernel, u32 epoch);
  // What a kernel says: false if it makes no sense.
  bool on_wire_memory(const KernelSlot& kernel, const message::LinkNotice& notice, Datagram& from);
  bool on_wire_cut(const KernelSlot& kernel, const message::Simple& report);

  // For status: null without a cable and without a past one's end.
  nlohmann::json describe() const;

 private:
  struct Peer {          // a kernel of the other cob
    u32 epoch = 0;       // 0: dead
    u32 last_epoch = 0;  // they only grow
    std::deque<Time> lives;
  };
  struct Wire {  // the present lives of its two kernels, and what went between them
    u32 own_epoch = 0, peer_epoch = 0;
    bool opened = false;  // our kernel has its bell
    bool memory_out = false, memory_in = false;
  };

  void on_hello(const CableHello& hello, Datagram& datagram);
  void on_kernel(const CableKernel& news, bool up, Time now);
  void on_bell(const CableWire& wire, Datagram& datagram);
  void on_memory(const CableWire& wire, Datagram& datagram);
  // The wire that `message` of the other cob names. Null: of lives that are over here. Unplugs if
  // it cannot be.
  Wire* wire_of(const CableWire& message, const Datagram& datagram);

  template <typename Struct>
  void tell(const Struct& message, std::vector<Fd> descriptors = {});
  template <typename Struct>
  void tell_kernel(KernelSlot& kernel, const Struct& message, std::vector<Fd> descriptors = {});
  void tell_plugged(KernelSlot& kernel);
  void make_wire(KernelSlot& kernel, u16 peer);
  void open_wire(KernelSlot& kernel, u16 peer, Fd bell);
  void drop_wire(KernelSlot& kernel, u16 peer);
  Wire& wire(u16 own, u16 peer) { return wires_[std::size_t{own} * max_kernels + peer]; }

  std::string name_;
  CobAddress address_;
  std::vector<KernelSlot>& kernels_;
  FdRef steering_;
  Log log_;

  Fd socket_;
  Role role_ = Role::maker;
  Outbox outbox_{max_queued};
  bool greeted_ = false;
  Time greet_until_;
  std::string other_name_;
  CobAddress other_address_;
  u16 other_kernels_ = 0;
  u32 other_user_ = 0;
  Fd other_steering_;
  std::array<Peer, max_kernels> peers_;
  std::vector<Wire> wires_;  // by own kernel and peer
  u64 cut_ = 0;              // wires that our kernels cut
  std::string ended_;        // why the last cable did
};

}  // namespace cob::cli
