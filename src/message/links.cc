// Opening, checking and connecting links; publishing and ringing.
// See links.h. The kernel's loop.
#include "message/links.h"

#include <algorithm>

#include "base/log.h"
#include "message/kernel_set.h"

namespace cob::message {

Result<std::unique_ptr<Links>> Links::create(KernelId self, u32 own_epoch, u16 kernels,
                                             std::span<std::byte> stats) {
  if (self.value >= kernels) return Error::of(EINVAL, "kernel id beyond the number of kernels");
  if (kernels > max_kernels) return Error::of(EINVAL, "more kernels than a cob can have");
  StatsPage page = TRY(StatsPage::create(self, own_epoch, kernels, stats));
  std::unique_ptr<Links> links(new Links(self, own_epoch, std::move(page)));
  for (u16 i = 0; i < kernels; ++i) {
    links->links_.push_back(std::make_unique<Link>(links->stats_.of(KernelId(i))));
    links->links_.back()->peer = i;
  }
  links->active_.reserve(kernels);
  links->touched_.reserve(kernels);
  TRY(links->open_self());
  return links;
}

Result<void> Links::open_self() {
  own_memory_ = TRY(Mapping::anonymous(sizeof(LinkMemory) + default_bulk_bytes));
  LinkMemory* memory = initialise(own_memory_, LinkHeader{});
  Link& link = *links_[self_.value];
  link.peer_epoch = own_epoch_;
  connect(link, {.out = memory,
                 .in = memory,
                 .out_bulk_bytes = default_bulk_bytes,
                 .in_bulk_bytes = default_bulk_bytes,
                 .hold = nullptr,
                 .bulk = memory->bulk()});
  return {};
}

void Links::know_bytes(MessageType type, std::size_t bytes) {
  for (const auto& link : links_) VERIFY(link->transport == nullptr);
  links_[self_.value]->agreed.bytes[type.value] = static_cast<u16>(bytes);
}

LinkHeader Links::header_for(KernelId peer) const {
  LinkHeader header{};
  header.magic = LinkHeader::magic_value;
  header.version = LinkHeader::layout_version;
  header.from = self_.value;
  header.to = peer.value;
  header.from_epoch = own_epoch_;
  header.points = static_cast<u32>(schema_.points().size());
  std::ranges::copy(schema_.points(), header.point.begin());
  return header;
}

Result<CoherentTransport*> Links::coherent(KernelId peer) {
  Link* link = find(peer);
  if (link == nullptr || peer == self_) return Error::of(EINVAL, "no such peer kernel");
  if (link->coherent != nullptr) return link->coherent;
  if (link->transport != nullptr) return Error::of(EBUSY, "the link has another transport");
  auto transport = std::make_unique<CoherentTransport>();
  transport->start(header_for(peer));
  link->coherent = transport.get();
  link->transport = std::move(transport);
  return link->coherent;
}

Result<Fd> Links::open_link(KernelId peer, u32 peer_epoch, Doorbell doorbell, u64 bulk_bytes) {
  if (bulk_bytes > max_bulk_bytes || bulk_bytes % 4'096 != 0)
    return Error::of(EINVAL, "bulk area is not whole pages, or too large");
  CoherentTransport* transport = TRY(coherent(peer));
  if (transport->opened()) return Error::of(EEXIST, "link is already open");
  Fd memory = TRY(transport->open(peer_epoch, bulk_bytes, std::move(doorbell)));
  Link& link = *find(peer);
  link.peer_epoch = peer_epoch;
  if (const LinkEnds* ends = transport->ends()) connect(link, *ends);
  return memory;
}

Result<void> Links::peer_up(KernelId peer, u32 peer_epoch, Fd outbound) {
  CoherentTransport* transport = TRY(coherent(peer));
  if (transport->accepted()) return Error::of(EEXIST, "peer is already up");
  Link& link = *find(peer);
  if (const auto accepted = transport->accept(std::move(outbound)); accepted.is_error()) {
    refuse(link,
           accepted.error().code == EMSGSIZE ? Refusal::wrong_size : Refusal::unsealed_memory);
    return accepted;
  }
  auto examined = examine(link, transport->in().header, peer_epoch, transport->in_bulk_bytes());
  if (examined.is_error()) {
    transport->refuse();
    return examined;
  }
  if (const LinkEnds* ends = transport->ends()) connect(link, *ends);
  return {};
}

Result<void> Links::add_transport(KernelId peer, std::unique_ptr<Transport> transport) {
  Link* link = find(peer);
  if (link == nullptr || peer == self_) return Error::of(EINVAL, "no such peer kernel");
  if (link->transport != nullptr) return Error::of(EEXIST, "the link has a transport");
  if (epoll_.valid()) TRY(transport->watch(epoll_));
  transport->count_in(link->counters, links_[self_.value]->counters);
  transport->start(header_for(peer));
  link->transport = std::move(transport);
  link->publishes = true;
  driven_.push_back(link);
  return {};
}

void Links::remove_transport(Link& link) {
  std::erase(driven_, &link);
  link.transport.reset();
  link.publishes = false;
  link.session = 0;
}

Result<void> Links::examine(Link& link, const LinkHeader& shared, u32 peer_epoch, u64 bulk_bytes) {
  LinkHeader header;
  copy_once(&header, &shared, sizeof header);
  if (header.magic != LinkHeader::magic_value || header.version != LinkHeader::layout_version ||
      header.bulk_bytes != bulk_bytes) {
    const bool version =
        header.magic == LinkHeader::magic_value && header.version != LinkHeader::layout_version;
    refuse(link, version ? Refusal::wrong_version : Refusal::wrong_layout);
    return Error::of(EPROTO, "link memory of another layout");
  }
  if (header.from != link.peer || header.to != self_.value || header.to_epoch != own_epoch_ ||
      header.from_epoch == 0 || (peer_epoch != 0 && header.from_epoch != peer_epoch)) {
    refuse(link, Refusal::wrong_kernel);
    return Error::of(EPROTO, "link memory of another kernel or epoch");
  }
  if (header.points > max_schema_points) {
    refuse(link, Refusal::wrong_layout);
    return Error::of(EPROTO, "link memory with too many schemas");
  }
  auto agreed = agree(schema_, std::span(header.point).first(header.points));
  if (agreed.is_error()) {
    refuse(link, Refusal::wrong_layout);
    return agreed.error();
  }
  link.agreed = agreed.release_value();
  for (const MessageType type : link.agreed.conflicts) {
    refuse(link, Refusal::wrong_schema);
    COB_LOG(warn, "kernel {}: kernel {} has another schema of message type {}", self_.value,
            link.peer, type.value);
  }
  link.peer_epoch = header.from_epoch;
  return {};
}

void Links::connect(Link& link, const LinkEnds& ends) {
  link.ends = ends;
  link.out = ends.out;
  link.in = ends.in;
  LinkState& ours = ends.out->state;
  const LinkState& theirs = ends.in->state;
  const Stores stores = link.publishes ? Stores::words : Stores::any;
  link.normal = {
      .out = MessageWriter(ends.out->slot, &theirs.normal_consumed, ends.out_start, stores),
      .in = MessageReader(ends.in->slot, &ours.normal_consumed, ends.in_start)};
  link.urgent = {
      .out = UrgentWriter(ends.out->urgent, &theirs.urgent_consumed, ends.out_start, stores),
      .in = UrgentReader(ends.in->urgent, &ours.urgent_consumed, ends.in_start)};
  if (link.publishes) {  // frames are for kernels that share pages
    link.frames_out = FrameWriter();
    link.frames_in = FrameReader();
  } else {
    link.frames_out = FrameWriter(ends.out->entry, ends.out->pool_area, &theirs.frames_consumed);
    link.frames_in = FrameReader(ends.in->entry, ends.in->pool_area, &ours.frames_consumed);
  }
  link.lender = std::make_shared<Lender>(ends);
  link.borrower = std::make_shared<Borrower>(*this, link, ends);
  link.cancels = 0;
  link.generation = ++generations_;
  link.connected = true;
  ++link.counters.sessions_begun;
  link.counters.connected = 1;
  link.counters.epoch = link.peer_epoch;
  const auto kind = link.transport ? link.transport->kind() : TransportKind::self;
  link.counters.transport = static_cast<u64>(kind);
  store_relaxed(ours.armed, armed_ ? armed_bit : 0);
  active_.push_back(&link);
}

void Links::disconnect(Link& link, const Error& why) {
  std::erase(active_, &link);
  std::erase(touched_, &link);
  std::erase(begun_, &link);
  if (link.out != nullptr) ++link.counters.sessions_ended;
  link.counters.connected = 0;
  link.connected = link.faulted = link.starved = false;
  link.touched = 0;
  link.generation = ++generations_;
  link.in = nullptr;
  link.out = nullptr;
  link.ends = {};
  link.lender.reset();
  if (link.borrower != nullptr) link.borrower->end();
  link.borrower.reset();
  if (link.coherent != nullptr) {
    link.coherent = nullptr;
    link.transport.reset();
  } else if (link.transport != nullptr && link.transport->ends() != nullptr) {
    link.transport->end(why);
  }
}

Link* Links::drive_all(Time now) {
  for (Link* link : driven_) {
    Transport& transport = *link->transport;
    transport.poll(now);
    const LinkEnds* ends = transport.ends();
    if (link->out != nullptr && (ends == nullptr || transport.session() != link->session)) {
      link->connected = false;
      return link;
    }
    if (link->out != nullptr || ends == nullptr) continue;
    const auto examined = examine(*link, ends->in->header, 0, ends->in_bulk_bytes);
    if (examined.is_error()) {
      transport.end(examined.error());
      continue;
    }
    link->session = transport.session();
    connect(*link, *ends);
    begun_.push_back(link);
  }
  return nullptr;
}

Time Links::next_deadline() const {
  Time next = Time::never();
  for (const Link* link : driven_) next = std::min(next, link->transport->next_deadline());
  return next;
}

Result<void> Links::watch(FdRef epoll) {
  epoll_ = epoll;
  for (Link* link : driven_) TRY(link->transport->watch(epoll));
  return {};
}

void Links::refuse(Link& link, Refusal why) {
  if (link.counters.refuse(why))
    COB_LOG(warn, "kernel {}: refused kernel {}: {}", self_.value, link.peer, name_of(why));
}

void Links::remember(Link& link) { touched_.push_back(&link); }

void Links::fault(Link& link, Refusal why) {
  if (!link.connected) return;
  refuse(link, why);
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
    if (!link->connected) continue;
    link->frames_out.publish();
    link->publish();
    if (link->publishes) link->transport->publish();
  }
  full_fence();
  for (Link* link : touched_) {
    const u32 touched = std::exchange(link->touched, u8{0});
    if (!link->connected) continue;
    const u32 armed =
        link->publishes ? link->transport->peer_armed() : load_relaxed(link->in->state.armed).get();
    if (armed == 0) [[likely]]
      continue;
    if (link->transport == nullptr) continue;
    if ((touched & touched_data) == 0 && (armed & starved_bit) == 0) continue;
    ++link->counters.doorbells_rung;
    link->transport->ring();
  }
  touched_.clear();
}

void Links::set_armed(bool armed) {
  if (armed) {
    for (Link* link : active_) {  // a sleeper keeps no peer guessing
      if (link->normal.in.uncredited() + link->urgent.in.uncredited() == 0) continue;
      link->normal.in.publish_credits();
      link->urgent.in.publish_credits();
      touch(*link, touched_credits);
    }
    flush();
  }
  armed_ = armed;
  for (Link* link : active_) {
    const u32 word = armed ? armed_bit | (link->starved ? starved_bit : 0) : 0;
    store_relaxed(link->out->state.armed, word);
    if (link->publishes) link->transport->set_armed(word);
  }
  if (armed) full_fence();
}

bool Links::anything_pending() const {
  if (any_faulted_) return true;
  for (const Link* link : active_) {
    if (!link->normal.in.empty() || !link->urgent.in.empty()) return true;
    if (!link->publishes && !link->frames_in.empty()) return true;
    if (link->starved && link->room_has_come()) return true;
  }
  return std::any_of(driven_.begin(), driven_.end(),
                     [](const Link* link) { return link->transport->pending(); });
}

}  // namespace cob::message
