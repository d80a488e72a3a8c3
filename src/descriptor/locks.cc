// Locks: what comes, who ends, the loop; see locks.h.
#include "descriptor/locks.h"

#include <algorithm>
#include <utility>

namespace cob::descriptor {

Locks::Locks(message::Messenger& messenger, Home& home, const Clock& clock)
    : messenger_(messenger), home_(home), clock_(clock), pairs_(messenger.links().kernels()) {
  messenger.on<Lock, Locked>(
      [this](KernelId from, const Lock& m, Reply reply) { on_lock(from, m, std::move(reply)); });
  home.on_end([this](Handle handle) { description_ended(handle); });
}

Locks::~Locks() { home_.on_end({}); }

const LockTable* Locks::table(const FileId& id) const {
  const auto found = files_.find(id);
  return found == files_.end() ? nullptr : &found->second->table;
}

// ---- Who ends.

void Locks::look(KernelId peer) {
  Pair& pair = pairs_[peer.value];
  const message::Link* link = messenger_.links().find(peer);
  const u32 generation = link->connected ? link->generation : 0;
  if (pair.link_generation == generation) [[likely]]
    return;
  const bool ended = pair.link_generation != 0;
  pair.link_generation = generation;
  if (ended) session_ended(peer);
}

// Its programs' locks end, and what it waits for; a description's stay while others hold it.
void Locks::session_ended(KernelId peer) {
  for (auto& [id, file] : files_) {
    for (auto* list : {&file->queue, &file->waits}) {
      for (std::size_t n = list->size(); n > 0; --n) {
        Asked request = std::move(list->front());
        list->pop_front();
        if (request->asker == peer && request->reply.valid()) {
          fail(std::move(request), ECONNRESET);
        } else {
          list->push_back(std::move(request));
        }
      }
    }
    std::vector<LockOwner> owners;
    for (const LockTable::Held& held : file->table.held())
      if (held.owner.kind == LockKind::posix && held.owner.kernel == peer.value)
        owners.push_back(held.owner);
    std::ranges::sort(owners);
    const auto twice = std::ranges::unique(owners);
    owners.erase(twice.begin(), twice.end());
    for (const LockOwner& owner : owners) close_owner(*file, owner);
  }
  // What the host is being asked for at this moment.
  for (auto i = waits_.lower_bound({peer.value, 0}); i != waits_.end();) {
    if (i->second->asker != peer) break;
    unlist(*(i++)->second);
  }
}

void Locks::description_ended(Handle handle) {
  const auto found = described_.find({handle.slot, handle.generation});
  if (found == described_.end()) return;
  const auto there = files_.find(found->second.id);
  described_.erase(found);
  if (there == files_.end()) return;
  close_owner(
      *there->second,
      {.kind = LockKind::ofd, .kernel = 0, .number = handle.slot, .generation = handle.generation});
  wake(*there->second);
}

// At once if nothing is under way; nobody else's turn comes before poll(): the Home may be within
// something.
void Locks::close_owner(File& file, const LockOwner& owner) {
  auto request = std::make_unique<Request>();
  request->call = LockCall::close;
  request->kind = owner.kind;
  request->owner = owner;
  request->file = &file;
  watch(file, {});
  if (file.busy || file.going) return file.queue.push_front(std::move(request));
  file.going = true;
  attempt(file, std::move(request));
  file.going = false;
}

// ---- What comes.

// 0, or why not.
int Locks::check(KernelId from, const Lock& m, std::optional<FileId>& id) {
  const LockKind kind = m.kind;
  const LockMode mode = m.mode;
  const LockCall call = m.call;
  const u64 first = m.first, last = m.last;
  if (!known(kind) || !known(mode) || !known(call) || first > last || last > max_lock_offset)
    return EPROTO;
  if (call == LockCall::wait &&
      (m.wait == 0 || mode == LockMode::none || waits_.contains({from.value, m.wait.get()})))
    return EPROTO;
  if ((call == LockCall::test && (kind == LockKind::flock || mode == LockMode::none)) ||
      (call == LockCall::close && kind != LockKind::posix))
    return EPROTO;
  if (call == LockCall::give) {
    if (kind != LockKind::posix || first >= pairs_.size() || first == from.value) return EPROTO;
    if (home_.find(handle_of(m.handle), KernelId(static_cast<u16>(first))) == nullptr)
      return ENOENT;
  }
  const Object* object = home_.find(handle_of(m.handle), from);
  if (object == nullptr) return ENOENT;
  id = object->file();
  if (!id) return EINVAL;
  if (kind != LockKind::flock && (call == LockCall::set || call == LockCall::wait)) {
    const ObjectTraits traits = object->traits();
    if ((mode == LockMode::shared && !traits.reads) ||
        (mode == LockMode::exclusive && !traits.writes))
      return EBADF;
  }
  return 0;
}

void Locks::on_lock(KernelId from, const Lock& m, Reply reply) {
  look(from);
  ++counters_.asked;
  if (m.call == LockCall::cancel) {
    cancel(from, m.wait);
    (void)reply.answer({});
    return;
  }
  std::optional<FileId> id;
  if (const int code = check(from, m, id); code != 0) {
    ++counters_.invalid;
    return reply.fail(code);
  }
  auto& file = files_[*id];
  if (file == nullptr) file = std::make_unique<File>(*id);
  file->idle = Time::never();
  watch(*file, clock_.now() + kept_idle);
  auto request = std::make_unique<Request>();
  request->asker = from;
  request->handle = handle_of(m.handle);
  request->kind = m.kind;
  request->mode = m.mode;
  request->call = m.call;
  request->range = {m.first, m.last};
  request->owner = request->kind == LockKind::posix
                       ? LockOwner{LockKind::posix, from.value, m.owner, 0}
                       : LockOwner{request->kind, 0, m.handle.slot, m.handle.generation};
  request->pid = request->kind == LockKind::posix ? m.pid.get() : no_pid;
  if (request->call == LockCall::give)
    request->heir = {LockKind::posix, static_cast<u16>(m.first.get()), m.wait, 0};
  request->file = file.get();
  request->session = pairs_[from.value].link_generation;
  request->reply = std::move(reply);
  const bool waits = request->call == LockCall::wait;
  if (file->queue.size() >= max_queued_a_file ||
      (waits && (waits_.size() >= max_waits || pairs_[from.value].waits >= max_waits_a_kernel))) {
    ++counters_.full;
    return fail(std::move(request), ENOLCK);
  }
  if (waits) {
    request->wait = m.wait;
    waits_.emplace(std::pair{from.value, request->wait}, request.get());
    ++pairs_[from.value].waits;
    if (request->kind == LockKind::posix) waiting_.emplace(request->owner, request.get());
  }
  file->queue.push_back(std::move(request));
  go(*file);
}

// One that the host is asked for at this moment is had if the host says so.
void Locks::cancel(KernelId from, u32 wait) {
  const auto found = waits_.find({from.value, wait});
  if (found == waits_.end()) return;
  Request& request = *found->second;
  request.over = EINTR;
  ++counters_.cancelled;
  auto& waits = request.file->waits;
  const auto place =
      std::ranges::find_if(waits, [&](const Asked& one) { return one.get() == &request; });
  if (place == waits.end()) return;
  Asked taken = std::move(*place);
  waits.erase(place);
  fail(std::move(taken), EINTR);
}

// ---- Answers.

// It waits no more.
void Locks::unlist(Request& request) {
  if (request.wait == 0) return;
  waits_.erase({request.asker.value, request.wait});
  request.wait = 0;
  --pairs_[request.asker.value].waits;
  const auto [begin, end] = waiting_.equal_range(request.owner);
  for (auto i = begin; i != end; ++i)
    if (i->second == &request) return void(waiting_.erase(i));
}

void Locks::finish(Asked request, const Result<Locked>& result) {
  unlist(*request);
  if (!request->reply.valid()) return;
  if (result.is_error()) return request->reply.fail(result.error().code);
  (void)request->reply.answer(result.value());
}

void Locks::fail(Asked request, int code) { finish(std::move(request), Error::of(code, "a lock")); }

// ---- The loop.

void Locks::watch(File& file, Time at) {
  due_ = std::min(due_, at);
  if (std::exchange(file.watched, true)) return;
  watched_.push_back(&file);
}

void Locks::poll(Time now) {
  for (std::size_t peer = 0; peer < pairs_.size(); ++peer)
    if (pairs_[peer].link_generation != 0) look(KernelId(static_cast<u16>(peer)));
  if (now < due_) return;
  due_ = Time::never();
  for (File* file : std::exchange(watched_, {})) {
    file->watched = false;
    if (now >= file->retry) {
      file->retry = Time::never();
      wake(*file, true);
    }
    if (file->stale && !file->busy) {
      file->stale = false;
      bring_host_in_line(*file, {LockRange{}}, nullptr);
    }
    go(*file);
    if (file->retry != Time::never()) watch(*file, file->retry);
    end_if_idle(*file, now);
  }
}

// May end the file.
void Locks::end_if_idle(File& file, Time now) {
  const bool idle =
      file.table.empty() && file.queue.empty() && file.waits.empty() && !file.busy && !file.stale;
  if (!idle) {
    file.idle = Time::never();
    return;
  }
  if (file.idle == Time::never()) file.idle = now;
  if (now < file.idle + kept_idle) return watch(file, file.idle + kept_idle);
  if (file.watched) std::erase(watched_, &file);
  files_.erase(file.id);
}

}  // namespace cob::descriptor
