// A listener's parts. Model: listener_parts.h.

#include "shim/listener_parts.h"

#include "shim/epoll.h"
#include "shim/inherit.h"
#include "shim/places.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr i64 again_soon_ns = 20'000'000, again_later_ns = 1'000'000'000;

Socket* find_part(const Socket* whole, const Arena* arena) {
  for (Socket* part = acquire(whole->parts); part != nullptr; part = part->next_part)
    if (acquire(part->arena) == arena) return part;
  return nullptr;
}

void lose_arena(Socket* part) {
  if (part->arena == nullptr) return;
  __atomic_sub_fetch(&part->arena->sockets, 1, __ATOMIC_RELAXED);
  publish_word(part->arena, static_cast<Arena*>(nullptr));
}

// One whose kernel has died, or a new one, which is not listed yet; null: out of sockets.
Socket* spare_part(const Socket* whole) {
  for (Socket* part = acquire(whole->parts); part != nullptr; part = part->next_part) {
    if (part->arena != nullptr && !part->arena->is_dead()) continue;
    lose_arena(part);
    return part;
  }
  Socket* part = new_socket();
  if (part != nullptr) part->placeholder.pool_index = no_pool_entry;
  return part;
}

void end_part(Socket* part) {
  store(part->references, 0U);
  end_socket(part);
}

// Its kernel is asked for the listener that ours has. 0 or an errno.
int join(Socket* whole, Socket* part, Arena* arena) {
  if (const int error = call_publish(whole, 0)) return error;
  Call c{.op = Op::adopt};
  c.flags = adopt_from_others;
  c.a[0] = whole->placeholder.token;
  c.a[1] = load(whole->arena->kernel->header.kernel) + 1U;
  const Reply reply = call_kernel(arena, c);
  const u64 slot = reply.value[0];
  if (reply.result < 0) return -reply.result;
  if (slot < first_kernel_socket || slot >= max_sockets) return EPROTO;
  part->stage = Stage::listener;
  part->want_accept = false;
  part->poster = 0;
  occupy_slot(part, arena, static_cast<u32>(slot));
  return 0;
}

}  // namespace

Socket* part_here(Socket* whole) {
  const Arena* home = live_home();
  if (home == nullptr || home == acquire(whole->arena)) return whole;
  Socket* part = find_part(whole, home);
  return part != nullptr ? part : whole;
}

Socket* join_part_here(Socket* whole) {
  Arena* home = live_home();
  if (home == nullptr || home == acquire(whole->arena) || !is_live(whole) || confined())
    return part_here(whole);
  if (Socket* part = find_part(whole, home)) return part;
  const MembersGuard guard;
  if (Socket* part = find_part(whole, home)) return part;
  Thread* thread = own_thread();
  thread->join_again_ns = load(whole->join_after_ns);
  if (now_ns() < thread->join_again_ns) return whole;
  Socket* part = spare_part(whole);
  const bool fresh = part != nullptr && part->part_of == nullptr;
  const int error = part == nullptr ? ENFILE : join(whole, part, home);
  if (error != 0) {
    store(whole->join_after_ns, now_ns() + (error == EAGAIN ? again_soon_ns : again_later_ns));
    thread->join_again_ns = whole->join_after_ns;
    if (fresh) end_part(part);
    return whole;
  }
  if (fresh) {
    part->part_of = whole;
    part->next_part = whole->parts;
    publish_word(whole->parts, part);
  }
  thread->join_again_ns = 0;
  // What came before anybody asked waits there, and would be reset were nobody to ask.
  if (is_live(whole)) want_offers(whole);
  rejoin_sets(whole);  // a ring announces one part only: its sets look at all from now on
  return part;
}

void end_parts(Socket* whole) {
  Socket* next = nullptr;
  for (Socket* part = whole->parts; part != nullptr; part = next) {
    next = part->next_part;
    end_part(part);
  }
  publish_word(whole->parts, static_cast<Socket*>(nullptr));
}

bool any_offer_waits(Socket* whole) {
  return for_each_listening(whole, [](Socket* one) {
    return acquire(one->kernel->received) != load(one->program->consumed);
  });
}

Arena* arena_to_wait_in(Socket* socket) {
  Arena* arena = acquire(socket->arena);
  if (arena == nullptr || !arena->is_dead() || !g.spread_threads) return arena;
  for_each_listening(socket, [&](Socket* one) {
    arena = one->arena;
    return true;
  });
  return arena;
}

}  // namespace cob::shim
