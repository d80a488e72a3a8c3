// The datagram of door.h, in the host's byte order: both ends are on one machine.
#include "offload/door.h"

#include <algorithm>

namespace cob::offload {

namespace {

constexpr u32 magic = 0x6f626f63;  // "cobo"
constexpr u32 version = 1;
constexpr std::size_t most_cores = 64;

struct Message {
  u32 magic;
  u32 version;
  u64 arena_bytes;
  u64 address;
  u32 cores_count;
  i32 cores[most_cores];
  u32 reserved;
};

}  // namespace

Result<void> knock(FdRef door, FdRef socket, const Arena& arena, const std::vector<int>& cores) {
  Message message{};
  message.magic = magic;
  message.version = version;
  message.arena_bytes = arena.bytes();
  message.address = arena.address();
  message.cores_count = static_cast<u32>(std::min(cores.size(), most_cores));
  std::copy_n(cores.begin(), message.cores_count, message.cores);
  const FdRef descriptors[] = {socket, arena.fd()};
  return send_struct(door, message, descriptors);
}

Result<Knock> hear_knock(FdRef door) {
  Message message{};
  auto datagram =
      TRY(receive_datagram(door, std::as_writable_bytes(std::span(&message, 1)), Blocking::never));
  if (datagram.bytes == 0) return Error::of(ECONNRESET, "the host has gone");
  if (datagram.bytes != sizeof message || datagram.truncated || message.magic != magic ||
      message.cores_count > most_cores || datagram.descriptors.size() != 2)
    return Error::of(EPROTO, "not a host's knock");
  if (message.version != version) return Error::of(EPROTONOSUPPORT, "a host of another version");
  Knock knock;
  knock.arena =
      TRY(Arena::open(datagram.descriptors[1].ref(), message.arena_bytes, message.address));
  knock.socket = std::move(datagram.descriptors[0]);
  knock.cores.assign(message.cores, message.cores + message.cores_count);
  return knock;
}

}  // namespace cob::offload
