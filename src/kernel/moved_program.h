// MovedProgram: a program that comes from another kernel, as its image tells it; docs/moving.md.
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
  // Of the slot that holds it; 0: none.
  u32 slot = 0;
};

struct MovedReadyRing {
  ReadyRingPart part;
  std::span<const std::byte> entries;
};

struct MovedProgram {
  std::vector<std::byte> bytes;
  ImageHead head{};
  std::vector<ThreadPart> threads;
  std::span<const std::byte> low_lines, low_names, high_lines, high_names;  // as they lie
  std::vector<MovedReadyRing> ready_rings;
  std::span<const std::byte> freed;  // entries
  std::vector<OfferRingPart> offer_rings;
  std::vector<SlotPart> slots;
  std::vector<MovedChunk> lent;
  std::vector<MovedDescription> descriptions;
  std::vector<u32> receive_chunks;  // all that are in use

  // EPROTO: no kernel wrote that. `names`: of addresses, here.
  static Result<MovedProgram> parse(std::vector<std::byte> bytes, net::AddressNames* names);
};

}  // namespace cob::kernel
