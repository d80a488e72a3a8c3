// Opening, checking and connecting links; publishing and ringing.
// See links.h. The kernel's loop.
#include "message/links.h"

#include <algorithm>

namespace cob::message {
namespace {

constexpr std::size_t pool_prefault = 256U << 10;

// Fills fresh, zeroed memory before anybody else sees it.
LinkMemory* initialise(const Mapping& mapping, const LinkHeader& header) {
  mapping.populate(0, offsetof(LinkMemory, pool_area) + pool_prefault);
  auto* memory = new (mapping.data()) LinkMemory;  // no initialiser: the pool stays untouched
  memory->header = header;
  MessageWriter::prepare(std::span<Slot, message_slots>(memory->slot));
  FrameWriter::prepare(std::span<FrameEntry, frame_entries>(memory->entry));
  return memory;
}

}  // namespace

Result<std::unique_ptr<Links>> Links::create(KernelId self, u32 own_epoch, u16 kernels) {
  if (self.value >= kernels) return Error::of(EINVAL, "kernel id beyond the number of kernels");
  std::unique_ptr<Links> links(new Links(self, own_epoch));
  for (u16 i = 0; i < kernels; ++i) {
    links->links_.push_back(std::make_unique<Link>());
    links->links_.back()->peer = i;
  }
  links->active_.reserve(kernels);
  links->touched_.reserve(kernels);
  TRY(links->open_self());
  return links;
}

Result<void> Links::open_self() {
  Link& link = *links_[self_.value];
  link.outbound = TRY(Mapping::anonymous(sizeof(LinkMemory)));
  link.out = initialise(link.outbound, LinkHeader{});
  link.in = link.out;
  link.peer_epoch = own_epoch_;
  link.outbound_open = true;
  connect_if_complete(link);
  return {};
}

void Links::know(MessageType type, u64 schema) {
  VERIFY(type.value > 0 && type.value < message_types);
  VERIFY(schema_[type.value] == 0 || schema_[type.value] == schema);  // two types of one number
  schema_[type.value] = schema;
  for (const auto& link : links_) VERIFY(link->peer == self_.value || !link->outbound_open);
  links_[self_.value]->known[type.value / 64] |= u64{1} << (type.value % 64);
}

Result<Fd> Links::open_link(KernelId peer, u32 peer_epoch, Doorbell doorbell) {
  Link* link = find(peer);
  if (link == nullptr || peer == self_) return Error::of(EINVAL, "no such peer kernel");
  if (link->outbound_open) return Error::of(EEXIST, "link is already open");
  SharedMemory memory = TRY(create_memory("cob-link", sizeof(LinkMemory), Writers::creator));
  link->out = initialise(memory.mapping, LinkHeader{.magic = LinkHeader::magic_value,
                                                    .version = LinkHeader::layout_version,
                                                    .from = self_.value,
                                                    .to = peer.value,
                                                    .from_epoch = own_epoch_,
                                                    .to_epoch = peer_epoch,
                                                    .slots = message_slots,
                                                    .entries = frame_entries,
                                                    .pool = pool_bytes,
                                                    .schema = schema_});
  link->outbound = std::move(memory.mapping);
  link->outbound_open = true;
  link->doorbell = std::move(doorbell);
  link->peer_epoch = peer_epoch;
  connect_if_complete(*link);
  return std::move(memory.fd);
}

Result<void> Links::peer_up(KernelId peer, u32 peer_epoch, Fd outbound) {
  Link* link = find(peer);
  if (link == nullptr || peer == self_) return Error::of(EINVAL, "no such peer kernel");
  if (link->in != nullptr) return Error::of(EEXIST, "peer is already up");
  Mapping mapping =
      TRY(map_foreign(outbound.ref(), sizeof(LinkMemory), Writers::creator, Access::read));
  const auto* memory = reinterpret_cast<const LinkMemory*>(mapping.data());
  LinkHeader header;
  copy_once(&header, &memory->header, sizeof header);
  if (header.magic != LinkHeader::magic_value || header.version != LinkHeader::layout_version ||
      header.slots != message_slots || header.entries != frame_entries || header.pool != pool_bytes)
    return Error::of(EPROTO, "link memory of another layout");
  if (header.from != peer.value || header.to != self_.value || header.from_epoch != peer_epoch ||
      header.to_epoch != own_epoch_)
    return Error::of(EPROTO, "link memory of another kernel or epoch");
  std::array<u64, message_types / 64> known{};
  for (std::size_t type = 1; type < message_types; ++type) {
    const u64 theirs = header.schema[type];
    if (theirs == 0 || schema_[type] == 0) continue;
    if (theirs != schema_[type]) return Error::of(EPROTO, "peer has another schema of a message");
    known[type / 64] |= u64{1} << (type % 64);
  }
  link->known = known;
  link->in = memory;
  link->inbound = std::move(mapping);
  link->peer_epoch = peer_epoch;
  connect_if_complete(*link);
  return {};
}

void Links::connect_if_complete(Link& link) {
  if (link.out == nullptr || link.in == nullptr) return;
  link.messages_out = MessageWriter(link.out->slot, &link.in->state.messages_consumed);
  link.messages_in = MessageReader(link.in->slot, &link.out->state.messages_consumed);
  link.frames_out =
      FrameWriter(link.out->entry, link.out->pool_area, &link.in->state.frames_consumed);
  link.frames_in =
      FrameReader(link.in->entry, link.in->pool_area, &link.out->state.frames_consumed);
  link.generation = ++generations_;
  link.connected = true;
  store_relaxed(link.out->state.armed, armed_ ? armed_bit : 0);
  active_.push_back(&link);
}

void Links::disconnect(Link& link) {
  std::erase(active_, &link);
  std::erase(touched_, &link);
  link.connected = link.faulted = link.outbound_open = link.starved = false;
  link.touched = 0;
  link.reserved_reply_lines = 0;
  link.generation = ++generations_;
  link.in = nullptr;
  link.out = nullptr;
  link.inbound.reset();
  link.outbound.reset();
  link.doorbell = {};
}

void Links::fault(Link& link) {
  if (!link.connected) return;
  link.connected = false;
  link.faulted = true;
  ++link.counters.faults;
  any_faulted_ = true;
}

Link* Links::next_faulted() {
  for (Link* link : active_) {
    if (link->faulted) return link;
  }
  any_faulted_ = false;
  return nullptr;
}

// The doorbell (decision 3). Sender: store sequences; fence; load armed. Receiver: store armed;
// fence; load sequences. Were a wake-up lost, the sender's load would have missed the receiver's
// store and the receiver's load the sender's: each load then precedes the other side's store in the
// single order of the two fences, a cycle. So at least one sees the other: the receiver does not
// sleep, or the sender rings. A bell keeps the ring until it is heard, so ringing between the
// receiver's last look and its wait is not lost either. Credits wake a starved sender by the same
// argument.
void Links::flush_touched() {
  for (Link* link : touched_) {
    if (link->connected) link->frames_out.publish();
  }
  full_fence();
  for (Link* link : touched_) {
    const u32 touched = std::exchange(link->touched, u8{0});
    if (!link->connected) continue;
    const u32 armed = load_relaxed(link->in->state.armed);
    if (armed == 0) [[likely]]
      continue;
    if ((touched & touched_data) != 0 || (armed & starved_bit) != 0) ring(*link);
  }
  touched_.clear();
}

void Links::ring(Link& link) {
  if (!link.doorbell.button.valid()) return;
  ++link.counters.doorbells;
  cob::ring(link.doorbell.button.ref());
}

void Links::set_armed(bool armed) {
  if (armed) {
    for (Link* link : active_) {  // a sleeper keeps no peer guessing
      if (link->messages_in.uncredited() == 0) continue;
      link->messages_in.publish_credits();
      touch(*link, touched_credits);
    }
    flush();
  }
  armed_ = armed;
  for (Link* link : active_) {
    const u32 word = armed ? armed_bit | (link->starved ? starved_bit : 0) : 0;
    store_relaxed(link->out->state.armed, word);
  }
  if (armed) full_fence();
}

bool Links::anything_pending() const {
  if (any_faulted_) return true;
  for (const Link* link : active_) {
    if (!link->messages_in.empty() || !link->frames_in.empty()) return true;
    if (link->starved && link->messages_out.credits_changed()) return true;
  }
  return false;
}

}  // namespace cob::message
