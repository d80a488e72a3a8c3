// FileLeases: grants, recalls, ends. See file_leases.h.
#include "descriptor/file_leases.h"

#include <algorithm>

#include "descriptor/lease.h"

namespace cob::descriptor {

FileLeases::Lessee* FileLeases::lessee_of(File& file, KernelId kernel) {
  const auto found = std::ranges::find_if(
      file.lessees, [&](const Lessee& l) { return l.kernel == kernel && !l.orphaned; });
  return found == file.lessees.end() ? nullptr : &*found;
}

FileLeases::File* FileLeases::file_of(u32 slot) {
  const auto& id = slots_[slot].file;
  if (!id) return nullptr;
  const auto found = files_.find(*id);
  return found == files_.end() ? nullptr : &found->second;
}

// ---- Descriptions.

u64 FileLeases::opened(u32 slot, Object& object, KernelId holder) {
  if (slot >= slots_.size()) slots_.resize(slot + 1);
  slots_[slot] = {.object = &object, .file = object.file(), .reads = 0, .ask_again = {}};
  File* file = files_.empty() ? nullptr : file_of(slot);
  if (file == nullptr || file->breaking || !pairs_.may_grant(holder)) return 0;
  Lessee* lessee = lessee_of(*file, holder);
  if (lessee == nullptr) return 0;
  lessee->slots.push_back(slot);
  pairs_.granted(holder);
  return lessee->number;
}

void FileLeases::released(u32 slot, KernelId holder) {
  File* file = files_.empty() ? nullptr : file_of(slot);
  Lessee* lessee = file == nullptr ? nullptr : lessee_of(*file, holder);
  if (lessee == nullptr || std::erase(lessee->slots, slot) == 0 || !lessee->slots.empty()) return;
  std::erase_if(file->lessees, [&](const Lessee& l) { return &l == lessee; });
  end_if_unused(files_.find(*slots_[slot].file));
}

void FileLeases::ended(u32 slot) {
  if (slot < slots_.size()) slots_[slot] = {};
}

// ---- Reads.

u64 FileLeases::before_read(u32 slot, KernelId asker) const {
  if (files_.empty() || !slots_[slot].file) return 0;
  const auto found = files_.find(*slots_[slot].file);
  if (found == files_.end() || found->second.breaking) return 0;
  for (const Lessee& lessee : found->second.lessees)
    if (lessee.kernel == asker && !lessee.orphaned) return lessee.number;
  return 0;
}

FileLeases::Told FileLeases::after_read(u32 slot, KernelId asker, u64 before, u64 moved,
                                        u64 wanted) {
  Slot& s = slots_[slot];
  if (!s.file || !pairs_.may_grant(asker)) return {};
  File* file = files_.empty() ? nullptr : file_of(slot);
  Lessee* lessee = file == nullptr || file->breaking ? nullptr : lessee_of(*file, asker);
  if (lessee == nullptr) {
    if (file != nullptr && file->breaking) return {};
    // What finds the end is not read on.
    const bool goes_on = moved > 0 && (moved == wanted || ++s.reads >= reads_to_lease);
    if (!goes_on || (lessee = grant(slot, asker)) == nullptr) return {};
    file = file_of(slot);
  }
  if (std::ranges::find(lessee->slots, slot) == lessee->slots.end()) lessee->slots.push_back(slot);
  pairs_.granted(asker);
  return {.number = lessee->number, .size = file->size, .covers = lessee->number == before};
}

FileLeases::Lessee* FileLeases::grant(u32 slot, KernelId asker) {
  Slot& s = slots_[slot];
  auto found = files_.find(*s.file);
  if (found == files_.end()) {
    const Time now = clock_.now();
    if (files_.size() == max_files || now < s.ask_again) return nullptr;
    auto host = s.object->cache_lease([this, id = *s.file] { broken(id); });
    if (host.is_error()) {
      ++counters_.refused;
      s.ask_again = now + refused_for;
      return nullptr;
    }
    const u64 size = host.value()->size();
    found = files_.emplace(*s.file, File{.host = host.release_value(), .size = size, .lessees = {}})
                .first;
  }
  ++counters_.granted;
  found->second.lessees.push_back({.kernel = asker, .number = ++numbers_, .slots = {}});
  return &found->second.lessees.back();
}

// ---- The host's is being broken.

void FileLeases::broken(const FileId& id) {
  const auto found = files_.find(id);
  if (found == files_.end() || found->second.breaking) return;
  ++counters_.broken;
  found->second.breaking = true;
  waiting_ = true;
  for (Lessee& lessee : found->second.lessees) ask(id, lessee);
  end_if_unused(found);
}

void FileLeases::ask(const FileId& id, Lessee& lessee) {
  // In another session it would be answered by who never had it.
  pairs_.look_at(lessee.kernel);
  if (lessee.asked || lessee.orphaned) return;
  const u64 number = lessee.number;
  const auto sent = messenger_.request<Invalidate, Invalidated>(
      lessee.kernel, Invalidate{.lease = number}, Time::never(),
      [this, id, number](const Result<Invalidated>& result) {
        // Of an ended session session_ended() tells; who answers anything else has not answered.
        if (!result.is_error()) answered(id, number);
      });
  if (!sent) return;  // again with the next poll(), or its session has ended
  ++counters_.recalled;
  lessee.asked = true;
  lessee.when = clock_.now();
}

void FileLeases::answered(const FileId& id, u64 number) {
  const auto found = files_.find(id);
  if (found == files_.end()) return;
  std::erase_if(found->second.lessees, [&](const Lessee& l) { return l.number == number; });
  end_if_unused(found);
}

// The end of the last lessee's is the end of the host's: who wanted to write goes on.
void FileLeases::end_if_unused(Files::iterator file) {
  if (file->second.lessees.empty()) files_.erase(file);
}

// ---- Pairs.

void FileLeases::session_ended(KernelId kernel, Time over) {
  for (auto& [id, file] : files_) {
    Lessee* lessee = lessee_of(file, kernel);
    if (lessee == nullptr) continue;
    lessee->orphaned = true;
    lessee->slots.clear();
    lessee->when = over;
    waiting_ = true;
  }
}

void FileLeases::fenced(KernelId kernel) {
  for (auto next = files_.begin(); next != files_.end();) {
    const auto file = next++;
    std::erase_if(file->second.lessees,
                  [&](const Lessee& l) { return l.kernel == kernel && !l.orphaned; });
    end_if_unused(file);
  }
}

bool FileLeases::overdue(KernelId kernel, Time now) const {
  if (!waiting_) return false;
  return std::ranges::any_of(files_, [&](const auto& entry) {
    return std::ranges::any_of(entry.second.lessees, [&](const Lessee& l) {
      return l.kernel == kernel && l.asked && !l.orphaned && now >= l.when + lease_time;
    });
  });
}

// ---- The loop.

bool FileLeases::waits(const File& file) const {
  return file.breaking || std::ranges::any_of(file.lessees, &Lessee::orphaned);
}

void FileLeases::note_waiting() {
  waiting_ = std::ranges::any_of(files_, [this](const auto& entry) { return waits(entry.second); });
}

void FileLeases::poll(Time now) {
  if (!waiting_) return;
  std::vector<KernelId> silent;
  for (auto next = files_.begin(); next != files_.end();) {
    const auto file = next++;
    if (!waits(file->second)) continue;
    std::erase_if(file->second.lessees,
                  [&](const Lessee& l) { return l.orphaned && now >= l.when; });
    for (Lessee& lessee : file->second.lessees) {
      if (!file->second.breaking || lessee.orphaned) continue;
      if (now >= pairs_.over(lessee.kernel)) {
        silent.push_back(lessee.kernel);
      } else {
        ask(file->first, lessee);
      }
    }
    end_if_unused(file);
  }
  for (const KernelId kernel : silent) pairs_.fence(kernel);
  note_waiting();
}

Time FileLeases::next_deadline() const {
  Time next = Time::never();
  if (!waiting_) return next;
  for (const auto& [id, file] : files_) {
    for (const Lessee& lessee : file.lessees) {
      if (lessee.orphaned) next = std::min(next, lessee.when);
      if (file.breaking && !lessee.orphaned) next = std::min(next, pairs_.over(lessee.kernel));
    }
  }
  return next;
}

}  // namespace cob::descriptor
