// FileCalls, locks: what programs lock of files of other islands, wait for, and leave.
// docs/calls.md, "Locks". Model: nothing waits within a call: a lock that may wait has a number,
// its end is announced on the file's line, and the program looks. What a program leaves behind (a
// close, an exec, its death) is cancelled and unlocked from here. Kernel's loop only.
#include <utility>

#include "kernel/file_calls.h"

namespace cob::kernel {

namespace {

using call::CallSlot;
using call::FileLock;
using descriptor::Locked;
using descriptor::Locker;
using descriptor::LockKind;
using descriptor::LockMode;

i32 code_for_locks(int code) {
  switch (code) {
    case ENETDOWN:
    case ECONNRESET:
    case EHOSTDOWN:
    case EPROTO:
    case ENOENT:
      return -ESTALE;
    case ENOSYS:  // nobody serves shares there any more
    case ENOBUFS:
      return -ENOLCK;
    default:
      return -code;
  }
}

i32 result_of(const Result<Locked>& result) {
  return result.is_error() ? code_for_locks(result.error().code) : 0;
}

// False: no such lock.
bool read_wish(const Program& program, const CallSlot& call, Locker::Wish& wish) {
  const auto kind = static_cast<LockKind>(call.a[0] >> 8 & 0xff);
  const auto mode = static_cast<LockMode>(call.a[0] >> 16 & 0xff);
  if (!known(kind) || !known(mode) || call.a[1] > call.a[2] ||
      call.a[2] > descriptor::max_lock_offset)
    return false;
  wish = {.kind = kind,
          .mode = mode,
          .range = {call.a[1], call.a[2]},
          .program = program.id(),
          .pid = program.pid()};
  return true;
}

}  // namespace

void FileCalls::lock(Program& program, const Shared& pending, const CallSlot& call) {
  const Description* d = file_at(program, call.socket, call.generation);
  if (d == nullptr) return answer(pending, -EBADF);
  const auto what = static_cast<FileLock>(call.a[0] & 0xff);
  if (what == FileLock::look || what == FileLock::cancel)
    return look_at_wait(program, pending, call);
  if (what == FileLock::abandon) return abandon_waits(program, pending, call);
  Locker::Wish wish;
  if (!read_wish(program, call, wish)) return answer(pending, -EINVAL);
  if (under_way_ > max_under_way) return answer(pending, -ENOLCK);
  const auto ref = d->file->ref;
  Locker& locker = files_->locker();
  const bool locks = what == FileLock::set || what == FileLock::wait;
  if (locks && wish.kind == LockKind::posix) program.posix_locks = true;
  if (locks && wish.kind != LockKind::posix) d->file->locked = true;
  switch (what) {
    case FileLock::set:
      return locker.set(ref, wish, [this, pending](const Result<Locked>& result) {
        answer(pending, result_of(result));
      });
    case FileLock::wait:
      if (wish.mode == LockMode::none) return answer(pending, -EINVAL);
      return lock_wait(program, pending, call, wish);
    case FileLock::test:
      if (wish.mode == LockMode::none || wish.kind == LockKind::flock)
        return answer(pending, -EINVAL);
      return locker.test(ref, wish, [this, pending](const Result<Locked>& result) {
        if (result.is_error()) return answer(pending, result_of(result));
        const Locked& found = result.value();
        const u64 values[] = {static_cast<u64>(found.mode.get()), found.first, found.last,
                              found.pid};
        answer(pending, 0, values);
      });
    case FileLock::close:
      if (!program.posix_locks) return answer(pending, 0);
      return locker.close(ref, program.id(), [this, pending](const Result<Locked>& result) {
        answer(pending, result_of(result));
      });
    default:
      return answer(pending, -EINVAL);
  }
}

// ---- Waiting.

void FileCalls::lock_wait(Program& program, const Shared& pending, const CallSlot& call,
                          const Locker::Wish& wish) {
  if (program.lock_waits >= max_lock_waits) return answer(pending, -ENOLCK);
  do {
    ++lock_wait_numbers_;
  } while (lock_wait_numbers_ == 0 || lock_waits_.contains(lock_wait_numbers_));
  const u32 wait = lock_wait_numbers_;
  LockWait& w = lock_waits_[wait];
  w.program = program.id();
  w.thread = pending->thread;
  w.slot = call.socket;
  w.generation = call.generation;
  w.wish = wish;
  ++program.lock_waits;
  const auto ref = program.slot(call.socket).description->file->ref;
  const u32 number = files_->locker().wait(
      ref, wish, [this, wait](const Result<Locked>& result) { lock_waited(wait, result); });
  if (const auto there = lock_waits_.find(wait); there != lock_waits_.end())
    there->second.number = number;
  const u64 values[] = {wait};
  answer(pending, 0, values);
}

void FileCalls::lock_waited(u32 wait, const Result<Locked>& result) {
  const auto found = lock_waits_.find(wait);
  if (found == lock_waits_.end()) return;  // its program has left it
  LockWait& w = found->second;
  w.over = true;
  w.result = result_of(result);
  if (const Shared cancel = std::move(w.cancel)) {
    answer(cancel, w.result);
    return end_wait(wait);
  }
  if (w.abandoned && w.result == 0) give_back(w);
  Program* program = programs_.find(w.program);
  if (w.abandoned || program == nullptr || !program->attached() || !program->slot_open(w.slot) ||
      program->slot(w.slot).generation != w.generation)
    return end_wait(wait);
  call::KernelSocket& line = program->ours(w.slot);
  __atomic_store_n(&line.change, line.change + 1, __ATOMIC_RELEASE);
  program->touch(w.slot);
}

void FileCalls::look_at_wait(Program& program, const Shared& pending, const CallSlot& call) {
  const auto found = lock_waits_.find(static_cast<u32>(call.a[3]));
  if (found == lock_waits_.end() || found->second.program != program.id() ||
      found->second.slot != call.socket || found->second.cancel != nullptr)
    return answer(pending, -EINVAL);
  const u32 wait = found->first;
  LockWait& w = found->second;
  if (w.over) {
    answer(pending, w.result);
    return end_wait(wait);
  }
  if (static_cast<FileLock>(call.a[0] & 0xff) == FileLock::look) return answer(pending, 1);
  w.cancel = pending;
  files_->locker().cancel(w.number);  // may end it at once
}

void FileCalls::end_wait(u32 wait) {
  const auto found = lock_waits_.find(wait);
  if (Program* program = programs_.find(found->second.program)) --program->lock_waits;
  lock_waits_.erase(found);
}

// It is had, and nobody knows.
void FileCalls::give_back(const LockWait& w) {
  Program* program = programs_.find(w.program);
  if (program == nullptr || !program->attached()) return;
  const Description* d = file_at(*program, w.slot, w.generation);
  if (d == nullptr) return;
  Locker::Wish none = w.wish;
  none.mode = LockMode::none;
  files_->locker().set(d->file->ref, none, [](const Result<Locked>&) {});
}

void FileCalls::abandon_waits(Program& program, const Shared& pending, const CallSlot& call) {
  std::vector<u32> left;
  for (const auto& [wait, w] : lock_waits_)
    if (w.program == program.id() && w.thread == pending->thread && w.slot == call.socket &&
        w.cancel == nullptr)
      left.push_back(wait);
  for (const u32 wait : left) {
    LockWait& w = lock_waits_[wait];
    if (w.over) {
      if (w.result == 0) give_back(w);
      end_wait(wait);
    } else {
      w.abandoned = true;
      files_->locker().cancel(w.number);
    }
  }
  answer(pending, 0);
}

// Nobody will look: cancelled, and if it is had all the same, what follows unlocks it.
void FileCalls::forget_waits(const Program& program, u32 slot) {
  if (program.lock_waits == 0) return;
  std::vector<u32> left;
  for (const auto& [wait, w] : lock_waits_)
    if (w.program == program.id() && w.slot == slot) left.push_back(wait);
  for (const u32 wait : left) {
    const LockWait w = std::move(lock_waits_[wait]);
    end_wait(wait);
    if (w.cancel != nullptr) answer(w.cancel, -EINTR);
    if (!w.over) files_->locker().cancel(w.number);
  }
}

// ---- Leaving.

void FileCalls::left(Program& program, u32 slot, Description& file) {
  if (slot != 0) {
    forget_waits(program, slot);
    cache_.hide(program, slot);
  }
  if (!program.posix_locks) return;
  const u64 closing = begin_closing();
  files_->locker().close(file.file->ref, program.id(),
                         [this, closing](const Result<Locked>&) { end_closing(closing); });
}

void FileCalls::image_left(Program& program, u32 slot) { forget_waits(program, slot); }

void FileCalls::closed(const OpenFile& file) {
  watched_.erase(u64{file.ref.slot} << 32 | file.ref.generation);
  files_->watcher().forget(file.ref);
  if (!file.locked) return files_->holder().drop(file.ref, [](const Result<u64>&) {});
  const u64 closing = begin_closing();
  files_->holder().drop(file.ref, [this, closing](const Result<u64>&) { end_closing(closing); });
}

void FileCalls::settle(const Shared& pending) {
  if (closing_.empty()) return answer(pending, 0);
  settling_.push_back({.before = closings_, .pending = pending});
}

void FileCalls::end_closing(u64 closing) {
  closing_.erase(closing);
  const u64 oldest = closing_.empty() ? closings_ + 1 : *closing_.begin();
  while (!settling_.empty() && settling_.front().before < oldest) {
    const Shared pending = std::move(settling_.front().pending);
    settling_.pop_front();
    answer(pending, 0);
  }
}

}  // namespace cob::kernel
