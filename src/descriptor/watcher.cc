// Watcher: asking, being told; see watcher.h.
#include "descriptor/watcher.h"

#include <vector>

namespace cob::descriptor {

Watcher::Watcher(message::Messenger& messenger, Holder& holder)
    : messenger_(messenger), holder_(holder) {
  messenger.on<Ready>([this](KernelId from, const Ready& m) {
    if (const auto ref = holder_.find(from, handle_of(m.handle))) wake(*ref);
  });
  messenger.know<Watch>();
  messenger.know<Watched>();
}

void Watcher::watch(Holder::Ref ref, u32 events, Done done) {
  holder_.refer(ref);
  Ask ask{.ref = ref, .events = events & watch_bits, .done = std::move(done)};
  if (!unsent_.empty() || !send(ask)) unsent_.push_back(std::move(ask));
}

// False: no room; `ask` is as it was.
bool Watcher::send(Ask& ask) {
  const auto done = std::make_shared<Done>(std::move(ask.done));
  const Holder::Ref ref = ask.ref;
  const auto end = [this, ref](Done& then, Result<u32> events) {
    // What others wait for stands, unless there is nobody to tell them.
    if (events.is_error()) {
      const int code = events.error().code;
      wake(ref);
      if (code == ECONNRESET || code == ENETDOWN || code == EHOSTDOWN || code == ENOENT)
        events = Error::of(ESTALE, "the home has ended");
    }
    then(events);
    holder_.drop(ref, [](const Result<u64>&) {});
  };
  // Ready may come right behind the answer.
  watched_[key(ref)] = {.ref = ref, .home = holder_.home(ref)};
  const auto sent = messenger_.request<Watch, Watched>(
      holder_.home(ref), Watch{.handle = field_of(holder_.handle(ref)), .events = ask.events},
      Time::never(), [end, done](Result<Watched> watched) {
        end(*done, watched.is_error() ? Result<u32>(watched.error())
                                      : Result<u32>(watched.value().events.get()));
      });
  if (sent) return true;
  if (sent.error().code == EAGAIN) {
    ask.done = std::move(*done);
    return false;
  }
  end(*done, sent.error());
  return true;
}

void Watcher::wake(Holder::Ref ref) {
  if (watched_.erase(key(ref)) != 0 && woken_) woken_(ref);
}

void Watcher::peer_down(KernelId peer) {
  std::vector<Holder::Ref> lost;
  for (const auto& [name, one] : watched_)
    if (one.home == peer) lost.push_back(one.ref);
  for (const Holder::Ref ref : lost) wake(ref);
}

void Watcher::poll() {
  while (!unsent_.empty()) {
    Ask ask = std::move(unsent_.front());
    unsent_.pop_front();
    if (send(ask)) continue;
    unsent_.push_front(std::move(ask));
    return;
  }
}

}  // namespace cob::descriptor
