// Home, the offset and its token: where it is, who gets it, what comes back. docs/descriptors.md, 2
// and 3.
// Model: as home.h; a message's fields are copies and are checked here. Owned by the kernel's loop.
#include "descriptor/home.h"

#include <unistd.h>

#include <algorithm>

#include "descriptor/operation.h"

namespace cob::descriptor {

Home::Home(message::Messenger& messenger, const Clock& clock, u32 epoch)
    : messenger_(messenger),
      clock_(clock),
      // Lives of one kernel do not name each other's: a million generations lie between.
      generations_(epoch << 20 | 1),
      pairs_(messenger.links().kernels()),
      file_leases_(messenger, clock, *this) {
  register_handlers();
}

Home::~Home() = default;

// ---- Holders.

// The pair's state in the present session; a former one's is ended first.
Home::Pair& Home::look(KernelId peer) {
  Pair& pair = pairs_[peer.value];
  const message::Link* link = messenger_.links().find(peer);
  const u32 generation = link->connected ? link->generation : 0;
  if (pair.link_generation != generation) [[unlikely]] {
    if (pair.link_generation != 0) session_ended(peer);
    pair.link_generation = generation;
  }
  return pair;
}

void Home::session_ended(KernelId peer) {
  Pair& pair = pairs_[peer.value];
  pair.fenced = false;
  file_leases_.session_ended(peer, pair.lease.over());
  while (!pair.held.empty()) release(pair.held.back(), peer);
}

bool Home::holds(const Entry& entry, KernelId kernel) {
  return std::ranges::find(entry.holders, kernel.value) != entry.holders.end();
}

Home::Entry* Home::entry_for(KernelId from, const HandleField& handle) {
  look(from);
  const u32 slot = handle.slot;
  if (slot < entries_.size()) [[likely]] {
    Entry& entry = entries_[slot];
    if (entry.generation == handle.generation && holds(entry, from)) [[likely]]
      return &entry;
  }
  ++counters_.refused;
  return nullptr;
}

Object* Home::find(Handle handle, KernelId holder) {
  Entry* entry = entry_for(holder, field_of(handle));
  return entry == nullptr ? nullptr : entry->object.get();
}

Object* Home::begin_use(Handle handle, KernelId holder) {
  Entry* entry = entry_for(holder, field_of(handle));
  if (entry == nullptr) return nullptr;
  ++entry->under_way;
  return entry->object.get();
}

void Home::end_use(Handle handle) {
  Entry& entry = entries_[handle.slot];
  VERIFY(entry.generation == handle.generation && entry.under_way > 0);
  --entry.under_way;
  end_if_unheld(handle.slot);
}

Result<Home::Opened> Home::open(std::unique_ptr<Object> object, KernelId holder, bool host_shared) {
  Pair& pair = look(holder);
  if (pair.link_generation == 0) return Error::of(ENETDOWN, "the holder's session is over");
  u32 slot = 0;
  if (!free_.empty()) {
    slot = free_.back();
    free_.pop_back();
  } else {
    if (entries_.size() == max_descriptions) return Error::of(ENFILE, "too many descriptions");
    slot = static_cast<u32>(entries_.size());
    entries_.emplace_back();
  }
  Entry& entry = entries_[slot];
  entry = {};
  entry.generation = generations_++;
  if (generations_ == 0) generations_ = 1;
  entry.traits = object->traits();
  entry.object = std::move(object);
  entry.stays = host_shared;
  entry.holders.push_back(holder.value);
  pair.held.push_back(slot);
  ++size_;
  ++counters_.opened;
  Opened opened{.handle = {slot, entry.generation}, .grant = {}};
  if (may_rest(entry, holder)) {
    opened.grant = give(slot, holder);
    opened.offset = entry.reported;
  }
  opened.file_lease = file_leases_.opened(slot, *entry.object, holder);
  return opened;
}

void Home::withdraw(Handle handle, KernelId holder) {
  look(holder);
  if (handle.slot >= entries_.size()) return;
  const Entry& entry = entries_[handle.slot];
  if (entry.generation == handle.generation && holds(entry, holder)) release(handle.slot, holder);
}

// The holder has it no more.
void Home::release(u32 slot, KernelId holder) {
  Pair& pair = pairs_[holder.value];
  const auto held = std::ranges::find(pair.held, slot);
  VERIFY(held != pair.held.end());
  *held = pair.held.back();
  pair.held.pop_back();
  Entry& entry = entries_[slot];
  std::erase(entry.holders, holder.value);
  file_leases_.released(slot, holder);
  // What it asked and nobody has begun is asked no more: nobody would hear what it took.
  for (auto& op : entry.waiting)
    if (op->asker == holder) op->abandoned = true;
  if ((entry.place == Place::resting || entry.place == Place::recalling) &&
      entry.at == holder.value) {
    set_place(slot, Place::orphaned);
    entry.over = pair.lease.over();  // a later session's lease is another matter
  }
  end_if_unheld(slot);
}

void Home::end_if_unheld(u32 slot) {
  Entry& entry = entries_[slot];
  if (!entry.holders.empty() || entry.under_way > 0 || entry.generation == 0) return;
  for (auto& op : std::exchange(entry.waiting, {})) {
    --waiting_;
    fail(std::move(op), ENOENT);
  }
  set_place(slot, Place::home);
  const Handle handle{slot, entry.generation};
  file_leases_.ended(slot);
  entry = {};
  free_.push_back(slot);
  --size_;
  ++counters_.ended;
  if (ended_) ended_(handle);
}

// ---- The token.

bool Home::may_rest(const Entry& entry, KernelId asker) const {
  return entry.traits.has_offset && !entry.stays && entry.place == Place::home && !entry.eio &&
         !pairs_[asker.value].fenced && entry.offset_under_way == 0 && entry.waiting.empty() &&
         (entry.holders.size() == 1 ||
          (entry.streak >= streak_to_rest && entry.last_user == asker.value)) &&
         holds(entry, asker);
}

// 0: the object does not say where its offset is. REQUIRES: may_rest().
Grant Home::give(u32 slot, KernelId to) {
  Entry& entry = entries_[slot];
  const auto offset = entry.object->offset();
  if (offset.is_error()) return {};
  entry.reported = offset.value();
  set_place(slot, Place::resting);
  entry.at = to.value;
  pairs_[to.value].lease.extend(clock_.now());
  ++counters_.granted;
  return Grant(++entry.grant);
}

void Home::set_place(u32 slot, Place place) {
  const auto awaited = [](Place p) { return p == Place::recalling || p == Place::orphaned; };
  Entry& entry = entries_[slot];
  if (awaited(place) && !awaited(entry.place)) away_.push_back(slot);
  if (!awaited(place) && awaited(entry.place)) std::erase(away_, slot);
  entry.place = place;
}

// Somebody waits for an offset that rests elsewhere.
void Home::want_back(u32 slot) {
  Entry& entry = entries_[slot];
  if (entry.place == Place::resting) {
    set_place(slot, Place::recalling);
    entry.recalled = clock_.now();
    entry.recall_due = true;
  }
  if (entry.place != Place::recalling || !entry.recall_due) return;
  const KernelId at(entry.at);
  const Grant grant(entry.grant);
  const Handle handle{slot, entry.generation};
  const auto asked = messenger_.request<Recall, Returned>(
      at, Recall{.handle = field_of(handle), .grant = grant.value}, Time::never(),
      [this, handle, at, grant](Result<Returned> returned) {
        Entry& there = entries_[handle.slot];
        if (there.generation != handle.generation || there.place != Place::recalling ||
            there.at != at.value || there.grant != grant.value)
          return;  // dropped, or given up on, meanwhile
        if (returned.is_error()) {
          // Only a holder that breaks the protocol does not know its token and has not dropped it;
          // of an ended session look() will tell.
          if (returned.error().code != ECONNRESET) lose(handle.slot);
          return;
        }
        come_back(handle.slot, returned.value().offset);
      });
  if (asked) {
    entry.recall_due = false;
    ++counters_.recalled;
  }
}

void Home::come_back(u32 slot, u64 offset) {
  Entry& entry = entries_[slot];
  set_place(slot, Place::returning);
  ++entry.under_way;
  const u32 generation = entry.generation;
  const auto distance = static_cast<i64>(std::min<u64>(offset, INT64_MAX));
  entry.object->seek(distance, SEEK_SET, [this, slot, generation](Result<u64> at) {
    Entry& there = entries_[slot];
    VERIFY(there.generation == generation && there.place == Place::returning);
    --there.under_way;
    set_place(slot, Place::home);
    there.streak = 0;
    if (at.is_error()) there.eio = true;
    go_on(slot);
    end_if_unheld(slot);
  });
}

// The offset went with its holder: the next who wants it is told, and finds it where it was last
// known to be.
void Home::lose(u32 slot) {
  Entry& entry = entries_[slot];
  entry.eio = true;
  ++counters_.lost;
  come_back(slot, entry.reported);
}

bool Home::may_grant(KernelId peer) {
  const Pair& pair = look(peer);
  return pair.link_generation != 0 && !pair.fenced && !overdue(peer, clock_.now());
}

bool Home::overdue(KernelId peer, Time now) const {
  for (const u32 slot : away_) {
    const Entry& entry = entries_[slot];
    if (entry.place == Place::recalling && entry.at == peer.value && entry.offset_under_way == 0 &&
        now >= entry.recalled + lease_time)
      return true;
  }
  return file_leases_.overdue(peer, now);
}

// The holder did not answer while its lease lasted: all that it was given is void.
void Home::fence(KernelId peer) {
  Pair& pair = pairs_[peer.value];
  pair.fenced = true;
  ++counters_.fenced;
  file_leases_.fenced(peer);
  for (const u32 slot : std::vector<u32>(pair.held)) {
    Entry& entry = entries_[slot];
    if (entry.at != peer.value ||
        !(entry.place == Place::resting || entry.place == Place::recalling))
      continue;
    // What it has begun it will hear of: that must be behind the offset that others go on from.
    if (entry.offset_under_way > 0) {
      set_place(slot, Place::orphaned);
      entry.over = {};
    } else {
      lose(slot);
    }
  }
}

// ---- The loop.

void Home::poll(Time now) {
  for (std::size_t peer = 0; peer < pairs_.size(); ++peer)
    if (pairs_[peer].link_generation != 0) look(KernelId(static_cast<u16>(peer)));
  if (!unsent_.empty()) send_unsent();
  file_leases_.poll(now);
  if (away_.empty()) return;
  for (const u32 slot : std::vector<u32>(away_)) {
    Entry& entry = entries_[slot];
    if (entry.place == Place::orphaned) {
      if (now >= entry.over && entry.offset_under_way == 0) lose(slot);
    } else if (entry.place == Place::recalling) {
      // Slow storage is not the holder's fault.
      if (now >= pairs_[entry.at].lease.over() && entry.offset_under_way == 0) {
        fence(KernelId(entry.at));
      } else {
        want_back(slot);
      }
    }
  }
}

Time Home::next_deadline() const {
  Time next = file_leases_.next_deadline();
  for (const u32 slot : away_) {
    const Entry& entry = entries_[slot];
    const bool gone = entry.place == Place::orphaned;
    next = std::min(next, gone ? entry.over : pairs_[entry.at].lease.over());
  }
  return next;
}

}  // namespace cob::descriptor
