// Delivery, replies, deadlines, and what happens to them when a peer ends.
// See messenger.h. The kernel's loop.
#include "message/messenger.h"

#include <algorithm>

namespace cob::message {

namespace {
constexpr std::size_t least_share = 16;  // messages of one peer a poll, whatever the budget

// Not std::ranges::copy, which g++ 12 compiles to a loop over single bytes.
std::byte* put(std::byte* at, std::span<const std::byte> bytes) {
  if (!bytes.empty()) std::memcpy(at, bytes.data(), bytes.size());
  return at + bytes.size();
}
}  // namespace

Result<std::unique_ptr<Messenger>> Messenger::create(KernelId self, u32 own_epoch, u16 kernels,
                                                     std::span<std::byte> stats) {
  auto links = TRY(Links::create(self, own_epoch, kernels, stats));
  return std::unique_ptr<Messenger>(new Messenger(std::move(links)));
}

Messenger::~Messenger() = default;

void Messenger::add_handler(const MessageHead& head, Handler handler,
                            std::move_only_function<void(Arrival&)> run) {
  Handler& place = handlers_[head.type.value];
  VERIFY(!place.run);  // one handler a type
  place = std::move(handler);
  place.run = std::move(run);
  place.kind = head.kind;
}

Result<Fd> Messenger::open_link(KernelId peer, u32 peer_epoch, Doorbell doorbell, u64 bulk_bytes) {
  TRY(make_way(peer, peer_epoch));
  return links_->open_link(peer, peer_epoch, std::move(doorbell), bulk_bytes);
}

Result<void> Messenger::peer_up(KernelId peer, u32 peer_epoch, Fd outbound) {
  TRY(make_way(peer, peer_epoch));
  return links_->peer_up(peer, peer_epoch, std::move(outbound));
}

// Drops what a former epoch of `peer` has left; ESTALE if a later one is already here.
Result<void> Messenger::make_way(KernelId peer, u32 peer_epoch) {
  VERIFY(!polling_);
  Link* link = links_->find(peer);
  if (link == nullptr || peer == links_->self()) return Error::of(EINVAL, "no such peer kernel");
  if (link->coherent == nullptr || link->peer_epoch == peer_epoch) return {};
  if (static_cast<i32>(peer_epoch - link->peer_epoch) < 0)
    return Error::of(ESTALE, "a later epoch of this kernel is known");
  drop(*link, Error::of(ECONNRESET, "kernel has ended"));
  return {};
}

void Messenger::peer_down(KernelId peer, u32 epoch) {
  VERIFY(!polling_);
  Link* link = links_->find(peer);
  if (link == nullptr || peer == links_->self() || link->peer_epoch != epoch) return;
  if (link->transport == nullptr) return;
  drop(*link, Error::of(ECONNRESET, "kernel has ended"));
}

Result<void> Messenger::remove_transport(KernelId peer) {
  VERIFY(!polling_);
  Link* link = links_->find(peer);
  if (link == nullptr || link->transport == nullptr || link->coherent != nullptr)
    return Error::of(ENOENT, "the link has no transport of its own");
  drop(*link, Error::of(ECONNRESET, "kernel is no longer a peer"));
  links_->remove_transport(*link);
  return {};
}

bool Messenger::connected(KernelId peer) const {
  const Link* link = links_->find(peer);
  return link != nullptr && link->connected;
}

u32 Messenger::peer_epoch(KernelId peer) const {
  const Link* link = links_->find(peer);
  return link == nullptr ? 0 : link->peer_epoch;
}

void Messenger::drop(Link& link, Error why) {
  links_->disconnect(link, why);
  link.normal.reserved_reply_lines = link.urgent.reserved_reply_lines = 0;
  const Failure failure = why.code == EHOSTDOWN ? Failure::lease_ran_out
                          : why.code == EPROTO  ? Failure::peer_broke
                                                : Failure::peer_ended;
  link.counters.failed[failure] += requests_.finish_all_of(link.peer, why);
}

std::optional<KernelId> Messenger::take_faulted() {
  collect_faulted();
  if (faulted_.empty()) return std::nullopt;
  const KernelId peer = faulted_.back();
  faulted_.pop_back();
  return peer;
}

void Messenger::collect_faulted() {
  VERIFY(!polling_);
  if (!links_->any_faulted()) return;
  while (Link* link = links_->next_faulted()) {
    faulted_.emplace_back(link->peer);
    drop(*link, Error::of(EPROTO, "kernel broke the message protocol"));
  }
}

Error Messenger::unknown(const Link& link, MessageType type) {
  const auto& conflicts = link.agreed.conflicts;
  if (std::find(conflicts.begin(), conflicts.end(), type) != conflicts.end())
    return Error::of(EPROTONOSUPPORT, "peer has another schema of this message type");
  return Error::of(EOPNOTSUPP, "message type is not known on both sides");
}

Error Messenger::no_room(Link& link, Room room) {
  if (room == Room::fault) {
    links_->fault(link, Refusal::bad_credit);
    return Error::of(ENETDOWN, "kernel broke the message protocol");
  }
  link.starved = true;
  link.publish();
  ++link.counters.messages_full;
  return Error::of(EAGAIN, "message ring is full");
}

Result<Buffer> Messenger::allocate(KernelId to, u64 bytes) {
  Link* link = links_->find(to);
  if (link == nullptr || !link->connected) return Error::of(ENETDOWN, "kernel is not connected");
  if (bytes == 0 || bytes > link->lender->capacity())
    return Error::of(EMSGSIZE, "buffer is larger than the link's bulk area, or empty");
  if (!collect_loans(*link)) return Error::of(ENETDOWN, "kernel broke the message protocol");
  const u64 offset = link->lender->allocate(bytes);
  if (offset == ExtentAllocator::none) return no_room(*link, Room::no);
  return Buffer(link->lender, offset, bytes);
}

bool Messenger::collect_loans(Link& link) {
  const u32 lent = link.lender->lent();
  const bool honest = link.lender->collect();
  link.counters.loans_returned += lent - link.lender->lent();
  if (honest) return true;
  links_->fault(link, Refusal::bad_loan);
  return false;
}

Result<void> Messenger::check_loan(Link& link, const Buffer& buffer) {
  VERIFY(buffer.valid());
  if (buffer.lender_ != link.lender)
    return Error::of(EXDEV, "buffer belongs to another link, or to a former session");
  if (link.lender->can_lend()) return {};
  if (!collect_loans(link)) return Error::of(ENETDOWN, "kernel broke the message protocol");
  if (!link.lender->can_lend()) return no_room(link, Room::no);
  return {};
}

std::span<const std::byte> Messenger::assemble(Link& link, std::span<const std::byte> bytes,
                                               const With& with, u8& flags) {
  std::byte* at = put(put(assembled_, bytes), with.tail);
  if (with.lend != nullptr) {
    Buffer& buffer = *with.lend;
    const LoanReference reference = link.lender->lend(buffer.offset_, buffer.bytes_);
    if (link.publishes) link.transport->lend(buffer.offset_, buffer.bytes_);
    ++link.counters.loans_out;
    link.counters.loan_bytes_out += buffer.bytes_;
    buffer.lender_.reset();
    at = put(at, std::as_bytes(std::span(&reference, 1)));
    flags |= flag_loan;
  }
  return {assembled_, at};
}

template <Priority priority>
Result<Requests::Entry*> Messenger::begin_request(Link& link, MessageType reply,
                                                  const Beside& beside, Time deadline,
                                                  RequestId& id) {
  auto& ring = lane<priority>(link);
  const u32 lines = lines_for(link.agreed.bytes[reply.value] + beside.max_tail +
                              (beside.lends ? sizeof(LoanReference) : 0));
  if (lines > ring.half)  // an urgent one that a newer peer has made longer
    return Error::of(EMSGSIZE, "the peer's reply does not fit into what can be reserved");
  if (ring.reserved_reply_lines + ring.in.uncredited() + lines > ring.half) {
    ring.in.publish_credits();
    links_->touch(link, touched_credits);
  }
  if (requests_.full() || ring.reserved_reply_lines + lines > ring.half) {
    ++link.counters.requests_full;
    return Error::of(EAGAIN, "too many requests outstanding");
  }
  ring.reserved_reply_lines += lines;
  Requests::Entry& entry = requests_.add(deadline, id.tag);
  ++link.counters.requests_out;
  entry.asked = now_;
  entry.peer = link.peer;
  entry.reply_type = reply.value;
  entry.reply_lines = static_cast<u16>(lines);
  entry.reply_max_tail = static_cast<u16>(beside.max_tail);
  entry.reply_lends = beside.lends;
  entry.priority = priority;
  return &entry;
}
template Result<Requests::Entry*> Messenger::begin_request<Priority::normal>(Link&, MessageType,
                                                                             const Beside&, Time,
                                                                             RequestId&);
template Result<Requests::Entry*> Messenger::begin_request<Priority::urgent>(Link&, MessageType,
                                                                             const Beside&, Time,
                                                                             RequestId&);

bool Messenger::cancel(RequestId id) {
  Requests::Entry* entry = requests_.find(id.tag);
  if (entry == nullptr || entry->state != Requests::State::waiting) return false;
  Link& link = *links_->find(KernelId(entry->peer));
  const MessageHead head{.kind = MessageKind::cancel, .tag = id.tag};
  constexpr std::span<const std::byte> nothing;
  if (entry->priority == Priority::urgent) {
    if (find_room<Priority::urgent>(link, 1)) write<Priority::urgent>(link, head, nothing);
  } else {
    if (find_room<Priority::normal>(link, 1)) write<Priority::normal>(link, head, nothing);
  }
  ++link.counters.failed[Failure::cancelled];
  requests_.abandon(*entry, Error::of(ECANCELED, "request was cancelled"));
  return true;
}

// There is room: docs/messaging.md, 3. Unless the peer broke the rule, or reserved for a shorter
// tail than ours.
Result<void> Messenger::write_reply(const AnyReplyToken& token, MessageHead head,
                                    std::span<const std::byte> bytes, const With& with) {
  Link& link = *links_->find(KernelId(token.peer_));
  if (!link.connected || link.generation != token.generation_) return {};
  const u32 lines = lines_for(length_of(bytes.size(), with));
  if (lines > 1 && lines > token.reply_lines_)
    return Error::of(EMSGSIZE, "reply is longer than the requester expects");
  if (with.lend != nullptr) TRY(check_loan(link, *with.lend));
  forget_cancel(link, token.tag_);
  ++(head.kind == MessageKind::error ? link.counters.errors_out : link.counters.answers_out);
  if (token.priority_ == Priority::urgent) {
    put_reply<Priority::urgent>(link, head, token.tag_, lines, bytes, with);
  } else {
    put_reply<Priority::normal>(link, head, token.tag_, lines, bytes, with);
  }
  return {};
}

template <Priority priority>
void Messenger::put_reply(Link& link, MessageHead head, u32 tag, u32 lines,
                          std::span<const std::byte> bytes, const With& with) {
  auto& ring = lane<priority>(link);
  if (ring.out.room(lines, 2 * ring.half) != Room::yes) {
    links_->fault(link, Refusal::unreserved_room);
    return;
  }
  head.tag = tag;
  write_with<priority>(link, head, bytes, with);
}

void Messenger::note_cancel(Link& link, u32 tag) {
  link.cancelled[link.cancels % link.cancelled.size()] = tag;
  ++link.cancels;
}

bool Messenger::is_cancelled(const Link& link, u32 tag) {
  const std::size_t n = std::min<std::size_t>(link.cancels, link.cancelled.size());
  return std::find(link.cancelled.begin(), link.cancelled.begin() + static_cast<i64>(n), tag) !=
         link.cancelled.begin() + static_cast<i64>(n);
}

void Messenger::drive(Time now) {
  while (Link* ended = links_->drive(now)) [[unlikely]] {
    drop(*ended, ended->transport->why_down());
    if (session_changed_) session_changed_(KernelId(ended->peer), false);
  }
  while (const Link* begun = links_->take_begun()) [[unlikely]] {
    if (session_changed_) session_changed_(KernelId(begun->peer), true);
  }
}

std::size_t Messenger::poll(Time now, std::size_t budget) {
  VERIFY(!polling_);
  if (links_->any_driven()) drive(now);
  links_->publish();
  polling_ = true;
  turn_ = now_ == Time::never() ? Duration{} : now - now_;
  now_ = now;
  if (now >= requests_.next_deadline()) expire(now);
  const auto active = links_->active();
  const std::size_t n = active.size();
  std::size_t delivered = 0;
  for (Link* link : active) {
    if (!link->urgent.in.empty()) [[unlikely]]
      delivered += drain<Priority::urgent>(*link, least_share);
  }
  if (first_ >= n) first_ = 0;
  for (std::size_t i = 0; i < n && delivered < budget; ++i) {
    const std::size_t at = first_ + i < n ? first_ + i : first_ + i - n;
    Link& link = *active[at];
    if (link.starved && link.room_has_come()) link.starved = false;
    if (link.normal.in.empty()) continue;
    const std::size_t share = std::max(least_share, budget / n);
    delivered += drain<Priority::normal>(link, std::min(share, budget - delivered));
  }
  if (delivered > 0) {
    ++first_;
    links_->publish();
  }
  polling_ = false;
  if (links_->any_faulted()) [[unlikely]]
    collect_faulted();
  return delivered;
}

template <Priority priority>
std::size_t Messenger::drain(Link& link, std::size_t budget) {
  alignas(cache_line_bytes) Slot head;
  Arrival& arrival = arrival_;
  arrival.incoming.from = KernelId(link.peer);
  head.kind = 0;
  auto& ring = lane<priority>(link);
  std::size_t delivered = 0;
  const u32 credits = ring.in.published();
  while (delivered < budget && link.connected) {
    const Taken taken = ring.in.take(head, scratch_);
    if (taken == Taken::nothing) break;
    if (taken == Taken::fault) {
      links_->fault(link, head.length > max_payload_bytes ? Refusal::bad_length
                          : head.kind > last_message_kind ? Refusal::bad_kind
                                                          : Refusal::bad_sequence);
      break;
    }
    ++delivered;
    link.counters.bytes_in += head.length;
    const std::byte* bytes = head.length <= Slot::first_payload ? head.payload : scratch_;
    if (Handler* handler = plain<priority>(link, head)) [[likely]] {
      arrival.bytes = {bytes, head.length};
      arrival.incoming.tail = {};
      if (handler->kind == MessageKind::request) begin_answer(link, head, priority, arrival);
      handler->run(arrival);
      continue;
    }
    if (!deliver<priority>(link, head, bytes, arrival)) {
      links_->fault(link, why_broken_);
      break;
    }
  }
  link.counters.messages_in[priority] += delivered;
  if (ring.in.published() != credits) links_->touch(link, touched_credits);
  return delivered;
}

// The handler, if this is a message or request of nothing but its struct.
template <Priority priority>
Messenger::Handler* Messenger::plain(const Link& link, const Slot& head) {
  if (head.kind > static_cast<u8>(MessageKind::request) || head.flags != 0 ||
      head.type >= message_types)
    return nullptr;
  Handler& handler = handlers_[head.type];
  const std::size_t expected = link.agreed.bytes[head.type];
  return head.length == expected && expected != 0 &&
                 handler.kind == static_cast<MessageKind>(head.kind) &&
                 handler.priority == priority && handler.run
             ? &handler
             : nullptr;
}

// False: the message breaks the protocol. `arrival` is blank before and after.
template <Priority priority>
bool Messenger::deliver(Link& link, const Slot& head, const std::byte* bytes, Arrival& arrival) {
  const auto kind = static_cast<MessageKind>(head.kind);
  if (kind == MessageKind::reply || kind == MessageKind::error)
    return deliver_reply<priority>(link, head, bytes, arrival);
  if (kind == MessageKind::cancel) {
    note_cancel(link, head.tag);
    return head.length == 0 || broken(Refusal::bad_length);
  }
  if (head.type >= message_types || link.agreed.bytes[head.type] == 0)
    return broken(Refusal::unknown_type);
  Handler& handler = handlers_[head.type];
  const bool handled = handler.kind == kind && handler.run;
  if (handled && handler.priority != priority) return broken(Refusal::bad_form);
  const Parts parts = take_apart(link, head, bytes, handled ? handler.beside : any_beside, arrival);
  if (parts == Parts::broken) return false;
  if (kind == MessageKind::request) begin_answer(link, head, priority, arrival);
  if (handled && parts == Parts::whole) [[likely]] {
    handler.run(arrival);
  } else {
    ++link.counters.messages_unhandled;
    if (arrival.token.valid()) arrival.token.fail(handled ? EMSGSIZE : ENOSYS);
  }
  if (arrival.incoming.loan.valid()) [[unlikely]]
    arrival.incoming.loan.reset();
  return true;
}

// What is in `bytes`, into `arrival`.
Messenger::Parts Messenger::take_apart(Link& link, const Slot& head, const std::byte* bytes,
                                       const Beside& beside, Arrival& arrival) {
  const std::size_t fixed = link.agreed.bytes[head.type];
  std::size_t length = head.length;
  if (head.flags != 0) [[unlikely]] {
    LoanReference reference;
    if (head.flags != flag_loan || !beside.lends || length < sizeof reference) {
      why_broken_ = Refusal::bad_form;
      return Parts::broken;
    }
    length -= sizeof reference;
    std::memcpy(&reference, bytes + length, sizeof reference);
    if (!link.borrower->acceptable(reference)) {
      why_broken_ = Refusal::bad_loan;
      return Parts::broken;
    }
    ++link.counters.loans_in;
    link.counters.loan_bytes_in += reference.bytes;
    arrival.incoming.loan = Loan(link.borrower, reference.id, link.borrower->borrow(reference));
  }
  if (length < fixed || (length > fixed && beside.max_tail == 0)) {
    why_broken_ = Refusal::bad_length;
    return Parts::broken;
  }
  arrival.bytes = {bytes, fixed};
  arrival.incoming.tail = {bytes + fixed, length - fixed};
  return length - fixed > beside.max_tail ? Parts::tail_too_long : Parts::whole;
}

template <Priority priority>
bool Messenger::deliver_reply(Link& link, const Slot& head, const std::byte* bytes,
                              Arrival& arrival) {
  Requests::Entry* entry = requests_.find(head.tag);
  if (entry == nullptr || entry->peer != link.peer || entry->priority != priority)
    return broken(Refusal::unasked_reply);
  if (head.kind == static_cast<u8>(MessageKind::error)) {
    if (head.detail == 0 || head.length != 0 || head.flags != 0)
      return broken(Refusal::unasked_reply);
    count_answer(link, *entry, head.detail);
    lane<priority>(link).reserved_reply_lines -= entry->reply_lines;
    const Error why = Error::of(head.detail, "answered with an error");
    requests_.finish(*entry, nullptr, &why);
    return true;
  }
  if (head.type != entry->reply_type) return broken(Refusal::unasked_reply);
  const Beside beside{.max_tail = entry->reply_max_tail, .lends = entry->reply_lends};
  if (take_apart(link, head, bytes, beside, arrival) != Parts::whole)
    return broken(Refusal::unasked_reply);
  count_answer(link, *entry, 0);
  lane<priority>(link).reserved_reply_lines -= entry->reply_lines;
  requests_.finish(*entry, &arrival, nullptr);
  if (arrival.incoming.loan.valid()) [[unlikely]]
    arrival.incoming.loan.reset();
  return true;
}

void Messenger::count_answer(Link& link, const Requests::Entry& entry, int error) {
  PeerStats& counters = link.counters;
  if (entry.state != Requests::State::waiting) {
    ++counters.answers_late;
    return;
  }
  if (error == 0) [[likely]] {
    ++counters.answered;
  } else {
    ++counters.failed[error == ENOSYS      ? Failure::no_handler
                      : error == ECANCELED ? Failure::unanswered
                                           : Failure::handler];
  }
  if (entry.asked != Time::never()) [[likely]]
    counters.round_trips.record(now_ - entry.asked, turn_);
}

void Messenger::expire(Time now) {
  // Bounded: a continuation may request anew with a deadline already past.
  for (u32 n = requests_.waiting(); n > 0 && now >= requests_.next_deadline(); --n) {
    Requests::Entry& late = requests_.earliest();
    ++links_->find(KernelId(late.peer))->counters.failed[Failure::deadline];
    requests_.abandon(late, Error::of(ETIMEDOUT, "no reply in time"));
  }
}

}  // namespace cob::message
