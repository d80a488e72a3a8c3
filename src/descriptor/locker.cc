// Locker: asking, waiting, cancelling; see locker.h.
#include "descriptor/locker.h"

#include <utility>

namespace cob::descriptor {

Locker::Locker(message::Messenger& messenger, Holder& holder)
    : messenger_(messenger), holder_(holder) {
  messenger.know<Lock>();
  messenger.know<Locked>();
}

Locker::Ask Locker::asking(Holder::Ref ref, const Wish& wish, LockCall call, Done done) {
  holder_.refer(ref);
  Lock message{};
  message.handle = field_of(holder_.handle(ref));
  message.first = wish.range.first;
  message.last = wish.range.last;
  message.owner = wish.program;
  message.pid = wish.pid;
  message.kind = wish.kind;
  message.mode = wish.mode;
  message.call = call;
  return {.ref = ref, .message = message, .done = std::move(done)};
}

void Locker::set(Holder::Ref ref, const Wish& wish, Done done) {
  ask(asking(ref, wish, LockCall::set, std::move(done)));
}

void Locker::test(Holder::Ref ref, const Wish& wish, Done done) {
  ask(asking(ref, wish, LockCall::test, std::move(done)));
}

void Locker::close(Holder::Ref ref, u32 program, Done done) {
  ask(asking(ref, {.kind = LockKind::posix, .mode = {}, .range = {}, .program = program, .pid = 0},
             LockCall::close, std::move(done)));
}

void Locker::give(Holder::Ref ref, u32 program, KernelId to, u32 heir, Done done) {
  Ask one = asking(
      ref, {.kind = LockKind::posix, .mode = {}, .range = {to.value}, .program = program, .pid = 0},
      LockCall::give, std::move(done));
  one.message.wait = heir;
  ask(std::move(one));
}

u32 Locker::wait(Holder::Ref ref, const Wish& wish, Done done) {
  do {
    ++numbers_;
  } while (numbers_ == 0 || waits_.contains(numbers_));
  const u32 number = numbers_;
  waits_.emplace(number, ref);
  Ask one = asking(ref, wish, LockCall::wait,
                   [this, number, then = std::move(done)](Result<Locked> result) mutable {
                     waits_.erase(number);
                     then(result);
                   });
  one.message.wait = number;
  ask(std::move(one));
  return number;
}

// It follows the wait, so the home knows that, unless it has ended.
void Locker::cancel(u32 wait) {
  const auto found = waits_.find(wait);
  if (found == waits_.end()) return;
  for (auto i = unsent_.begin(); i != unsent_.end(); ++i) {
    if (i->message.call != LockCall::wait || i->message.wait != wait) continue;
    Ask unsent = std::move(*i);
    unsent_.erase(i);
    unsent.done(Error::of(EINTR, "cancelled"));
    return holder_.drop(unsent.ref, [](const Result<u64>&) {});
  }
  Ask one = asking(found->second, {}, LockCall::cancel, {});
  one.message.wait = wait;
  ask(std::move(one));
}

void Locker::ask(Ask one) {
  if (!unsent_.empty() || !send(one)) unsent_.push_back(std::move(one));
}

// False: no room; `one` is as it was.
bool Locker::send(Ask& one) {
  const auto done = std::make_shared<Done>(std::move(one.done));
  const Holder::Ref ref = one.ref;
  // If it was the last reference, what its end frees is free before this is told.
  const auto end = [this, ref](const std::shared_ptr<Done>& then, Result<Locked> result) {
    const int code = result.is_error() ? result.error().code : 0;
    if (code == ECONNRESET || code == ENETDOWN || code == EHOSTDOWN || code == ENOENT)
      result = Error::of(ESTALE, "the home has ended");
    holder_.drop(ref, [then, result](const Result<u64>&) {
      if (*then) (*then)(result);
    });
  };
  const auto sent =
      messenger_.request<Lock, Locked>(holder_.home(ref), one.message, Time::never(),
                                       [end, done](Result<Locked> result) { end(done, result); });
  if (sent) return true;
  if (sent.error().code == EAGAIN) {
    one.done = std::move(*done);
    return false;
  }
  end(done, sent.error());
  return true;
}

void Locker::poll() {
  while (!unsent_.empty()) {
    Ask one = std::move(unsent_.front());
    unsent_.pop_front();
    if (send(one)) continue;
    unsent_.push_front(std::move(one));
    return;
  }
}

}  // namespace cob::descriptor
