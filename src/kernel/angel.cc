// Angel in a kernel: looking, showing, placing, taking; see angel.h and docs/angel.md. Kernel's
// loop only.
#include "kernel/angel.h"

#include <algorithm>

#include "kernel/angel_messages.h"

namespace cob::kernel {

using net::angel::Cause;
using net::angel::KernelLoad;

namespace {

net::angel::Settings settings_of(u32 policies) {
  net::angel::Settings settings;
  // Who waits sleeps, mostly: its wake-up takes 15 to 60 us here, and is not worth a move.
  settings.redirect_mark = Duration::microseconds(100);
  settings.take_age = Duration::microseconds(500);
  settings.keep_order = false;  // what is taken here goes to the queue's end
  settings.redirect = (policies & message::angel_redirect) != 0;
  settings.take = (policies & message::angel_take) != 0;
  settings.move_groups = (policies & message::angel_moves) != 0;
  settings.judge = (policies & message::angel_hung) != 0;
  return settings;
}

u16 saturated(u32 value) { return static_cast<u16>(std::min(value, u32{UINT16_MAX})); }

// But for when it was written.
bool same(const KernelLoad& a, const KernelLoad& b) {
  return a.input_since_ns == b.input_since_ns && a.oldest_accept_ns == b.oldest_accept_ns &&
         a.input_waiting == b.input_waiting && a.runnable == b.runnable &&
         a.accept_queue == b.accept_queue && a.connections == b.connections &&
         a.demand == b.demand && a.epoch == b.epoch && a.asleep == b.asleep &&
         a.draining == b.draining;
}

u64 bit(KernelId kernel) { return u64{1} << kernel.value; }

}  // namespace

Angel::Angel(const message::Config& config, Sockets& sockets, Directory& directory, Flows& flows,
             Taking& taking, Board& board, GroupMoves::Tell tell)
    : self_(config.kernel),
      kernels_(config.kernels),
      sockets_(sockets),
      directory_(directory),
      taking_(taking),
      board_(board),
      policy_(KernelId(config.kernel), config.kernels, settings_of(0),
              config.secret[0] ^ config.kernel),
      groups_(KernelId(config.kernel), flows, policy_, std::move(tell)),
      peers_(config.kernels) {
  load_.kernel = config.kernel;
  load_.epoch = config.epoch;
  set(0, 0);
}

void Angel::attach(message::Messenger& messenger, net::Stack& stack) {
  messenger_ = &messenger;
  stack_ = &stack;
  messenger.on<NudgeMessage>([this](KernelId, const NudgeMessage& m) { on_nudge(m.listener); });
}

void Angel::set(u32 policies, u64 draining) {
  policies_ = policies;
  draining_ = draining;
  policy_.set(settings_of(policies));
  taking_.set_giving((policies & message::angel_take) != 0);
  load_.draining = (draining & bit(self_)) != 0 ? 1 : 0;
  message::KernelSet shunned;
  for (u16 k = 0; k < kernels_; ++k)
    if (shuns(KernelId(k))) shunned.add(KernelId(k));
  directory_.set_shunned(shunned);
  active_ = kernels_ > 1;
  next_look_ = {};
}

void Angel::add_peer(KernelId peer, Mapping board) {
  if (peer.value >= kernels_ || peer == self_) return;
  peers_[peer.value] = {};
  peers_[peer.value].board = std::move(board);
}

void Angel::peer_down(KernelId peer) {
  if (peer.value >= kernels_) return;
  peers_[peer.value] = {};
  suspected_ &= ~bit(peer);
  policy_.forget(peer);
}

const Board* Angel::board_of(u16 kernel) const {
  const Mapping& mapping = peers_[kernel].board;
  return mapping.valid() ? reinterpret_cast<const Board*>(mapping.data()) : nullptr;
}

bool Angel::shuns(KernelId kernel) const { return ((draining_ | suspected_) & bit(kernel)) != 0; }

// ---- the own load

void Angel::look(const Work& work) {
  ++looks_;
  if (now_ >= next_links_) look_at_links();
  look_at_listeners(true);
  if (groups_.due(now_)) [[unlikely]]
    balance_groups();
  show_load(work);
  next_look_ = now_ + pace_;
}

Angel::Own& Angel::note(u64 key, const AcceptLoad& load) {
  Own& own = own_[key];
  own.local = load.local;
  own.seen = looks_;
  const u64 accepted = load.accepted - std::min(own.accepted, load.accepted);
  // What was accepted since the last look was so evenly over the time.
  if (own.looked.ns != 0) {
    const Duration between = now_ - own.looked;
    const u64 counted = std::min<u64>(accepted, 16);
    for (u64 i = 1; i <= counted; ++i)
      own.state.pace.accepted(
          i == counted ? load.waiting : 0,
          own.looked + Duration{between.ns * static_cast<i64>(i) / static_cast<i64>(counted)});
  }
  if (load.waiting > load.unaccepted) own.state.pace.waits(now_);
  own.accepted = load.accepted;
  own.looked = now_;
  const u64 now_us = static_cast<u64>(now_.ns / 1'000);
  own.load = {.oldest_ns = load.unaccepted == 0
                               ? 0
                               : (now_us - std::min(u64{load.oldest_us}, now_us - 1)) * 1'000,
              .connections = 0,
              .waiting = saturated(load.waiting),
              .queued = saturated(load.unaccepted)};
  return own;
}

// A program that has served a connection waits for the next one a moment later, and tells nobody:
// it is looked for, less and less often, for some 10 ms after the last work.
void Angel::look_at_listeners(bool act) {
  sockets_.accept_loads(board_shared_listeners, accept_loads_);
  load_.accept_queue = sockets_.unaccepted();
  load_.oldest_accept_ns = 0;
  bool queued = false, unsettled = false;
  for (std::size_t i = 0; i < accept_loads_.size(); ++i) {
    const u64 key = key_of(&stack_->names(), accept_loads_[i].local);
    Own& own = note(key, accept_loads_[i]);
    rows_[i] = key;
    if (own.load.oldest_ns != 0 &&
        (load_.oldest_accept_ns == 0 || own.load.oldest_ns < load_.oldest_accept_ns))
      load_.oldest_accept_ns = own.load.oldest_ns;
    queued |= own.load.queued > 0;
    unsettled |= own.load.queued == 0 && own.load.waiting == 0;
    if (!act) continue;
    if (own.load.queued > 0) {
      nudge(key, own);
    } else if (own.load.waiting > 0) {
      take_if_free(key, own);
    }
  }
  for (std::size_t i = accept_loads_.size(); i < rows_.size(); ++i) rows_[i] = 0;
  last_own_ = nullptr;
  if (own_.size() > accept_loads_.size())
    std::erase_if(own_, [this](const auto& e) { return e.second.seen != looks_; });
  if (!act) return;
  const u64 sent = stack_->counters().segments_out;
  const bool worked = std::exchange(worked_, sent) != sent;
  pace_ =
      worked || !(queued || unsettled) ? look_interval : std::min(pace_ + pace_ / 4, longest_look);
  waiting_ = queued || (unsettled && pace_ < longest_look);
}

// What changes; when it was written alone is no news.
void Angel::show_load(const Work& work) {
  load_.input_since_ns = static_cast<u64>(work.input_since.ns);
  load_.input_waiting = work.input_waiting;
  load_.runnable = work.runnable;
  load_.connections = static_cast<u32>(stack_->counters().connections);
  load_.asleep = asleep_ ? 1 : 0;
  bool changed = false;
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    LoadRow& row = board_.load.listener[i];
    const LoadRow before = row;
    LoadRow now{.key = rows_[i], .load = {}};
    if (rows_[i] != 0) now.load = own_[rows_[i]].load;
    if (rows_[i] == 0 && before.key == 0) break;
    if (std::memcmp(&before, &now, sizeof now) == 0) continue;
    store_load(row, now);
    changed = true;
  }
  if (!changed && same(board_.load.kernel, load_)) return;
  load_.published_ns = static_cast<u64>(now_.ns);
  store_load(board_.load.kernel, load_);
  ++counters_.shown;
}

void Angel::asleep(bool on, const Work& work) {
  asleep_ = on;
  if (!active_ || !on) return;  // that it is awake is shown with its next look
  look_at_listeners(false);
  show_load(work);
}

// Unread messages and frames say that it is hung only while it does not turn: who is busy says late
// what it has taken.
void Angel::look_at_links() {
  next_links_ = now_ + links_interval;
  u64 suspected = 0;
  for (u16 k = 0; k < kernels_; ++k) {
    Peer& peer = peers_[k];
    const Board* board = board_of(k);
    const message::Link* link = messenger_->links().find(KernelId(k));
    if (board == nullptr || link == nullptr || !link->connected) continue;
    const u64 heartbeat = __atomic_load_n(&board->heartbeat_ns, __ATOMIC_RELAXED);
    const bool unread = link->normal.out.unread() != 0 || link->frames_out.unread() != 0;
    if (!unread || heartbeat != peer.heartbeat) {
      peer.unread_since = unread ? now_ : Time{};
    } else if (peer.unread_since.ns == 0) {
      peer.unread_since = now_;
    }
    if (heartbeat != peer.heartbeat) peer.beat = now_;
    peer.heartbeat = heartbeat;
    if ((policies_ & message::angel_hung) != 0 && !own_.empty() && !unread) {
      const bool asleep = __atomic_load_n(&board->asleep, __ATOMIC_RELAXED) != 0;
      if (now_ - peer.beat > (asleep ? probe_asleep : probe_awake)) {
        peer.beat = now_;
        (void)messenger_->send(KernelId(k), NudgeMessage{.listener = 0});
      }
    }
    const bool was = std::exchange(
        peer.suspected,
        policy_.suspected({.kernel = KernelId(k),
                           .listens = true,
                           .load = {},
                           .listener = {},
                           .unconsumed_since_ns = static_cast<u64>(peer.unread_since.ns)},
                          now_));
    if (peer.suspected && !was) {
      ++counters_.suspicions;
      if (suspects_) suspects_(KernelId(k));
    }
    if (peer.suspected) suspected |= bit(KernelId(k));
  }
  if (suspected == suspected_) return;
  suspected_ = suspected;
  set(policies_, draining_);
}

// ---- decisions

std::span<const net::angel::Peer> Angel::peers_at(u64 key, net::Endpoint local) {
  snapshot_.clear();
  for (u16 k = 0; k < kernels_; ++k) {
    const Board* board = board_of(k);
    if (board == nullptr || !messenger_->connected(KernelId(k)) ||
        !directory_.listens(KernelId(k), local))
      continue;
    net::angel::Peer& peer = snapshot_.emplace_back();
    peer.kernel = KernelId(k);
    peer.listens = true;
    peer.load = read_load(board->load.kernel);
    if ((draining_ & bit(KernelId(k))) != 0) peer.load.draining = 1;
    for (const LoadRow& row : board->load.listener) {
      const u64 at = __atomic_load_n(&row.key, __ATOMIC_RELAXED);
      if (at == 0) break;
      if (at != key) continue;
      peer.listener = read_load(row.load);
      break;
    }
    peer.unconsumed_since_ns = static_cast<u64>(peers_[k].unread_since.ns);
  }
  return snapshot_;
}

// The port's period ends; while it is over the mean, groups of it go.
void Angel::balance_groups() {
  load_.demand = groups_.counted();
  const Port port = groups_.busiest();
  const auto own =
      std::ranges::find_if(own_, [port](const auto& e) { return e.second.local.port == port; });
  if (own != own_.end() && port.value != 0)
    groups_.period(load_, peers_at(own->first, own->second.local), now_);
  groups_.end_period(now_);
}

std::optional<KernelId> Angel::place(net::Endpoint to, std::optional<u16> group) {
  if ((policies_ & (message::angel_redirect | message::angel_moves)) == 0 && load_.draining == 0)
    return std::nullopt;
  Own* const own = own_at(to);
  if (own == nullptr) return std::nullopt;
  if (group && (policies_ & message::angel_moves) != 0) groups_.arrived(to.port, *group);
  const net::angel::Own side{.load = load_, .listener = own->load, .state = own->state};
  if (!policy_.would_place(side, now_)) return policy_.place(side, {}, now_).redirect;
  return policy_.place(side, peers_at(last_key_, own->local), now_).redirect;
}

// Null: nobody else listens there.
Angel::Own* Angel::own_at(net::Endpoint to) {
  if (last_own_ != nullptr && last_to_ == to && last_own_->looked == now_) return last_own_;
  if (!directory_.listened_elsewhere(to)) return nullptr;
  const auto load = sockets_.accept_load(to);
  if (!load) return nullptr;
  last_key_ = key_of(&stack_->names(), load->local);
  last_own_ = &note(last_key_, *load);
  last_to_ = to;
  return last_own_;
}

void Angel::settled(KernelId by, bool served) {
  ++(served ? counters_.served : counters_.failed);
  policy_.settled(by, served ? net::angel::Outcome::served : net::angel::Outcome::failed, now_);
}

// Who waits may sleep: it is told that there is something to take.
void Angel::nudge(u64 key, const Own& own) {
  if ((policies_ & message::angel_take) == 0) return;
  const Duration age = now_ - Time{static_cast<i64>(own.load.oldest_ns)};
  if (own.load.waiting > 0 && age < policy_.settings().take_age) return;
  for (const net::angel::Peer& peer : peers_at(key, own.local)) {
    Peer& known = peers_[peer.kernel.value];
    if (peer.listener.waiting <= peer.listener.queued || peer.load.draining != 0 ||
        shuns(peer.kernel) || now_ - known.nudged < nudge_interval)
      continue;
    known.nudged = now_;
    if (!messenger_->send(peer.kernel, NudgeMessage{.listener = key}).is_error())
      ++counters_.nudges_out;
  }
}

void Angel::on_nudge(u64 key) {
  ++counters_.nudges_in;
  const auto found = own_.find(key);
  if (found == own_.end()) return;
  const auto load = sockets_.accept_load(found->second.local);
  if (!load) return;
  Own& own = note(key, *load);
  if (own.load.queued == 0 && own.load.waiting > 0) take_if_free(key, own);
}

void Angel::take_if_free(u64 key, Own& own) {
  if ((policies_ & message::angel_take) == 0 || taking_.coming()) return;
  const net::angel::Own side{.load = load_, .listener = own.load, .state = own.state};
  const auto take = policy_.take(side, peers_at(key, own.local), now_);
  if (!take) return;
  const KernelId from = take->from;
  const bool asked = !take->by_record &&
                     taking_.ask(from, own.local, take->connections,
                                 [this, from](u32 given) { policy_.answered(from, given, now_); });
  if (!asked) policy_.answered(from, 0, now_);
}

void Angel::show(BoardAngel& shown) const {
  const Taking::Counters& t = taking_.counters();
  shown = {.policies = policies_,
           .draining = load_.draining,
           .suspected = suspected_,
           .shown = counters_.shown,
           .nudges_out = counters_.nudges_out,
           .nudges_in = counters_.nudges_in,
           .served = counters_.served,
           .failed = counters_.failed,
           .suspicions = counters_.suspicions,
           .asked = t.asked,
           .taken = t.taken,
           .given = t.given,
           .asked_in_vain = t.asked_in_vain,
           .given_back = t.given_back,
           .refused = t.refused,
           .lost = t.lost,
           .groups_asked = groups_.asked(),
           .groups_moved = groups_.moved()};
  for (std::size_t i = 0; i < board_angel_causes; ++i)
    shown.cause[i] =
        i < static_cast<std::size_t>(Cause::causes) ? policy_.count(static_cast<Cause>(i)) : 0;
}

}  // namespace cob::kernel
