// The byte stream between the two halves of an added island (docs/islands.md, "Machines"): the
// stand-in on the cob's host and the agent on the other machine. Model: frames, each a head and its
// body; streams numbered by the stand-in carry the datagrams of sockets that cannot be passed
// between machines. Both ends are of one version and byte order, which the hello proves; each
// checks what the other says all the same. One thread a side; never blocks.
#pragma once

#include <cstring>
#include <functional>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/types.h"

namespace cob::island {

enum class FrameKind : u16 {
  hello = 1,  // agent -> stand-in, first: Hello
  config,     // stand-in -> agent: message::Config
  share,      // stand-in -> agent, Config::shares of them: message::ShareNotice and its path
  control,    // both: a datagram of message/control.h without descriptors
  board,      // agent -> stand-in: offset:u32, and bytes of the kernel's board from there on
  open,       // stand-in -> agent: StreamKind:u32: the stream begins
  data,       // both: a datagram of the stream
  close,      // both: the stream's end
  ended,      // agent -> stand-in: text: the kernel there has ended
};

enum class StreamKind : u32 {
  run = 1,  // start_protocol.h, with the command
  view,     // kernel/view.h, with the kernel
};

inline constexpr u32 hello_magic = 0x69626f63;  // "cobi"; bytes the other way around elsewhere
inline constexpr u32 channel_version = 1;
struct Hello {
  u32 magic = hello_magic;
  u32 version = channel_version;
  u32 config_bytes = 0;   // of message::Config
  u32 board_bytes = 0;    // of kernel::Board
  char machine[16] = {};  // uname -m
};

struct FrameHead {
  u32 bytes = 0;  // of the body
  FrameKind kind{};
  u16 reserved = 0;
  u32 stream = 0;
};

class Channel {
 public:
  static constexpr u32 max_frame_bytes = 256 * 1'024;
  // Unsent, from which on what can wait shall wait; beyond twice that the channel is broken.
  static constexpr std::size_t busy_bytes = std::size_t{4} << 20;

  // `stream`: not blocking.
  explicit Channel(Fd stream) : stream_(std::move(stream)) {}

  void send(FrameKind kind, u32 stream, std::span<const std::byte> body);
  template <typename Struct>
  void send_struct(FrameKind kind, u32 stream, const Struct& body) {
    send(kind, stream, std::as_bytes(std::span(&body, 1)));
  }
  // Writes what the stream takes. EPIPE, ENOBUFS: it is broken.
  Result<void> flush();

  using OnFrame = std::function<Result<void>(const FrameHead&, std::span<const std::byte>)>;
  // Reads what there is, and hands on each whole frame. ECONNRESET: the other end is gone.
  // EPROTO: a frame too long; else what `on_frame` says.
  Result<void> receive(const OnFrame& on_frame);

  bool has_unsent() const { return sent_ < out_.size(); }
  bool busy() const { return out_.size() - sent_ > busy_bytes; }
  FdRef fd() const { return stream_.ref(); }

 private:
  Fd stream_;
  std::vector<std::byte> in_, out_;
  std::size_t sent_ = 0;  // of `out_`
};

// The struct at the body's start. EPROTO: it is shorter.
template <typename Struct>
Result<Struct> struct_of(std::span<const std::byte> body) {
  if (body.size() < sizeof(Struct)) return Error::of(EPROTO, "a frame cut short");
  Struct value;
  std::memcpy(&value, body.data(), sizeof value);
  return value;
}

}  // namespace cob::island
