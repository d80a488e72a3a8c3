// Making, checking and joining the two memories of a coherent link.
// See coherent.h. The kernel's loop.
#include "message/coherent.h"

#include <sys/stat.h>

#include <new>

#include "message/frame_ring.h"
#include "message/message_ring.h"

namespace cob::message {

LinkMemory* initialise(const Mapping& mapping, const LinkHeader& header) {
  constexpr std::size_t pool_prefault = 256U << 10;
  mapping.populate(0, offsetof(LinkMemory, pool_area) + pool_prefault);
  auto* memory = new (mapping.data()) LinkMemory;  // no initialiser: the pool stays untouched
  memory->header = header;
  UrgentWriter::prepare(std::span<Slot, urgent_slots>(memory->urgent));
  MessageWriter::prepare(std::span<Slot, message_slots>(memory->slot));
  FrameWriter::prepare(std::span<FrameEntry, frame_entries>(memory->entry));
  return memory;
}

Result<Fd> CoherentTransport::open(u32 to_epoch, u64 bulk_bytes, Doorbell doorbell) {
  VERIFY(!opened());
  SharedMemory made =
      TRY(create_memory("cob-link", sizeof(LinkMemory) + bulk_bytes, Writers::creator));
  header_.to_epoch = to_epoch;
  header_.bulk_bytes = bulk_bytes;
  bulk_bytes_ = bulk_bytes;
  doorbell_ = std::move(doorbell);
  initialise(made.mapping, header_);
  memory_->out = std::move(made.mapping);
  complete();
  return std::move(made.fd);
}

Result<void> CoherentTransport::accept(Fd memory) {
  VERIFY(!accepted());
  struct stat status{};
  if (::fstat(memory.get(), &status) != 0) return Error::from_errno("fstat of a link's memory");
  const auto claimed = static_cast<u64>(status.st_size);
  const bool possible =
      claimed >= sizeof(LinkMemory) && claimed - sizeof(LinkMemory) <= max_bulk_bytes;
  const u64 bytes = possible ? claimed : sizeof(LinkMemory);  // else it is refused
  memory_->in = TRY(map_foreign(memory.ref(), bytes, Writers::creator, Access::read));
  complete();
  return {};
}

void CoherentTransport::complete() {
  if (!opened() || !accepted()) return;
  ends_ = {.out = std::launder(reinterpret_cast<LinkMemory*>(memory_->out.data())),
           .in = std::launder(reinterpret_cast<const LinkMemory*>(memory_->in.data())),
           .out_bulk_bytes = bulk_bytes_,
           .in_bulk_bytes = in_bulk_bytes(),
           .hold = memory_,
           .bulk = memory_->out.data() + sizeof(LinkMemory)};
}

void CoherentTransport::ring() {
  if (doorbell_.button.valid()) cob::ring(doorbell_.button.ref());
}

}  // namespace cob::message
