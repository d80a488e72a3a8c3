// Launches of host.h: what is under way, what waits for others, and where a task runs.
// Owned by the host's thread.
#include <algorithm>

#include "base/clock.h"
#include "offload/host.h"
#include "offload/workers.h"

namespace cob::offload {

using detail::Memory;
using detail::Outcome;

namespace {

constexpr std::size_t most_spare = 1'024;

constexpr bool writes(Use use) { return use != Use::in; }
constexpr bool reads(Use use) { return use != Use::out; }

}  // namespace

Outcome* Host::new_outcome() {
  if (spare_.empty()) return new Outcome;
  Outcome* outcome = spare_.back();
  spare_.pop_back();
  return outcome;
}

void Host::drop(Outcome* outcome) {
  if (--outcome->references > 0) return;
  if (spare_.size() >= most_spare) {
    delete outcome;
    return;
  }
  outcome->done = false;
  outcome->error = {};
  outcome->items = 0;
  spare_.push_back(outcome);
}

void Host::hold(Outcome* outcome, const Request& request) {
  outcome->buffers = request.buffers;
  for (u32 i = 0; i < request.buffers; ++i) {
    Memory* memory = outcome->memories[i] = request.memories[i];
    outcome->uses[i] = request.uses[i];
    ++memory->users;
    if (!writes(request.uses[i])) continue;
    ++memory->writers;
    memory->island_has = true;
    memory->host_has = arena_.valid();
  }
}

void Host::finish(Outcome* outcome, const Error& error, u64 items) {
  outcome->done = true;
  outcome->error = error;
  outcome->items = items;
  for (u32 i = 0; i < outcome->buffers; ++i) {
    Memory* memory = outcome->memories[i];
    if (writes(outcome->uses[i])) --memory->writers;
    if (--memory->users == 0 && !memory->owned) destroy(memory);
  }
  outcome->buffers = 0;
  drop(outcome);  // the launch's own reference
}

Result<void> Host::send(Outcome* outcome, const Request& request) {
  const std::span<const std::byte> tail = std::span(request.tail).first(request.tail_bytes);
  TRY((messenger_.request<Launch, Finished>(
      island_, request.launch, {.tail = tail}, Time::never(), [this, outcome](Result<Finished> r) {
        finish(outcome, r ? Error{} : r.error(), r ? u64{r.value().items} : 0);
      })));
  return {};
}

Future Host::submit(Request& request, std::span<const Future> after) {
  Outcome* outcome = new_outcome();
  ++outcome->references;
  Future future(this, outcome);
  const auto brought = bring_all(request);
  hold(outcome, request);
  if (brought.is_error()) {
    finish(outcome, brought.error(), 0);
    return future;
  }
  bool waits = false;
  for (const Future& before : after)
    waits = waits || !before.valid() || !before.done() || before.outcome_->error.code != 0;
  if (!waits) [[likely]] {
    for (;;) {
      const auto sent = send(outcome, request);
      if (sent) [[likely]]
        return future;
      if (sent.error().code != EAGAIN) {
        finish(outcome, sent.error(), 0);
        return future;
      }
      turn();
    }
  }
  if (deferred_.size() >= most_deferred) {
    finish(outcome, Error::of(EAGAIN, "too many launches wait for others"), 0);
    return future;
  }
  deferred_.push_back({outcome, {after.begin(), after.end()}, request});
  advance();
  return future;
}

// What waited for launches that have ended. Whether there was any.
bool Host::advance() {
  bool any = false;
  for (std::size_t i = 0; i < deferred_.size();) {
    Deferred& one = deferred_[i];
    const auto failed = [](const Future& f) {
      return !f.valid() || (f.done() && f.outcome_->error.code != 0);
    };
    const auto ended = [](const Future& f) { return f.done(); };
    Error error{};
    if (std::ranges::any_of(one.after, failed)) {
      error = Error::of(ECANCELED, "a launch before it failed");
    } else if (!std::ranges::all_of(one.after, ended)) {
      ++i;
      continue;
    } else if (const auto sent = send(one.outcome, one.request); sent.is_error()) {
      if (sent.error().code == EAGAIN) return any;
      error = sent.error();
    }
    Outcome* outcome = one.outcome;
    const std::vector<Future> kept = std::move(one.after);  // may be the last of them
    deferred_.erase(deferred_.begin() + static_cast<std::ptrdiff_t>(i));
    if (error.code != 0) finish(outcome, error, 0);
    any = true;
  }
  return any;
}

void Host::wait(const Outcome& outcome) {
  turn_until([&] { return outcome.done; });
}

// ---- Where
// ---------------------------------------------------------------------------------------

// This thread's share of a range: all of it, or what it takes by `ticket`.
u64 Host::work_at_home(const Request& request, const TaskSet::Entry& home,
                       std::atomic<u64>* ticket) {
  std::array<View, max_buffers> views;
  for (u32 i = 0; i < request.buffers; ++i)
    views[i] = {.data = request.memories[i]->data, .bytes = request.memories[i]->bytes};
  const Call call{.buffers = std::span(views).first(request.buffers),
                  .arguments = request.arguments()};
  const Parts parts(request.range());
  const u32 worker = island_workers_;
  u64 done = 0;
  for (u64 own = 0;;) {
    const u64 number = ticket == nullptr ? own++ : ticket->fetch_add(1, std::memory_order_relaxed);
    if (number >= parts.count) return done;
    Part part = parts.at(number);
    part.worker = worker;
    part.workers = worker + 1;
    home.run(home.body, part, call);
    done += part.end - part.begin;
  }
}

Result<void> Host::at_home(Request& request, const TaskSet::Entry& home) {
  for (u32 i = 0; i < request.buffers; ++i) {
    Memory& memory = *request.memories[i];
    if (!writes(request.uses[i])) {
      TRY(wait_to_read(memory));
    } else {
      TRY(wait_to_write(memory, reads(request.uses[i])));
    }
  }
  work_at_home(request, home, nullptr);
  ++counts_.home;
  return {};
}

Result<void> Host::at_both(Request& request, const TaskSet::Entry& home) {
  if (!arena_.valid()) return Error::of(EOPNOTSUPP, "a loop is shared in shared memory only");
  for (u32 i = 0; i < request.buffers; ++i) {
    Memory& memory = *request.memories[i];
    turn_until([&] { return writes(request.uses[i]) ? memory.users == 0 : memory.writers == 0; });
  }
  // Tickets take turns, so that an island that is late takes none of another loop.
  request.launch.ticket = static_cast<u16>(next_ticket_++ % arena_tickets);
  std::atomic<u64>& ticket = arena_.ticket(request.launch.ticket);
  ticket.store(0, std::memory_order_release);
  Future future = submit(request, {});
  messenger_.flush();
  const u64 mine = work_at_home(request, home, &ticket);
  TRY(future.wait());
  ++counts_.both;
  // An honest island and we have done each part once.
  if (mine + future.outcome_->items != request.launch.end - request.launch.begin)
    return Error::of(EPROTO, "parts of the loop were left out");
  return {};
}

Result<void> Host::run_at(Where where, Request& request, const TaskSet::Entry* home) {
  if (request.launch.begin > request.launch.end || request.launch.grain == 0)
    return Error::of(EINVAL, "an impossible range");
  if (where == Where::away) {
    ++counts_.away;
    return submit(request, {}).wait();
  }
  if (home == nullptr) return Error::of(EOPNOTSUPP, "the host cannot run this task itself");
  return where == Where::home ? at_home(request, *home) : at_both(request, *home);
}

Result<void> Host::run(Request& request, const TaskSet::Entry* home, CostModel& costs) {
  const bool there = connected();
  if (home == nullptr) {
    if (!there) return Error::of(ENETDOWN, "no island, and the host cannot run this task");
    return run_at(Where::away, request, home);
  }
  const u64 elements = request.launch.end - request.launch.begin;
  const double transfer = transfer_ns(request);
  const bool many = elements > request.launch.grain;
  const auto choice = costs.choose(elements, transfer, there, there && many && arena_.valid());
  if (!choice.timed) return run_at(choice.where, request, home);
  const Time begin = HostClock::read();
  TRY(run_at(choice.where, request, home));
  const double ns = static_cast<double>((HostClock::read() - begin).ns);
  costs.learned(choice.where, elements,
                choice.where == Where::home ? ns : std::max(ns - std::max(transfer, 0.0), 1.0));
  return {};
}

}  // namespace cob::offload
