// Sessions over a window: cards, heartbeats, and the peer's areas made ready.
// See window.h. The kernel's loop.
#include "message/window/window.h"

#include <sys/epoll.h>
#include <sys/random.h>

#include <algorithm>
#include <new>

#include "message/message_ring.h"

namespace cob::message {
namespace {

constexpr i64 beats_a_lease = 8;
constexpr i64 reopenings_a_lease = 200;  // at most, so that a peer who keeps failing costs little

bool earlier(u32 a, u32 b) { return static_cast<i32>(a - b) < 0; }

std::size_t area_offset(u32 area, u64 bulk_bytes) {
  return sizeof(WindowControl) + area * (sizeof(WindowArea) + bulk_bytes);
}

}  // namespace

Result<std::unique_ptr<WindowTransport>> WindowTransport::create(WindowEnds window,
                                                                 Options options) {
  const auto on_pages = [](const std::byte* at) {
    return reinterpret_cast<std::uintptr_t>(at) % 4'096 == 0;
  };
  if (!on_pages(window.mine.data()) || !on_pages(window.theirs.data()))
    return Error::of(EINVAL, "a window's memory begins on a page");
  if (std::min(window.mine.size(), window.theirs.size()) < window_memory_bytes(0))
    return Error::of(EMSGSIZE, "a window's memory is too small for its areas");
  if (options.lease.ns < reopenings_a_lease) return Error::of(EINVAL, "lease of no length");
  while (options.seed == 0) {
    if (::getrandom(&options.seed, sizeof options.seed, 0) < 0)
      return Error::from_errno("getrandom");
  }
  return std::unique_ptr<WindowTransport>(new WindowTransport(std::move(window), options));
}

WindowTransport::WindowTransport(WindowEnds window, Options options)
    : window_(std::move(window)),
      options_(options),
      in_bulk_bytes_(window_bulk_bytes(window_.mine.size())),
      out_bulk_bytes_(window_bulk_bytes(window_.theirs.size())),
      next_area_(static_cast<u32>(random()) % window_areas) {
  offer_.cob = options.cob;
}

WindowTransport::~WindowTransport() {
  if (offer_.nonce == 0) return;
  offer_.nonce = 0;
  post();
}

const WindowControl& WindowTransport::mine() const {
  return *std::launder(reinterpret_cast<const WindowControl*>(window_.mine.data()));
}

WindowControl& WindowTransport::theirs() const {
  return *std::launder(reinterpret_cast<WindowControl*>(window_.theirs.data()));
}

u64 WindowTransport::random() {  // splitmix64; never 0
  while (true) {
    u64 z = options_.seed += 0x9e37'79b9'7f4a'7c15;
    z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9;
    z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11eb;
    z ^= z >> 31;
    if (z != 0) return z;
  }
}

void WindowTransport::poll(Time now) {
  now_ = now;
  if (session_ != nullptr) {
    doorbell_.poll(now);
    if (now < next_beat_ && load_relaxed(mine().card[window_card_nonce]) == peer_nonce_) [[likely]]
      return;
    look_after_session(now);
  }
  if (session_ == nullptr) negotiate(now);
  if (now >= next_beat_) beat(now);
}

Time WindowTransport::next_deadline() const {
  Time next = next_beat_;
  if (session_ == nullptr) {
    if (offer_.nonce == 0) next = std::min(next, std::max(reopen_, now_));
  } else if (armed_ && (!window_.bell.valid() || !doorbell_.may_sleep())) {
    next = std::min(next, now_ + doorbell_.nap());
  }
  return next;
}

// A card that is not whole, or of an epoch that is over, is what a late store has left: the peer
// posts its own again with each heartbeat.
void WindowTransport::look_after_session(Time now) {
  if (now - last_beat_ > options_.lease)  // then the peer has given this session up
    return drop(Error::of(EHOSTDOWN, "our lease has run out"));
  WindowCard card;
  if (read_card(mine(), card) && card.cob == options_.cob) {
    if (is_superseded(card))
      return drop(Error::of(ESTALE, "a later epoch of this kernel has taken over"));
    if (card.nonce != peer_nonce_ && !earlier(card.epoch, heard_epoch_))
      return drop(Error::of(ECONNRESET, "kernel has ended"));
  }
  if (now < next_beat_) return;
  const u64 heartbeat = load_relaxed(mine().heartbeat);
  if (heartbeat != peer_heartbeat_ && heartbeat >> 32 == static_cast<u32>(peer_nonce_)) {
    peer_heartbeat_ = heartbeat;
    last_heard_ = now;
  }
  if (now - last_heard_ > options_.lease)
    return drop(Error::of(EHOSTDOWN, "kernel's lease has run out"));
}

bool WindowTransport::is_superseded(const WindowCard& card) const {
  return card.heard_epoch != 0 && earlier(header_.from_epoch, card.heard_epoch);
}

// Each side offers; accepts the other's offer; makes the other's area ready once its own offer has
// been accepted, which proves that the other lives now; and opens when both areas are ready.
void WindowTransport::negotiate(Time now) {
  if (now < reopen_) return;
  WindowCard card;
  bool heard = read_card(mine(), card) && card.nonce != 0;
  if (heard && card.cob != options_.cob) {
    why_down_ = Error::of(EPROTO, "window of another cob");
    heard = false;
  }
  if (heard && is_superseded(card)) {
    offer_.nonce = 0;
    why_down_ = Error::of(ESTALE, "a later epoch of this kernel has taken over");
    return;
  }
  const WindowCard before = offer_;
  if (offer_.nonce == 0) make_offer();
  if (offer_.nonce == 0) return;
  if (heard) {
    if (card.nonce != offer_.accepted) {
      // What has been made ready for one session is not used for another.
      if (offer_.ready != 0) make_offer();
      if (offer_.nonce == 0) return;
      offer_.accepted = card.nonce;
    }
    if (card.accepted == offer_.nonce && offer_.ready != card.nonce) {
      prepare(card);
      offer_.ready = card.nonce;
    }
    if (card.accepted == offer_.nonce && card.ready == offer_.nonce) open(card, now);
  }
  if (offer_.nonce == before.nonce && offer_.accepted == before.accepted &&
      offer_.ready == before.ready)
    return;
  post();
}

// Waits while loans of the area's last session are held: their pages would change.
void WindowTransport::make_offer() {
  offer_.nonce = offer_.accepted = offer_.ready = 0;
  if (!last_user_[next_area_].expired()) return;
  offer_.nonce = random();
  offer_.epoch = header_.from_epoch;
  offer_.area = next_area_;
  offer_.start = static_cast<u32>(random());
  next_area_ = (next_area_ + 1) % window_areas;
}

void WindowTransport::prepare(const WindowCard& card) {
  auto& area = *std::launder(reinterpret_cast<WindowArea*>(
      window_.theirs.data() + area_offset(card.area, out_bulk_bytes_)));
  LinkHeader header = header_;
  header.to_epoch = card.epoch;
  header.bulk_bytes = out_bulk_bytes_;
  static_assert(sizeof header % sizeof(u64) == 0);
  store_words(&area.link.header, reinterpret_cast<const std::byte*>(&header), sizeof header);
  LinkState& state = area.link.state;
  store_relaxed(state.armed, 0);
  store_relaxed(state.normal_consumed, offer_.start);
  store_relaxed(state.urgent_consumed, offer_.start);
  store_relaxed(state.loans_returned, 0);
  UrgentWriter::prepare(std::span<Slot, urgent_slots>(area.link.urgent), card.start);
  MessageWriter::prepare(std::span<Slot, message_slots>(area.link.slot), card.start);
  store_relaxed(area.doorbell, WindowDoorbell::initial);
}

void WindowTransport::open(const WindowCard& card, Time now) {
  const auto& in = *std::launder(reinterpret_cast<const WindowArea*>(
      window_.mine.data() + area_offset(offer_.area, in_bulk_bytes_)));
  auto& out = *std::launder(reinterpret_cast<WindowArea*>(window_.theirs.data() +
                                                          area_offset(card.area, out_bulk_bytes_)));
  auto session = std::make_shared<Session>();
  session->memory = window_.hold;
  if (out_bulk_bytes_ > 0) {
    auto stage = Mapping::anonymous(out_bulk_bytes_);
    if (stage.is_error()) return drop(stage.error());
    session->stage = stage.release_value();
  }
  ends_ = {.out = &out.link,
           .in = &in.link,
           .out_bulk_bytes = out_bulk_bytes_,
           .in_bulk_bytes = in_bulk_bytes_,
           .out_start = card.start,
           .in_start = offer_.start,
           .hold = session,
           .bulk = session->stage.data()};
  doorbell_ = WindowDoorbell(&out.doorbell, &in.doorbell);
  last_user_[offer_.area] = session;
  session_ = std::move(session);
  ++sessions_;
  peer_nonce_ = card.nonce;
  heard_epoch_ = card.epoch;
  peer_heartbeat_ = load_relaxed(mine().heartbeat);
  last_heard_ = last_beat_ = now;
  beat(now);
}

void WindowTransport::beat(Time now) {
  next_beat_ = now + options_.lease / beats_a_lease;
  if (session_ != nullptr) {
    ++heartbeat_;
    last_beat_ = now;
    store_release(theirs().heartbeat, u64{static_cast<u32>(offer_.nonce)} << 32 | heartbeat_);
  }
  if (offer_.nonce == 0) return;
  const bool fences = session_ != nullptr || now < fenced_until_;
  offer_.heard_epoch = fences ? heard_epoch_ : 0;
  post_card(theirs(), offer_);
}

void WindowTransport::post() {
  const bool fences = session_ != nullptr || now_ < fenced_until_;
  offer_.heard_epoch = fences ? heard_epoch_ : 0;
  post_card(theirs(), offer_);
  ring();
}

void WindowTransport::drop(const Error& why) {
  why_down_ = why;
  ends_ = {};
  session_.reset();
  reopen_ = now_ + options_.lease / reopenings_a_lease;
  fenced_until_ = now_ + options_.lease;
  offer_.nonce = 0;
  if (why.code != ESTALE) post();  // the peer's word about us is another's now
}

void WindowTransport::end(const Error& why) {
  if (session_ != nullptr) drop(why);
}

void WindowTransport::lend(u64 offset, u64 bytes) {
  VERIFY(session_ != nullptr && offset <= out_bulk_bytes_ && bytes <= out_bulk_bytes_ - offset);
  const u64 begin = offset / sizeof(u64) * sizeof(u64);
  const u64 end = (offset + bytes + sizeof(u64) - 1) / sizeof(u64) * sizeof(u64);
  store_words(ends_.out->bulk() + begin, ends_.bulk + begin, end - begin);
}

void WindowTransport::ring() {
  if (window_.ring) window_.ring();
}

void WindowTransport::set_armed(u32 armed) {
  armed_ = armed != 0;
  doorbell_.set_armed(armed);
}

Result<void> WindowTransport::watch(FdRef epoll) {
  if (!window_.bell.valid()) return {};
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, window_.bell.get(), &event) != 0)
    return Error::from_errno("epoll_ctl of a window's bell");
  return {};
}

}  // namespace cob::message
