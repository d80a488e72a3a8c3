// Control messages between the supervisor and its kernels, on one SOCK_SEQPACKET pair a kernel
// (descriptor 3 of cob-kernel). Model: one flat struct a datagram, descriptors beside it by
// SCM_RIGHTS; never on the data path. The supervisor introduces kernels to each other: each kernel
// creates the memory that it writes and hands it over through here; the doorbells the supervisor
// makes, whom both trust. Sent and read by the supervisor's and each kernel's single thread.
#pragma once

#include <array>

#include "base/types.h"

namespace cob::message {

// In `reserved` of move_out: all that share descriptions with the program go along.
inline constexpr u32 move_together = 1u << 16;
// Likewise: the kernel is one of another island: the program goes there by itself.
inline constexpr u32 move_apart = 1u << 17;

enum class ControlKind : u32 {
  config = 1,     // supervisor -> kernel, first: Config
  hello,          // kernel -> supervisor: Simple. + {board memfd}: the kernel runs
  link,           // kernel -> supervisor: LinkNotice. + {outbound memfd for `peer`}
  peer_up,        // supervisor -> kernel: LinkNotice. + {outbound memfd that `peer` writes for us}
  peer_down,      // supervisor -> kernel: Simple, value = peer, epoch = the dead one's
  program,        // supervisor -> kernel: Simple, value = host pid. + {kernel's end of a program's
                  // liveness socket}
  shutdown,       // supervisor -> kernel: Simple: end orderly
  peer_appeared,  // supervisor -> kernel: Simple, value = peer, epoch = the peer's. + {button that
                  // rings the peer, bell that the peer rings} (base/doorbell.h): answer with
                  // `link`. Of another island: only where a window joins them
  peer_faulted,   // kernel -> supervisor: Simple, value = peer, epoch = the peer's: it broke the
                  // message protocol and was cut off (or the sender lies: the supervisor's policy)
  viewer,         // supervisor -> kernel: Simple. + {socket of a command that will ask what
                  // kernel/view.h says}
  listening,      // kernel -> supervisor: Simple, value = port: it listens there, for the uplink
  not_listening,  // kernel -> supervisor: Simple, value = port: no more
  steered,        // supervisor -> kernel: Simple: the steering tables have changed
  // A cable to another cob; its kernels are `peer` here (net/snap_bean/cable.h).
  cable_plugged,    // supervisor -> kernel: Simple. + {the other cob's steering tables, to read}
  cable_unplugged,  // supervisor -> kernel: Simple: all its wires are gone
  wire_open,        // supervisor -> kernel: LinkNotice. + {our end of the bell}: answer wire_memory
  wire_memory,      // both ways: LinkNotice. + {what `own` writes for `peer`, or the reverse}
  wire_down,        // supervisor -> kernel: Simple, value = peer, epoch = the dead one's
  wire_cut,         // kernel -> supervisor: Simple, value = peer, epoch = the peer's: it broke the
                    // cable's protocol and is heard no more
  share,  // supervisor -> kernel, Config::shares of them right behind it: ShareNotice and its path.
          // + {the directory, O_PATH}, if this kernel's island has it
  move_out,     // supervisor -> kernel: Simple, value = host pid, reserved = the kernel that the
                // program shall have. + {channel to that kernel, socket of the command:
                // kernel/moving.h; in a cob of several islands: the program's end of a liveness
                // socket with that kernel, should it go there by itself}
  move_in,      // supervisor -> kernel: Simple, value = the kernel that a program comes from.
                // + {channel to that kernel}
  board,        // supervisor -> kernel: Simple, value = peer, epoch = the peer's. + {its board, to
                // read}: of the same island
  angel,        // supervisor -> kernel: AngelNotice
  move_groups,  // kernel -> supervisor: GroupOrder
  suspects,     // kernel -> supervisor: Simple, value = peer: it does not take its input
  move_thread,  // supervisor -> kernel: Simple, value = the host's number of a thread that it
                // serves, reserved = the kernel that shall
  link_at,  // supervisor -> kernel: Simple, value = peer, epoch = the peer's, reserved = port of
            // 127.0.0.1 where that kernel of an added island is called; 0: it is gone
};

// Angel's policies (docs/angel.md), a bit each.
inline constexpr u32 angel_moves = 1, angel_redirect = 2, angel_take = 4, angel_hung = 8,
                     angel_all = 15;
// Flow groups of a TCP port that are the sender's and shall be others'.
inline constexpr u16 most_group_moves = 16;
struct GroupOrder {
  u32 kind = 0;
  u16 port = 0;
  u16 count = 0;  // at most most_group_moves
  u16 group[most_group_moves] = {};
  u16 to[most_group_moves] = {};
};
struct AngelNotice {
  u32 kind = 0;
  u32 policies = 0;
  u64 draining = 0;  // kernels that get no new connections, a bit each
};

inline constexpr u16 most_kernels = 64;  // that a supervisor starts
inline constexpr u16 most_shares = 16;
inline constexpr std::size_t most_path_bytes = 1'023;  // of a share

// What joins kernels of different islands; within one it is coherent memory.
enum class IslandLink : u8 { window, socket };

// How a cob's frames leave it.
enum class UplinkKind : u16 { none, tap, cable, xdp };

// Beside it, with an uplink: {steering tables, count of their changes}, both to read, and what the
// uplink's kind needs: tap: {this kernel's queue}; xdp: of each queue of this kernel's {AF_XDP
// socket, its memory}, or nothing: it sends by `uplink_proxy`. Before all of them, if link_port of
// this kernel is not 0: {TCP socket that listens there}.
struct Config {
  u32 kind = 0;
  u16 kernel = 0;
  u16 kernels = 0;
  u32 epoch = 0;    // of this kernel; counts its respawns, from 1
  i32 core = -1;    // host core to pin to
  u32 address = 0;  // host byte order
  u32 prefix_bits = 0;
  u64 secret[2] = {};  // cob-wide
  u8 mac[6] = {};
  UplinkKind uplink = UplinkKind::none;
  u32 gateway = 0;         // host byte order; 0: none, so only the prefix is reached by the uplink
  u16 uplink_mtu = 0;      // bytes behind the Ethernet header
  u16 uplink_offload = 0;  // tap: 1: checksums and segmentation are left to Linux, 0: they are not;
                           // xdp: 1: Linux leaves checksums out of what comes, 0: it does not
  u16 uplink_proxy = 0;    // xdp: a kernel with a queue
  u16 uplink_gathers = 0;  // xdp: 1: new connections come to a few kernels, not spread over all
  u8 congestion = 0;       // net::CongestionControl, of new connections
  u8 ecn = 1;              // net::Ecn
  u8 shares = 0;           // so many messages `share` follow
  IslandLink link = IslandLink::window;
  std::array<u8, most_kernels> island{};  // of each kernel; all 0: there is one; see added_island
  std::array<u16, most_kernels> link_port{};  // socket: where each is called by the lower ones
  std::array<u8, 32> link_key{};              // socket: known to this cob's kernels alone
  u8 ipv6_on = 0, ipv6_auto = 0;              // net::Ipv6Options
  u8 ipv6_prefix_bits = 0;                    // of `ipv6`; 0: none but those of routers
  u8 ipv6[16] = {}, ipv6_gateway[16] = {};
  u8 ipv6_link_local = 1;
  u64 ipv6_identifier_key[2] = {};  // zeros: identifiers are the MAC address's
  u32 uplink_index = 0;             // the uplink's interface on the host; 0: none
  char cob_name[64] = {};
};

// A bit of Config::island: the last kernels may be those of islands that are added later, one each
// (docs/islands.md, "Machines"). They are no port's home, and joined to others by link_at alone.
inline constexpr u8 added_island = 0x80;
inline constexpr u16 declared_kernels(const Config& config) {
  u16 count = 0;
  while (count < config.kernels && count < most_kernels &&
         (config.island[count] & added_island) == 0)
    ++count;
  return count;
}

struct LinkNotice {
  u32 kind = 0;
  u16 peer = 0;
  u16 reserved = 0;
  u32 peer_epoch = 0;  // epoch of the other kernel that this memory is for (link) or from (peer_up)
  u32 own_epoch = 0;   // epoch of the kernel that sends (link) or receives (peer_up)
};

// A directory of one island that the whole cob shall see; its path follows.
struct ShareNotice {
  u32 kind = 0;
  u16 number = 0;
  u16 island = 0;  // whose it is
  u16 read_only = 0;
  u16 path_bytes = 0;
};

struct Simple {
  u32 kind = 0;
  u32 value = 0;
  u32 epoch = 0;
  u32 reserved = 0;
};

}  // namespace cob::message
