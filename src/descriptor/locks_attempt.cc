// Locks, one request's try: the table, the host, who is woken, who waits for whom; see locks.h.
#include <algorithm>
#include <set>
#include <utility>

#include "descriptor/locks.h"

namespace cob::descriptor {
namespace {

bool is_refusal(int code) { return code == EAGAIN || code == EACCES || code == EWOULDBLOCK; }

Result<void> set_all(RecordLocks& record, const std::vector<LockTable::Part>& parts) {
  Result<void> result;
  for (const LockTable::Part& part : parts) {
    const auto set = record.set(part.range, part.mode);
    if (set.is_error() && !result.is_error()) result = set;
  }
  return result;
}

}  // namespace

void Locks::go(File& file) {
  if (file.going) return;  // the loop below is under way
  file.going = true;
  for (u32 tries = 0; !file.busy && !file.queue.empty(); ++tries) {
    if (tries == max_tries) {
      watch(file, {});
      break;
    }
    Asked request = std::move(file.queue.front());
    file.queue.pop_front();
    attempt(file, std::move(request));
  }
  file.going = false;
}

// Its asker has ended since.
bool Locks::lapsed(const Request& request) const {
  return request.reply.valid() && request.session != pairs_[request.asker.value].link_generation;
}

void Locks::attempt(File& file, Asked request) {
  if (lapsed(*request)) return fail(std::move(request), ECONNRESET);
  if (request->over != 0) {
    const int code = request->over;
    return fail(std::move(request), code);
  }
  if (request->kind == LockKind::flock) return attempt_flock(file, std::move(request));
  if (request->call == LockCall::give) return give(file, std::move(request));
  if (request->call == LockCall::close || request->mode == LockMode::none)
    return unlock(file, std::move(request));
  if (request->call == LockCall::test) return test(file, std::move(request));
  attempt_record(file, std::move(request));
}

// ---- flock: the host's, by the description's own descriptor.

void Locks::attempt_flock(File& file, Asked request) {
  Object* object = home_.begin_use(request->handle, request->asker);
  if (object == nullptr) return fail(std::move(request), ENOENT);
  file.busy = true;
  ++counters_.host_tries;
  const LockMode mode = request->mode;
  const Handle handle = request->handle;
  object->flock(mode, [this, &file, handle, mode,
                       asked = std::move(request)](const Result<u64>& result) mutable {
    file.busy = false;
    watch(file, clock_.now() + kept_idle);
    const bool refused = result.is_error() && is_refusal(result.error().code);
    if (refused) {
      ++counters_.host_refused;
      block(file, std::move(asked), true);
    } else if (result.is_error()) {
      fail(std::move(asked), result.error().code);
    } else {
      ++counters_.granted;
      file.pause = first_pause;
      const LockMode before =
          std::exchange(described_[{handle.slot, handle.generation}], {file.id, mode}).flock;
      finish(std::move(asked), Locked{});
      if (mode < before) wake(file);
    }
    home_.end_use(handle);
    go(file);
  });
}

// ---- Record locks.

// The host's open description, made or made anew so that it can have what is asked for; it must
// then be given what the former one has: `to_move`.
Result<void> Locks::open_record(File& file, const Request& request,
                                std::vector<LockTable::Part>& to_move) {
  const bool exclusive = request.mode == LockMode::exclusive && request.call != LockCall::test;
  if (file.record != nullptr && (!exclusive || file.record->writes())) return {};
  Object* object = home_.find(request.handle, request.asker);
  if (object == nullptr) return Error::of(ENOENT, "dropped meanwhile");
  file.record = TRY(object->record_locks(exclusive));
  if (!file.table.empty()) to_move = file.table.strongest({});
  return {};
}

void Locks::attempt_record(File& file, Asked request) {
  const Request& r = *request;
  if (home_.find(r.handle, r.asker) == nullptr) return fail(std::move(request), ENOENT);
  if (file.table.conflict(r.owner, r.range, r.mode) != nullptr)
    return block(file, std::move(request), false);
  if (file.table.size() + 2 > max_ranges_a_file || ranges_ + 2 > max_ranges) {
    ++counters_.full;
    return fail(std::move(request), ENOLCK);
  }
  std::shared_ptr<RecordLocks> former = file.record;
  std::vector<LockTable::Part> to_move;
  const auto opened = open_record(file, r, to_move);
  if (opened.is_error()) return fail(std::move(request), opened.error().code);
  file.busy = true;
  ++counters_.host_tries;
  const LockRange range = r.range;
  const LockMode mode = r.mode;
  RecordLocks& record = *file.record;
  record.perform(
      [record = file.record, former, to_move = std::move(to_move), range, mode]() -> Result<u64> {
        TRY(set_all(*record, to_move));
        // What both have would stand in the way of what is asked for.
        if (former != nullptr && former != record) TRY(former->set({}, LockMode::none));
        TRY(record->set(range, mode));
        return u64{0};
      },
      [this, &file, asked = std::move(request)](const Result<u64>& result) mutable {
        file.busy = false;
        watch(file, clock_.now() + kept_idle);
        had(file, std::move(asked), result);
        go(file);
      });
}

// The host has answered.
void Locks::had(File& file, Asked request, const Result<u64>& result) {
  const Request& r = *request;
  if (result.is_error()) {
    if (is_refusal(result.error().code)) {
      ++counters_.host_refused;
      return block(file, std::move(request), true);
    }
    file.stale = true;  // what was to be moved may not have been
    watch(file, clock_.now() + longest_pause);
    return fail(std::move(request), result.error().code);
  }
  // Who has cancelled meanwhile has it all the same, and is told.
  if (lapsed(r) || home_.find(r.handle, r.asker) == nullptr) {
    const LockRange range = r.range;
    fail(std::move(request), ECONNRESET);
    return bring_host_in_line(file, {range}, nullptr);
  }
  const bool frees =
      r.mode == LockMode::shared && file.table.has(r.owner, r.range, LockMode::exclusive);
  change(file, [&](LockTable& table) { table.set(r.owner, r.range, r.mode, r.pid); });
  if (r.kind == LockKind::ofd) described_[{r.handle.slot, r.handle.generation}].id = file.id;
  ++counters_.granted;
  file.pause = first_pause;
  finish(std::move(request), Locked{});
  if (frees) wake(file);
}

void Locks::unlock(File& file, Asked request) {
  const Request& r = *request;
  std::vector<LockRange> ranges;
  if (r.call == LockCall::close) {
    change(file, [&](LockTable& table) { ranges = table.remove(r.owner); });
  } else if (file.table.has(r.owner, r.range, LockMode::shared)) {
    if (file.table.size() + 2 > max_ranges_a_file) {
      ++counters_.full;
      return fail(std::move(request), ENOLCK);
    }
    change(file, [&](LockTable& table) { table.set(r.owner, r.range, r.mode, r.pid); });
    ranges.push_back(r.range);
  }
  bring_host_in_line(file, std::move(ranges), std::move(request));
}

// Who has them changes, what is locked does not: the host hears nothing of it. Who waits for the
// former owner waits for the heir; that is looked at anew, for it may now close a cycle.
void Locks::give(File& file, Asked request) {
  const KernelId heir(request->heir.kernel);
  look(heir);
  if (home_.find(request->handle, heir) == nullptr) return fail(std::move(request), ENOENT);
  change(file, [&](LockTable& table) { table.give(request->owner, request->heir); });
  finish(std::move(request), Locked{});
  wake(file);
}

// Lets go on the host what the table no longer has; `request` is answered then.
void Locks::bring_host_in_line(File& file, std::vector<LockRange> ranges, Asked request) {
  if (ranges.empty() || file.record == nullptr) {
    if (request != nullptr) finish(std::move(request), Locked{});
    return;
  }
  std::vector<LockTable::Part> parts;
  for (const LockRange& range : ranges) {
    const auto there = file.table.strongest(range);
    parts.insert(parts.end(), there.begin(), there.end());
  }
  file.busy = true;
  RecordLocks& record = *file.record;
  record.perform(
      [record = file.record, parts = std::move(parts)]() -> Result<u64> {
        TRY(set_all(*record, parts));
        return u64{0};
      },
      [this, &file, asked = std::move(request)](const Result<u64>& result) mutable {
        file.busy = false;
        watch(file, clock_.now() + kept_idle);
        if (result.is_error()) {
          file.stale = true;
          watch(file, clock_.now() + longest_pause);
        }
        if (asked != nullptr) finish(std::move(asked), Locked{});
        wake(file);
        go(file);
      });
}

void Locks::test(File& file, Asked request) {
  const Request& r = *request;
  if (const auto* held = file.table.conflict(r.owner, r.range, r.mode)) {
    const Locked found{.first = held->range.first,
                       .last = held->range.last,
                       .pid = held->pid,
                       .mode = held->mode,
                       .reserved_a = 0,
                       .reserved_b = 0};
    return finish(std::move(request), found);
  }
  std::vector<LockTable::Part> none;
  const auto opened = open_record(file, r, none);
  if (opened.is_error()) return fail(std::move(request), opened.error().code);
  file.busy = true;
  const auto found = std::make_shared<RecordLocks::Found>();
  RecordLocks& record = *file.record;
  record.perform(
      [record = file.record, found, range = r.range, mode = r.mode]() -> Result<u64> {
        *found = TRY(record->test(range, mode));
        return u64{0};
      },
      [this, &file, found, asked = std::move(request)](const Result<u64>& result) mutable {
        file.busy = false;
        watch(file, clock_.now() + kept_idle);
        if (result.is_error()) {
          fail(std::move(asked), result.error().code);
        } else {
          finish(std::move(asked), Locked{.first = found->range.first,
                                          .last = found->range.last,
                                          .pid = found->pid,
                                          .mode = found->mode,
                                          .reserved_a = 0,
                                          .reserved_b = 0});
        }
        go(file);
      });
}

// ---- Waiting.

void Locks::block(File& file, Asked request, bool by_host) {
  if (request->over != 0 || request->call != LockCall::wait) {
    const int code = request->over != 0 ? request->over : EAGAIN;
    return fail(std::move(request), code);
  }
  if (request->kind == LockKind::posix && !by_host && closes_cycle(*request)) {
    ++counters_.deadlocks;
    return fail(std::move(request), EDEADLK);
  }
  if (!std::exchange(request->waited, true)) ++counters_.waited;
  request->host_refused = by_host;
  file.waits.push_back(std::move(request));
  if (!by_host || file.retry != Time::never()) return;
  file.retry = clock_.now() + file.pause;
  file.pause = std::min(file.pause * 2, longest_pause);
  watch(file, file.retry);
}

// They are tried again, in their order, by the next go().
void Locks::wake(File& file, bool only_refused) {
  for (std::size_t n = file.waits.size(); n > 0; --n) {
    Asked request = std::move(file.waits.front());
    file.waits.pop_front();
    const bool now = !only_refused || request->host_refused;
    (now ? file.queue : file.waits).push_back(std::move(request));
  }
}

// Those it waits for wait, one for the other, for it.
bool Locks::closes_cycle(const Request& start) const {
  std::set<LockOwner> known;
  std::vector<const Request*> next{&start};
  std::size_t looks = 0;
  while (!next.empty() && looks < max_cycle_looks) {
    const Request& waits = *next.back();
    next.pop_back();
    looks += waits.file->table.size();
    for (const LockOwner& owner :
         waits.file->table.in_the_way(waits.owner, waits.range, waits.mode)) {
      if (owner == start.owner) return true;
      if (!known.insert(owner).second) continue;
      const auto [begin, end] = waiting_.equal_range(owner);
      for (auto i = begin; i != end; ++i) next.push_back(i->second);
    }
  }
  return false;
}

}  // namespace cob::descriptor
