// Watches: what comes, what is told, who ends; see watches.h. poll(2).
#include "descriptor/watches.h"

namespace cob::descriptor {

Watches::Watches(message::Messenger& messenger, Home& home)
    : messenger_(messenger),
      home_(home),
      link_generations_(messenger.links().kernels()),
      self_(std::make_shared<Watches*>(this)) {
  messenger.on<Watch, Watched>(
      [this](KernelId from, const Watch& m) -> Result<Watched> { return on_watch(from, m); });
  messenger.know<Ready>();
}

Watches::~Watches() {
  end();
  *self_ = nullptr;
}

Result<Watched> Watches::on_watch(KernelId from, const Watch& m) {
  look(from);
  const u32 events = m.events;
  if ((events & ~watch_bits) != 0) return Error::of(EPROTO, "no such events");
  const Handle handle = handle_of(m.handle);
  Object* object = home_.find(handle, from);
  if (object == nullptr) return Error::of(ENOENT, "not held");
  ++counters_.asked;
  if (const u32 now = object->ready(events); now != 0) return Watched{.events = now};
  const Key key{.holder = from.value, .slot = handle.slot, .generation = handle.generation};
  u32 wanted = events;
  if (const auto known = watches_.find(key); known != watches_.end()) {
    if ((events & ~known->second.events) == 0) return Watched{.events = 0};
    wanted |= known->second.events;
    stop(key, known->second);
    watches_.erase(key);
  }
  const u64 number = ++numbers_;
  watches_[key] = {.events = wanted, .number = number, .at_object = 0};
  const auto begun = object->when_ready(wanted, [self = self_, key, number](u32 there) {
    if (*self != nullptr) (*self)->ready(key, number, there);
  });
  if (begun.is_error()) {
    watches_.erase(key);
    return begun.error();
  }
  if (const auto one = watches_.find(key); one != watches_.end() && one->second.number == number)
    one->second.at_object = begun.value();
  return Watched{.events = 0};
}

void Watches::ready(const Key& key, u64 number, u32 events) {
  const auto one = watches_.find(key);
  if (one == watches_.end() || one->second.number != number) return;
  watches_.erase(one);
  const Telling telling{
      .key = key, .events = events, .link_generation = link_generations_[key.holder]};
  if (!unsent_.empty() || !tell(telling)) unsent_.push_back(telling);
}

// False: no room.
bool Watches::tell(const Telling& telling) {
  const auto sent = messenger_.send(
      KernelId(telling.key.holder),
      Ready{.handle = field_of({.slot = telling.key.slot, .generation = telling.key.generation}),
            .events = telling.events});
  if (sent.is_error() && sent.error().code == EAGAIN) return false;
  ++counters_.told;
  return true;
}

// The description may have ended, and its watches with it.
void Watches::stop(const Key& key, const One& one) {
  const Handle handle{.slot = key.slot, .generation = key.generation};
  if (Object* object = home_.find(handle, KernelId(key.holder)))
    object->cancel_ready(one.at_object);
}

void Watches::look(KernelId peer) {
  u32& known = link_generations_[peer.value];
  const message::Link* link = messenger_.links().find(peer);
  const u32 generation = link->connected ? link->generation : 0;
  if (known == generation) [[likely]]
    return;
  const bool ended = known != 0;
  known = generation;
  if (!ended) return;
  for (auto one = watches_.lower_bound({peer.value, 0, 0});
       one != watches_.end() && one->first.holder == peer.value;) {
    stop(one->first, one->second);
    one = watches_.erase(one);
  }
}

void Watches::poll() {
  if (watches_.empty() && unsent_.empty()) return;
  for (std::size_t peer = 0; peer < link_generations_.size(); ++peer)
    look(KernelId(static_cast<u16>(peer)));
  for (std::size_t n = unsent_.size(); n > 0; --n) {
    const Telling telling = unsent_.front();
    unsent_.pop_front();
    if (telling.link_generation == link_generations_[telling.key.holder] && !tell(telling))
      unsent_.push_back(telling);
  }
}

void Watches::end() {
  const auto all = std::exchange(watches_, {});
  for (const auto& [key, one] : all) stop(key, one);
  unsent_.clear();
}

}  // namespace cob::descriptor
