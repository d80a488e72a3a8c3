// A wire's memories and its bell; see cable_link.h. unix(7), recv(2), send(2). The kernel's loop.
#include "net/snap_bean/cable_link.h"

#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <new>

#include "message/shared_word.h"

namespace cob::net {
namespace {
// The rings, and of the pool what is used while the peer keeps up.
constexpr std::size_t prefault_bytes = offsetof(CableMemory, pool) + (256U << 10);
}  // namespace

Result<std::pair<Fd, Fd>> make_cable_bell() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return Error::from_errno("socketpair");
  return std::pair(Fd(ends[0]), Fd(ends[1]));
}

Result<void> check_cable_bell(FdRef bell) {
  int domain = 0, type = 0;
  socklen_t length = sizeof domain;
  if (::getsockopt(bell.get(), SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0 ||
      ::getsockopt(bell.get(), SOL_SOCKET, SO_TYPE, &type, &length) != 0 || domain != AF_UNIX ||
      type != SOCK_STREAM)
    return Error::of(EPERM, "the bell of a cable is no Unix stream socket");
  return {};
}

Result<std::unique_ptr<CableLink>> CableLink::create(const CableEnds& ends, Fd bell) {
  TRY(check_cable_bell(bell.ref()));
  SharedMemory out = TRY(create_memory("cob-cable", sizeof(CableMemory), Writers::creator));
  out.mapping.populate(0, prefault_bytes);
  auto* memory = new (out.mapping.data()) CableMemory;  // no initialiser: the pool stays untouched
  message::FrameWriter::prepare(memory->entry);
  memory->header.from = ends.own.value;
  memory->header.to = ends.peer.value;
  memory->header.from_epoch = ends.own_epoch;
  memory->header.to_epoch = ends.peer_epoch;
  memory->header.version = CableMemory::layout_version;
  memory->header.magic = CableMemory::magic_value;
  return std::unique_ptr<CableLink>(new CableLink(ends, std::move(out), std::move(bell)));
}

Result<void> CableLink::accept(Fd memory) {
  if (in_.valid() || cut_) return Error::of(EEXIST, "the cable's memory has come already");
  Mapping mapping =
      TRY(map_foreign(memory.ref(), sizeof(CableMemory), Writers::creator, Access::read));
  CableMemory::Header header;
  message::copy_once(&header, mapping.data(), sizeof header);
  if (header.magic != CableMemory::magic_value || header.version != CableMemory::layout_version)
    return Error::of(EPROTO, "cable memory of another layout");
  if (header.from != ends_.peer.value || header.to != ends_.own.value ||
      header.from_epoch != ends_.peer_epoch || header.to_epoch != ends_.own_epoch)
    return Error::of(EPROTO, "cable memory of another kernel or epoch");
  in_ = std::move(mapping);
#ifdef MADV_POPULATE_READ
  (void)::madvise(in_.data(), prefault_bytes, MADV_POPULATE_READ);
#endif
  writer_ = message::FrameWriter(out().entry, out().pool, &in().state.frames_consumed);
  reader_ = message::FrameReader(in().entry, in().pool, &out().state.frames_consumed);
  return {};
}

void CableLink::set_armed(u32 armed) { message::store_relaxed(out().state.armed, armed); }

bool CableLink::ring_if_armed() {
  const u32 armed = message::load_relaxed(in().state.armed);
  if (armed == 0 || armed == rung_) return false;
  rung_ = armed;
  const char one = 1;
  (void)!::send(bell_.get(), &one, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  return true;
}

void CableLink::quieten() const {
  std::array<char, 256> heard;
  (void)!::recv(bell_.get(), heard.data(), heard.size(), MSG_DONTWAIT);
}

}  // namespace cob::net
