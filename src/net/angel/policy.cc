// Policy: placing SYNs and taking connections; policy.h.
#include "net/angel/policy.h"

#include <algorithm>
#include <tuple>

namespace cob::net::angel {
namespace {

constexpr std::size_t most_candidates = 1'024;

// Who waits, has the most of it, is awake and has the fewest connections comes first.
auto rank(const Peer& peer, i32 free_threads) {
  return std::tuple(free_threads, peer.load.asleep == 0, -i64{peer.listener.connections});
}

}  // namespace

const char* name(Cause cause) {
  switch (cause) {
    case Cause::kept_free:
      return "kept_free";
    case Cause::kept_below_mark:
      return "kept_below_mark";
    case Cause::kept_switched_off:
      return "kept_switched_off";
    case Cause::kept_no_candidate:
      return "kept_no_candidate";
    case Cause::kept_no_token:
      return "kept_no_token";
    case Cause::redirected_to_waiting:
      return "redirected_to_waiting";
    case Cause::redirected_to_smaller_backlog:
      return "redirected_to_smaller_backlog";
    case Cause::redirected_away:
      return "redirected_away";
    case Cause::took:
      return "took";
    case Cause::took_for_order:
      return "took_for_order";
    case Cause::took_from_hung:
      return "took_from_hung";
    case Cause::left_busy:
      return "left_busy";
    case Cause::left_none:
      return "left_none";
    case Cause::left_pausing:
      return "left_pausing";
    case Cause::left_switched_off:
      return "left_switched_off";
    case Cause::causes:
      break;
  }
  return "?";
}

Policy::Policy(KernelId self, u16 kernels, const Settings& settings, u64 seed)
    : settings_(settings),
      peers_(self, kernels, settings_),
      groups_(self, kernels, settings_),
      random_(seed) {}

Placement Policy::placed(Cause cause, std::optional<KernelId> to) {
  ++counts_[static_cast<std::size_t>(cause)];
  return {to, cause};
}

std::nullopt_t Policy::left(Cause cause) {
  ++counts_[static_cast<std::size_t>(cause)];
  return std::nullopt;
}

// Who waits and lets a connection lie is not free: stopped, or without the core.
bool Policy::stuck(const ListenerLoad& listener, Time now) const {
  const Time established{static_cast<i64>(listener.oldest_ns)};
  return established.ns != 0 && established < now && now - established > settings_.redirect_mark;
}

bool Policy::over_mark(const Own& own, i64 turns, Time now) const {
  const Duration mark = own.state.over ? settings_.redirect_mark / 2 : settings_.redirect_mark;
  const auto established = static_cast<i64>(own.listener.oldest_ns);
  const Duration age = established == 0 ? Duration{} : now - Time{established};
  const Duration turn = own.state.pace.interval(now);
  // Before any accept was seen nothing is known of a turn: what is queued already decides.
  const Duration wait = turn.ns == 0 ? settings_.redirect_mark * (turns - 1) : turn * turns;
  return std::max(wait, age) > mark;
}

bool Policy::would_place(const Own& own, Time now) const {
  if (!own.listens || own.load.draining != 0) return true;
  if (free_threads(own.listener) > 0 && !stuck(own.listener, now)) return false;
  return settings_.redirect && over_mark(own, std::max(1, 1 - free_threads(own.listener)), now);
}

Placement Policy::place(const Own& own, std::span<const Peer> peers, Time now) {
  const bool away = !own.listens || own.load.draining != 0;
  if (!away) {
    if (!settings_.redirect) return placed(Cause::kept_switched_off);
    if (!would_place(own, now)) {
      own.state.over = false;
      return placed(free_threads(own.listener) > 0 ? Cause::kept_free : Cause::kept_below_mark);
    }
    own.state.over = true;
  }
  const auto listening = static_cast<u32>(std::ranges::count(peers, true, &Peer::listens));
  Cause cause = away ? Cause::redirected_away : Cause::redirected_to_waiting;
  const Peer* to = waiting_candidate(peers, now);
  if (to == nullptr) {
    const u32 backlog =
        own.listener.queued + own.listener.coming + std::min(own.load.runnable, u32{65'535});
    if (!away) cause = Cause::redirected_to_smaller_backlog;
    const u32 below = backlog > settings_.backlog_gap
                          ? std::min(backlog / 2, backlog - settings_.backlog_gap)
                          : 0;
    to = smaller_backlog(peers, away ? UINT32_MAX : below, now);
  }
  if (to == nullptr) return placed(Cause::kept_no_candidate);
  if (!token(now)) return placed(Cause::kept_no_token);
  peers_.sent(to->kernel, listening, now);
  return placed(cause, to->kernel);
}

// The best of a few drawn at random from the set of those who wait.
const Peer* Policy::waiting_candidate(std::span<const Peer> peers, Time now) {
  std::array<u16, most_candidates> set;
  std::size_t size = 0;
  for (std::size_t i = 0; i < peers.size() && i < most_candidates; ++i) {
    const Peer& peer = peers[i];
    if (peer.listener.waiting == 0 || stuck(peer.listener, now)) continue;
    if (peers_.free_threads(peer, now) > 0 && peers_.eligible(peer, now))
      set[size++] = static_cast<u16>(i);
  }
  const Peer* best = nullptr;
  for (u32 drawn = 0; drawn < settings_.choices && size > 0; ++drawn) {
    const std::size_t i = random_.below(size);
    const Peer* peer = &peers[set[i]];
    set[i] = set[--size];
    const auto rank_of = [&](const Peer& p) { return rank(p, peers_.free_threads(p, now)); };
    if (best == nullptr || rank_of(*peer) > rank_of(*best)) best = peer;
  }
  return best;
}

const Peer* Policy::smaller_backlog(std::span<const Peer> peers, u32 below, Time now) {
  if (peers.empty() || below == 0) return nullptr;
  const Peer* best = nullptr;
  for (u32 drawn = 0; drawn < settings_.choices; ++drawn) {
    const Peer& peer = peers[random_.below(peers.size())];
    const u32 backlog = peers_.backlog(peer, now);
    if (backlog >= below || !peers_.eligible(peer, now)) continue;
    if (best == nullptr || backlog < peers_.backlog(*best, now)) best = &peer;
  }
  return best;
}

// A bucket of redirect_burst tokens: it is empty when the time that they stand for lies ahead.
bool Policy::token(Time now) {
  const i64 each = 1'000'000'000 / std::max(settings_.redirects_per_second, u32{1});
  token_ns_ = std::max(token_ns_, now.ns - each * settings_.redirect_burst);
  if (token_ns_ + each > now.ns) return false;
  token_ns_ += each;
  return true;
}

std::optional<Take> Policy::take(const Own& own, std::span<const Peer> peers, Time now) {
  if (!settings_.take) return left(Cause::left_switched_off);
  if (!own.listens || own.load.draining != 0) return left(Cause::left_busy);
  // What was asked for and has not come yet will have threads too.
  const i32 free = i32{own.listener.waiting} - i32{own.listener.queued} - peers_.awaited(now);
  const Time own_oldest{static_cast<i64>(own.listener.oldest_ns)};
  const bool for_order = free <= 0;
  const Time younger_than = own_oldest.ns == 0 ? now : own_oldest;
  if (for_order && (!settings_.keep_order || own.listener.waiting > 0 || peers_.awaited(now) > 0))
    return left(Cause::left_busy);
  std::array<u16, most_candidates> set;
  std::size_t size = 0;
  bool pausing = false;
  for (std::size_t i = 0; i < peers.size() && i < most_candidates; ++i) {
    const Peer& peer = peers[i];
    const Time established{static_cast<i64>(peer.listener.oldest_ns)};
    if (peer.listener.queued == 0 || established.ns == 0 || established > now) continue;
    // Someone who waits there is about to accept; but one who lets it lie is not.
    if (peer.listener.waiting > 0 && now - established < settings_.take_age) continue;
    if (for_order && established + settings_.order_bound > younger_than) continue;
    if (peers_.may_ask(peer.kernel, now)) {
      set[size++] = static_cast<u16>(i);
    } else {
      pausing = true;
    }
  }
  if (size == 0)
    return left(pausing ? Cause::left_pausing : for_order ? Cause::left_busy : Cause::left_none);
  // Of a few drawn at random the one whose connection is oldest: others look at the same boards.
  const Peer* oldest = nullptr;
  for (u32 drawn = 0; drawn < settings_.take_choices; ++drawn) {
    const Peer& peer = peers[set[random_.below(size)]];
    if (oldest == nullptr || peer.listener.oldest_ns < oldest->listener.oldest_ns) oldest = &peer;
  }
  const bool hangs = peers_.suspected(*oldest, now);
  const Cause cause = hangs       ? Cause::took_from_hung
                      : for_order ? Cause::took_for_order
                                  : Cause::took;
  ++counts_[static_cast<std::size_t>(cause)];
  const u32 most = for_order ? 1 : std::min(static_cast<u32>(free), settings_.take_batch);
  const Take take{oldest->kernel, std::min<u32>(most, oldest->listener.queued), hangs};
  peers_.asked(take.from, take.connections, now);
  return take;
}

}  // namespace cob::net::angel
