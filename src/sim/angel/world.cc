// The events of an island; world.h.
#include "sim/angel/world.h"

#include <algorithm>

namespace cob::sim::angel {
namespace {

constexpr i64 give_up_ns = 100'000'000;  // after the last arrival
// Of a connection's core time: until its SYN is answered, until it is accepted and answered, its
// end.
constexpr i64 syn_part = 4, end_part = 4;  // a quarter each
constexpr i64 frames_until_accept = 2;     // forwarded: the ACK and the request
constexpr i64 frames_until_end = 2;        // the acknowledgement with FIN, and the last
constexpr i64 small_message_ns = 100;      // taken in, answered

}  // namespace

std::optional<u16> Balancer::source(World& world, u16 kernel) {
  if (world.kernel(kernel).queue.empty()) return std::nullopt;
  return kernel;
}

World::World(const Case& c, const Options& options, Balancer& balancer)
    : case_(c),
      options_(options),
      balancer_(balancer),
      kernels_(c.kernels),
      connections_(c.connections),
      owner_(groups),
      live_(groups),
      arrivals_(groups),
      shown_(c.kernels),
      dirty_since_(c.kernels, -1),
      stack_used_(c.kernels) {
  for (SimulatedKernel& k : kernels_) k.free_threads = options.threads;
  for (u16 g = 0; g < groups; ++g) owner_[g] = g % c.kernels;
  for (u16 k = 0; k < c.kernels; ++k) shown_[k] = current(k);
}

// ---- boards

net::angel::Peer World::current(u16 k) const {
  const SimulatedKernel& kernel = kernels_[k];
  net::angel::Peer peer{.kernel = KernelId(k), .listens = true};
  peer.load.kernel = k;
  peer.load.published_ns = static_cast<u64>(now_);
  peer.load.runnable = static_cast<u32>(kernel.held.size());
  peer.load.demand = shown_[k].load.demand;
  peer.listener.waiting = static_cast<u16>(kernel.free_threads);
  peer.listener.coming = static_cast<u16>(std::min(kernel.coming, 65'535U));
  peer.listener.queued = static_cast<u16>(kernel.queue.size());
  peer.listener.oldest_ns =
      kernel.queue.empty() ? 0
                           : static_cast<u64>(connections_[kernel.queue.front()].established_ns);
  peer.listener.connections = options_.threads - kernel.free_threads;
  return peer;
}

void World::changing(u16 k) {
  i64& since = dirty_since_[k];
  if (since >= 0 && now_ >= since + options_.publish_ns) {
    shown_[k] = current(k);
    shown_[k].load.published_ns = static_cast<u64>(since + options_.publish_ns);
    since = -1;
  }
  if (since < 0) since = now_;
}

std::vector<net::angel::Peer>& World::boards() {
  for (u16 k = 0; k < kernels(); ++k) {
    i64& since = dirty_since_[k];
    if (since >= 0 && now_ >= since + options_.publish_ns) {
      shown_[k] = current(k);
      shown_[k].load.published_ns = static_cast<u64>(since + options_.publish_ns);
      since = -1;
    }
    shown_[k].load.asleep = asleep(k) ? 1 : 0;
  }
  return shown_;
}

// ---- time

bool World::asleep(u16 k) const {
  const SimulatedKernel& kernel = kernels_[k];
  return kernel.queue.empty() &&
         now_ - std::max(kernel.last_active_ns, kernel.stack_free_ns) > options_.rest_ns;
}

i64 World::stack(u16 k, i64 cost_ns) {
  SimulatedKernel& kernel = kernels_[k];
  i64 start = now_;
  if (kernel.stack_free_ns > now_) {
    start = kernel.stack_free_ns;
  } else if (asleep(k)) {
    start += options_.costs.wake_ns;
  } else if (options_.computing && kernel.free_threads < options_.threads && !kernel.stopped) {
    start += options_.costs.preempt_ns;
  }
  if (options_.computing) kernel.debt_ns += cost_ns;
  stack_used_[k] += cost_ns;
  return kernel.stack_free_ns = kernel.last_active_ns = start + cost_ns;
}

void World::at(i64 ns, Kind kind, u16 kernel, u32 connection, u16 other) {
  events_.push({ns, order_++, connection, kernel, other, kind});
}

void World::run(const std::vector<Arriving>& workload) {
  latencies_.reserve(workload.size());
  open_ = static_cast<u32>(workload.size());
  at(workload.front().at_ns, Kind::arrive, 0, 0);
  if (balancer_.period_ns() > 0) at(balancer_.period_ns(), Kind::period, 0);
  if (case_.arrival == Arrival::hung) at(workload.back().at_ns / 5, Kind::stop, 0);
  const i64 end = workload.back().at_ns + give_up_ns;
  while (!events_.empty() && open_ > 0) {
    const Event e = events_.top();
    if (e.at_ns > end) break;
    events_.pop();
    now_ = e.at_ns;
    happen(e, workload);
  }
  for (u32 id = 0; id < connections_.size(); ++id)
    if (!connections_[id].ended) fail(id);
  busiest_ = *std::ranges::max_element(stack_used_);
}

void World::happen(const Event& e, const std::vector<Arriving>& workload) {
  switch (e.kind) {
    case Kind::arrive:
      if (e.connection + 1 < workload.size())
        at(workload[e.connection + 1].at_ns, Kind::arrive, 0, e.connection + 1);
      return arrive(e.connection, workload[e.connection]);
    case Kind::established:
      return established(e.kernel, e.connection);
    case Kind::finish:
      return finish(e.kernel, e.connection);
    case Kind::poll:
      kernels_[e.kernel].polling = false;
      return look(e.kernel);
    case Kind::asked:
      return asked(e.kernel, e.other, e.connection);
    case Kind::taken:
      return give(e.kernel, e.connection);
    case Kind::answered:
      return balancer_.answered(*this, e.kernel, e.other, e.connection);
    case Kind::settled:
      return balancer_.settled(*this, e.kernel, e.other);
    case Kind::period:
      at(now_ + balancer_.period_ns(), Kind::period, 0);
      return balancer_.period(*this);
    case Kind::stop:
      kernels_[0].stopped = true;
      return;
  }
}

// ---- a connection's life

void World::arrive(u32 id, const Arriving& arriving) {
  Connection& c = connections_[id];
  const u16 owner = owner_[arriving.group];
  ++arrivals_[arriving.group];
  ++live_[arriving.group];
  const Balancer::Placement placement = balancer_.place(*this, owner, arriving);
  c = {.syn_ns = now_,
       .service_ns = arriving.service_ns,
       .group = arriving.group,
       .owner = owner,
       .at = placement.kernel,
       .sent_to = placement.kernel,
       .forwarded = placement.forwarded,
       .unsettled = placement.forwarded};
  const i64 part = options_.costs.connection_ns / syn_part;
  i64 answered;
  if (placement.forwarded) {
    ++counts_.redirects;
    const i64 sent = stack(owner, placement.cost_ns + options_.costs.forward_ns) - now_;
    answered = stack(placement.kernel, part) + sent + options_.costs.hop_ns;
  } else {
    answered = stack(placement.kernel, placement.cost_ns + part);
  }
  changing(placement.kernel);
  ++kernels_[placement.kernel].coming;
  at(answered + options_.rtt_ns, Kind::established, placement.kernel, id);
}

void World::established(u16 k, u32 id) {
  changing(k);
  --kernels_[k].coming;
  Connection& c = connections_[id];
  if (c.forwarded) stack(c.owner, options_.costs.forward_ns * frames_until_accept);
  const i64 part =
      options_.costs.connection_ns / syn_part + options_.costs.connection_ns / end_part;
  c.established_ns = stack(k, options_.costs.connection_ns - part);
  if (kernels_[k].queue.size() >= options_.backlog) {
    if (c.unsettled) balancer_.failed(*this, c.owner, c.sent_to);
    return fail(id);
  }
  give(k, id);
}

// To a thread that waits, or into the queue.
void World::give(u16 k, u32 id) {
  SimulatedKernel& kernel = kernels_[k];
  connections_[id].at = k;
  changing(k);
  if (options_.eager && !kernel.stopped) return start(k, id);
  if (kernel.free_threads > 0 && kernel.queue.empty() && !kernel.stopped) {
    start(k, id);
    return balancer_.idle(*this, k);
  }
  // By establishment: one that was taken may be older than those here.
  auto place = kernel.queue.end();
  while (place != kernel.queue.begin() &&
         connections_[*(place - 1)].established_ns > connections_[id].established_ns)
    --place;
  kernel.queue.insert(place, id);
  balancer_.queued(*this, k);
}

void World::start(u16 k, u32 id) {
  SimulatedKernel& kernel = kernels_[k];
  if (options_.eager && kernel.free_threads == 0) {
    kernel.held.push_back(id);
  } else {
    --kernel.free_threads;
    serve(k, id);
  }
  settle(id);
  balancer_.accepted(*this, k);
}

void World::serve(u16 k, u32 id) {
  const Connection& c = connections_[id];
  const bool slow = case_.arrival == Arrival::slowed && k == 0;
  kernels_[k].debt_ns = 0;
  at(std::max(now_, c.established_ns) + c.service_ns * (slow ? i64{4} : 1), Kind::finish, k, id);
}

void World::finish(u16 k, u32 id) {
  Connection& c = connections_[id];
  SimulatedKernel& kernel = kernels_[k];
  if (kernel.stopped) {  // was being served when its program stopped
    if (!c.ended) ++counts_.lost;
    if (!c.ended) --open_;
    c.ended = true;
    return;
  }
  if (kernel.debt_ns > 0) return at(now_ + std::exchange(kernel.debt_ns, 0), Kind::finish, k, id);
  const i64 end = stack(k, options_.costs.connection_ns / end_part);
  if (c.forwarded) stack(c.owner, options_.costs.forward_ns * frames_until_end);
  --live_[c.group];
  --open_;
  c.ended = true;
  last_end_ = std::max(last_end_, now_);
  if (id >= connections_.size() / 5)
    latencies_.push_back(
        static_cast<u32>(std::min<i64>(end - c.syn_ns - options_.rtt_ns, UINT32_MAX - 1)));
  changing(k);
  if (!kernel.held.empty()) {
    const u32 next = kernel.held.front();
    kernel.held.pop_front();
    return serve(k, next);
  }
  ++kernel.free_threads;
  kernel.last_active_ns = std::max(kernel.last_active_ns, now_);
  balancer_.free(*this, k);
  look(k);
}

void World::fail(u32 id) {
  Connection& c = connections_[id];
  c.ended = true;
  --live_[c.group];
  --open_;
  ++counts_.failed;
  latencies_.push_back(UINT32_MAX);
}

// Its sender hears that it was accepted.
void World::settle(u32 id) {
  Connection& c = connections_[id];
  if (!c.unsettled) return;
  c.unsettled = false;
  at(now_ + options_.costs.hop_ns, Kind::settled, c.owner, id, c.sent_to);
}

// The oldest queued; returns when it is there.
i64 World::move(u16 from, u16 to) {
  SimulatedKernel& kernel = kernels_[from];
  const u32 id = kernel.queue.front();
  kernel.queue.pop_front();
  connections_[id].forwarded = connections_[id].owner != to;
  const i64 sent = stack(from, options_.costs.move_ns / 2) + options_.costs.hop_ns;
  stack(to, options_.costs.move_ns / 2);
  const i64 there = sent + options_.costs.move_ns / 2;
  at(there, Kind::taken, to, id);
  return there;
}

// ---- free threads

void World::look(u16 k) {
  SimulatedKernel& kernel = kernels_[k];
  while (kernel.free_threads > 0 && !kernel.stopped) {
    const auto from = balancer_.source(*this, k);
    if (!from) break;
    changing(*from);
    if (*from != k) {
      changing(k);
      ++counts_.takes;
    }
    std::deque<u32>& queue = kernels_[*from].queue;
    const u32 id = queue.front();
    queue.pop_front();
    connections_[id].at = k;
    start(k, id);
  }
  if (kernel.stopped) return;
  balancer_.idle(*this, k);
  if (kernel.free_threads == 0 || !balancer_.polls() || kernel.polling || asleep(k)) return;
  kernel.polling = true;
  at(now_ + options_.poll_ns, Kind::poll, k);
}

void World::ask(u16 k, const net::angel::Take& take) {
  at(now_ + options_.costs.hop_ns, Kind::asked, take.from.value, take.connections, k);
}

// The oldest ones first, unless a thread here is about to have them.
void World::asked(u16 victim, u16 taker, u32 most) {
  SimulatedKernel& kernel = kernels_[victim];
  i64 heard = stack(victim, small_message_ns) + options_.costs.hop_ns;
  u32 given = 0;
  changing(victim);
  while (given < most && !kernel.queue.empty()) {
    ++given;
    heard = move(victim, taker);
  }
  counts_.takes += given;
  if (given == 0) ++counts_.refused;
  at(heard, Kind::answered, taker, given, victim);
}

}  // namespace cob::sim::angel
