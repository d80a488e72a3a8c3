// Delivery, replies, deadlines, and what happens to them when a peer ends.
// See messenger.h. The kernel's loop.
#include "message/messenger.h"

#include <algorithm>

namespace cob::message {

namespace {
constexpr std::size_t least_share = 16;  // messages of one peer a poll, whatever the budget
}  // namespace

AnyReplyToken::AnyReplyToken(AnyReplyToken&& other) noexcept
    : messenger_(std::exchange(other.messenger_, nullptr)),
      generation_(other.generation_),
      tag_(other.tag_),
      peer_(other.peer_),
      reply_lines_(other.reply_lines_),
      priority_(other.priority_) {}

AnyReplyToken& AnyReplyToken::operator=(AnyReplyToken&& other) noexcept {
  if (this != &other) {
    if (valid()) fail(ECANCELED);
    messenger_ = std::exchange(other.messenger_, nullptr);
    generation_ = other.generation_;
    tag_ = other.tag_;
    peer_ = other.peer_;
    reply_lines_ = other.reply_lines_;
    priority_ = other.priority_;
  }
  return *this;
}

AnyReplyToken::~AnyReplyToken() {
  if (valid()) fail(ECANCELED);
}

void AnyReplyToken::fail(int code) {
  VERIFY(valid() && code > 0);
  messenger_->write_reply(*this, {.kind = MessageKind::error, .detail = static_cast<u16>(code)},
                          {});
  messenger_ = nullptr;
}

void AnyReplyToken::answer_bytes(MessageType type, std::span<const std::byte> bytes) {
  VERIFY(valid());
  messenger_->write_reply(*this, {.kind = MessageKind::reply, .type = type}, bytes);
  messenger_ = nullptr;
}

Result<std::unique_ptr<Messenger>> Messenger::create(KernelId self, u32 own_epoch, u16 kernels,
                                                     std::span<std::byte> stats) {
  auto links = TRY(Links::create(self, own_epoch, kernels, stats));
  return std::unique_ptr<Messenger>(new Messenger(std::move(links)));
}

Messenger::~Messenger() = default;

void Messenger::add_handler(MessageType type, MessageKind kind, Priority priority,
                            std::size_t bytes, std::move_only_function<void(Received&)> run) {
  Handler& handler = handlers_[type.value];
  VERIFY(!handler.run);  // one handler a type
  handler.run = std::move(run);
  handler.bytes = static_cast<u16>(bytes);
  handler.kind = kind;
  handler.priority = priority;
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

Error Messenger::no_room(Link& link, Room room) {
  if (room == Room::fault) {
    links_->fault(link, Refusal::bad_credit);
    return Error::of(ENETDOWN, "kernel broke the message protocol");
  }
  link.starved = true;
  ++link.counters.messages_full;
  return Error::of(EAGAIN, "message ring is full");
}

template <Priority priority>
Result<Requests::Entry*> Messenger::begin_request(KernelId to, MessageType request,
                                                  MessageType reply, std::size_t request_bytes,
                                                  std::size_t reply_bytes, Time deadline,
                                                  u32& tag) {
  Link* link = links_->find(to);
  TRY(check_send(link, request));
  TRY(check_send(link, reply));
  TRY(find_room<priority>(*link, lines_for(request_bytes)));
  auto& ring = lane<priority>(*link);
  const u32 lines = lines_for(reply_bytes);
  if (ring.reserved_reply_lines + ring.in.uncredited() + lines > ring.half) {
    ring.in.publish_credits();
    links_->touch(*link, touched_credits);
  }
  if (requests_.full() || ring.reserved_reply_lines + lines > ring.half) {
    ++link->counters.requests_full;
    return Error::of(EAGAIN, "too many requests outstanding");
  }
  ring.reserved_reply_lines += lines;
  Requests::Entry& entry = requests_.add(deadline, tag);
  ++link->counters.requests_out;
  entry.asked = now_;
  entry.peer = link->peer;
  entry.reply_type = reply.value;
  entry.reply_bytes = static_cast<u16>(reply_bytes);
  entry.reply_lines = static_cast<u16>(lines);
  entry.priority = priority;
  return &entry;
}
template Result<Requests::Entry*> Messenger::begin_request<Priority::normal>(
    KernelId, MessageType, MessageType, std::size_t, std::size_t, Time, u32&);
template Result<Requests::Entry*> Messenger::begin_request<Priority::urgent>(
    KernelId, MessageType, MessageType, std::size_t, std::size_t, Time, u32&);

// There is room: docs/messaging.md, 3. Unless the peer broke the rule, or the handler answers with
// more than was reserved.
void Messenger::write_reply(const AnyReplyToken& token, const MessageHead& head,
                            std::span<const std::byte> bytes) {
  Link& link = *links_->find(KernelId(token.peer_));
  if (!link.connected || link.generation != token.generation_) return;
  MessageHead said = head;
  said.tag = token.tag_;
  const u32 lines = lines_for(bytes.size());
  VERIFY(lines == 1 || lines <= token.reply_lines_);
  ++(head.kind == MessageKind::error ? link.counters.errors_out : link.counters.answers_out);
  const auto put = [&]<Priority priority>() {
    if (lane<priority>(link).out.room(lines, 2 * lane<priority>(link).half) == Room::yes) {
      write<priority>(link, said, bytes);
    } else {
      links_->fault(link, Refusal::unreserved_room);
    }
  };
  if (token.priority_ == Priority::urgent) {
    put.operator()<Priority::urgent>();
  } else {
    put.operator()<Priority::normal>();
  }
}

std::size_t Messenger::poll(Time now, std::size_t budget) {
  VERIFY(!polling_);
  while (Link* ended = links_->drive(now)) [[unlikely]]
    drop(*ended, ended->transport->why_down());
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
    if (link.starved && credits_changed(link)) link.starved = false;
    if (link.normal.in.empty()) continue;
    const std::size_t share = std::max(least_share, budget / n);
    delivered += drain<Priority::normal>(link, std::min(share, budget - delivered));
  }
  if (delivered > 0) ++first_;
  polling_ = false;
  if (links_->any_faulted()) [[unlikely]]
    collect_faulted();
  return delivered;
}

template <Priority priority>
std::size_t Messenger::drain(Link& link, std::size_t budget) {
  alignas(cache_line_bytes) Slot head;
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
    if (!deliver<priority>(link, head, bytes)) {
      links_->fault(link, why_broken_);
      break;
    }
  }
  link.counters.messages_in[priority] += delivered;
  if (ring.in.published() != credits) links_->touch(link, touched_credits);
  return delivered;
}

// False: the message breaks the protocol.
template <Priority priority>
bool Messenger::deliver(Link& link, const Slot& head, const std::byte* bytes) {
  const auto kind = static_cast<MessageKind>(head.kind);
  if (kind == MessageKind::reply || kind == MessageKind::error)
    return deliver_reply<priority>(link, head, bytes);
  const MessageType type(head.type);
  if (head.type >= message_types || !link.knows(type)) return broken(Refusal::unknown_type);
  if (head.flags != 0) return broken(Refusal::bad_form);
  if (kind == MessageKind::request) ++link.counters.requests_in;
  Handler& handler = handlers_[head.type];
  if (handler.kind != kind || !handler.run) [[unlikely]] {
    ++link.counters.messages_unhandled;
    if (kind == MessageKind::request) AnyReplyToken(*this, link, head, priority).fail(ENOSYS);
    return true;
  }
  if (head.length != handler.bytes) return broken(Refusal::bad_length);
  if (handler.priority != priority) return broken(Refusal::bad_form);
  Received received{KernelId(link.peer), bytes, {}};
  if (kind == MessageKind::request) received.token = AnyReplyToken(*this, link, head, priority);
  handler.run(received);
  return true;
}

template <Priority priority>
bool Messenger::deliver_reply(Link& link, const Slot& head, const std::byte* bytes) {
  Requests::Entry* entry = requests_.find(head.tag);
  if (entry == nullptr || entry->peer != link.peer || entry->priority != priority)
    return broken(Refusal::unasked_reply);
  const bool is_error = head.kind == static_cast<u8>(MessageKind::error);
  if (is_error ? head.detail == 0 || head.length != 0
               : head.type != entry->reply_type || head.length != entry->reply_bytes)
    return broken(Refusal::unasked_reply);
  count_answer(link, *entry, is_error ? head.detail.get() : 0);
  lane<priority>(link).reserved_reply_lines -= entry->reply_lines;
  if (is_error) {
    requests_.finish(*entry, Error::of(head.detail, "answered with an error"));
  } else {
    requests_.finish(*entry, bytes);
  }
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
