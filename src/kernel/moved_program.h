// MovedGroup: programs that come from another kernel together, as their image tells it;
// docs/moving.md.
// Model: parse() looks at every number that could lead out of a table, a chunk or the image; what
// needs the receiving kernel's own tables is Sockets::may_install()'s. It owns the bytes that its
// spans lie in. Values; no thread of their own.
#pragma once

#include <optional>
#include <vector>

#include "kernel/move_image.h"
#include "net/stack/address_names.h"

namespace cob::kernel {

struct MovedChunk {
  u32 chunk;
  std::span<const std::byte> bytes;
};

struct MovedDescription {
  DescriptionPart part{};
  net::Endpoint local, remote;
  std::vector<MovedChunk> chunks;
  std::span<const std::byte> kept;
  std::vector<PiecePart> pieces;
  std::span<const std::byte> sent;  // in their place
  std::optional<net::MovedConnection> connection;
  SettingsPart settings;
  std::array<u64, 6> memory{};
  DatagramPart datagram{};
  net::Endpoint bound;
  std::vector<net::Ipv4Address> groups;
  ListenerPart listener{};
  net::Endpoint listens_at;
  std::vector<u32> pending;
  std::vector<DeferredPart> deferred;
  std::vector<net::MovedConnection> handshakes;
  u32 slots = 0, unadopted = 0;  // that name it, of all programs
};

struct MovedReadyRing {
  ReadyRingPart part;
  std::span<const std::byte> entries;
};

struct MovedProgram {
  ProgramPart head{};
  std::vector<ThreadPart> threads;
  std::span<const std::byte> low_lines, low_names, high_lines, high_names;  // as they lie
  std::vector<MovedReadyRing> ready_rings;
  std::span<const std::byte> freed;  // entries
  std::vector<OfferRingPart> offer_rings;
  std::vector<SlotPart> slots;  // ascending
  std::vector<MovedChunk> lent;
  std::vector<UnadoptedPart> unadopted;
  std::vector<u32> receive_chunks;  // all that are in use

  // The kernel's line of a slot. REQUIRES: a slot that `slots` has.
  call::KernelSocket line(u32 slot) const;
};

struct MovedGroup {
  std::vector<std::byte> bytes;
  std::vector<MovedProgram> programs;
  std::vector<MovedDescription> descriptions;

  // EPROTO: no kernel wrote that. `names`: of addresses, here.
  static Result<MovedGroup> parse(std::vector<std::byte> bytes, net::AddressNames* names);
};

}  // namespace cob::kernel
