// Attach handshake, mapping and the program's free lists. Model: arena.h.

#include "shim/arena.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shim/epoll.h"
#include "shim/inherit.h"
#include "shim/leave.h"
#include "shim/paths.h"
#include "shim/places.h"
#include "shim/revive.h"
#include "shim/thread.h"

namespace cob::shim {

using namespace call;

constinit State g;
Lock attach_lock;
u32 arenas_ever;

namespace {

constinit Arena arenas[max_arenas]{};

struct EverUsed {
  Arena* begin() const { return arenas; }
  Arena* end() const { return arenas + load(arenas_ever); }
};

void unmap(Arena* arena) {
  if (arena->kernel != nullptr) raw::call(SYS_munmap, raw::at(arena->kernel), sizeof(KernelSide));
  if (arena->program != nullptr)
    raw::call(SYS_munmap, raw::at(arena->program), sizeof(ProgramSide));
  if (arena->owner != nullptr) {
    raw::call(SYS_munmap, raw::at(static_cast<void*>(arena->owner)), sizeof(Socket*) * max_sockets);
    raw::call(SYS_munmap, raw::at(arena->closed_slot), sizeof(u32) * first_kernel_socket);
    raw::call(SYS_munmap, raw::at(arena->free_slot), sizeof(u32) * first_kernel_socket);
    raw::call(SYS_munmap, raw::at(arena->spare_chunks), sizeof(u32) * send_chunks);
  }
}

// Nobody may change the size below us, nor write the kernel's side but the kernel.
bool sealed(int fd, u64 bytes, bool kernel_side) {
  struct stat status{};
  if (raw::call(SYS_fstat, fd, raw::at(&status)) < 0) return false;
  int seals = raw::fcntl(fd, F_GET_SEALS);
  int wanted = F_SEAL_SHRINK | F_SEAL_GROW;
  if (kernel_side) wanted |= F_SEAL_FUTURE_WRITE;
  return static_cast<u64>(status.st_size) >= bytes && seals >= 0 && (seals & wanted) == wanted;
}

void* map_shared(int fd, u64 bytes, int protection) {
  long at = raw::call(SYS_mmap, 0, static_cast<long>(bytes), protection, MAP_SHARED, fd, 0);
  if (at < 0 && at >= -4095) return nullptr;
  raw::call(SYS_madvise, at, static_cast<long>(bytes), MADV_DONTFORK);
  return reinterpret_cast<void*>(at);
}

// Waits for a datagram; -errno.
int wait_input(int fd, i64 milliseconds) {
  pollfd p{fd, POLLIN, 0};
  i64 end = now_ns() + milliseconds * 1'000'000;
  for (;;) {
    i64 left = end - now_ns();
    if (left <= 0) return -ETIMEDOUT;
    timespec t{left / 1'000'000'000, left % 1'000'000'000};
    int n = raw::ppoll(&p, 1, &t);
    if (n > 0) return (p.revents & POLLIN) != 0 ? 0 : -ECONNRESET;
    if (n < 0 && n != -EINTR) return n;
  }
}

// The handshake on `liveness`; fills the arena. 0 or -errno.
int handshake(Arena* arena, int liveness, bool replaces, i64 patience_ms) {
  AttachRequest request{};
  request.kind = static_cast<u32>(Hello::attach);
  request.version = protocol_version;
  request.pid = static_cast<u32>(raw::process_id());
  request.parent_ticket = static_cast<u32>(g.ticket);
  request.replaces = replaces ? 1 : 0;
  memcpy(request.command, g.command, sizeof request.command);
  long sent = send_with_fds(liveness, &request, sizeof request, nullptr, 0);
  if (sent < 0) return static_cast<int>(sent);
  int waited = wait_input(liveness, patience_ms);
  if (waited < 0) return waited;
  AttachReply reply{};
  int fds[3] = {-1, -1, -1};
  u32 count = 0;
  long got = receive_with_fds(liveness, &reply, sizeof reply, fds, 3, count);
  int result = -EPROTO;
  if (got == sizeof reply && reply.kind == static_cast<u32>(Hello::attach)) {
    result = reply.result < 0 ? reply.result : count == 3 ? 0 : -EPROTO;
  }
  if (result == 0) result = map_arena(arena, fds[0], fds[1]);
  for (int i = 0; i < 2; ++i) {
    if (fds[i] >= 0) raw::close(fds[i]);
  }
  if (fds[2] >= 0 && result != 0) raw::close(fds[2]);
  if (result != 0) return result;
  arena->doorbell = make_hidden(fds[2]);
  arena->liveness = liveness;
  return arena->doorbell < 0 ? arena->doorbell : 0;
}

}  // namespace

int ask_supervisor(Hello what, u32 kernel) {
  if (g.attach_right < 0) return -ENETDOWN;
  int pair[2] = {-1, -1};
  long made = raw::call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, raw::at(pair));
  if (made < 0) return static_cast<int>(made);
  drop_stale(pair[0]);
  drop_stale(pair[1]);
  AgainRequest request{static_cast<u32>(what), static_cast<u32>(raw::process_id()), kernel};
  long sent = send_with_fds(g.attach_right, &request, sizeof request, &pair[1], 1);
  raw::close(pair[1]);
  if (sent < 0) {
    store(g.forsaken, sent == -EPIPE || sent == -ECONNREFUSED || sent == -ECONNRESET);
    raw::close(pair[0]);
    return static_cast<int>(sent);
  }
  return make_hidden(pair[0]);
}

namespace {

// Once a program: why its sockets will not be the cob's.
void say_unattached(int error) {
  static bool said;
  if (load(said)) return;
  store(said, true);
  char text[160];
  const char* hint = error == ENOMEM                      ? " (ulimit -v is too small?)"
                     : error == EMFILE || error == ENFILE ? " (ulimit -n is too small?)"
                                                          : "";
  const int bytes = snprintf(text, sizeof text, "cob: %d: cannot attach to kernel %u: %s%s\n",
                             raw::process_id(), g.kernel, strerrordesc_np(error), hint);
  raw::write(STDERR_FILENO, text, static_cast<size_t>(bytes));
}

// The kernel that is due has this forked child: it runs on that kernel's core, and what it is to
// have waits where its parent is.
void settle_on(const Arena* arena) {
  g.placed_from = g.kernel + 1;
  g.former_liveness = g.liveness;
  g.kernel = load(arena->kernel->header.kernel);
  const i32 core = load(arena->kernel->header.core);
  u64 cores[16] = {};
  if (core < 0 || core >= 1'024) return;
  cores[core / 64] = u64{1} << core % 64;
  raw::call(SYS_sched_setaffinity, 0, sizeof cores, raw::at(cores));
}

}  // namespace

namespace {

// Nobody is to take the next arena at this place for the one before.
void leave_arena(const Arena* arena) {
  leave_arena_in_sets(arena);
  leave_arena_in_threads(arena);
}

}  // namespace

Arena* arena_at(u32 place) {
  Arena& arena = arenas[place];
  return acquire(arena.joined) != 0 && !arena.is_dead() ? &arena : nullptr;
}

Arena* new_arena(bool may_recycle) {
  constexpr u32 used = 1, being_recycled = 2;
  for (Arena& arena : arenas) {
    const u32 was = load(arena.in_use);
    if (was == being_recycled) continue;
    if (was == used &&
        !(may_recycle && arena.is_dead() && load(arena.sockets) == 0 && &arena != g.current)) {
      continue;
    }
    if (!change_if(arena.in_use, was, was == 0 ? used : being_recycled)) continue;
    if (was == used) {
      if (arena.kernel != nullptr && load(leave_word) == &arena.kernel->header.leave)
        follow_leave_word(nullptr);
      leave_arena(&arena);
      if (arena.liveness >= 0) close_hidden(arena.liveness);
      if (arena.doorbell >= 0) close_hidden(arena.doorbell);
      unmap(&arena);
    }
    memset(static_cast<void*>(&arena), 0, offsetof(Arena, in_use));
    arena.liveness = arena.doorbell = -1;
    arena.ready_rings = 1;
    arena.fresh_slot = 1;
    publish_word(arena.in_use, used);
    const auto place = static_cast<u32>(&arena - arenas);
    u32 ever = load(arenas_ever);
    while (ever <= place && !change_if(arenas_ever, ever, place + 1)) ever = load(arenas_ever);
    return &arena;
  }
  return nullptr;
}

int map_arena(Arena* arena, int kernel_side, int program_side) {
  if (!sealed(kernel_side, sizeof(KernelSide), true)) return -EPROTO;
  if (!sealed(program_side, sizeof(ProgramSide), false)) return -EPROTO;
  arena->kernel =
      static_cast<const KernelSide*>(map_shared(kernel_side, sizeof(KernelSide), PROT_READ));
  arena->program = static_cast<ProgramSide*>(
      map_shared(program_side, sizeof(ProgramSide), PROT_READ | PROT_WRITE));
  arena->owner = static_cast<Socket**>(reserve(sizeof(Socket*) * max_sockets));
  arena->closed_slot = static_cast<u32*>(reserve(sizeof(u32) * first_kernel_socket));
  arena->free_slot = static_cast<u32*>(reserve(sizeof(u32) * first_kernel_socket));
  arena->spare_chunks = static_cast<u32*>(reserve(sizeof(u32) * send_chunks));
  if (arena->kernel == nullptr || arena->program == nullptr || arena->owner == nullptr ||
      arena->closed_slot == nullptr || arena->free_slot == nullptr ||
      arena->spare_chunks == nullptr) {
    return -ENOMEM;
  }
  const ArenaHeader& header = arena->kernel->header;
  if (load(header.magic) != arena_magic || load(header.version) != protocol_version ||
      load(header.layout_bytes_kernel) != sizeof(KernelSide) ||
      load(header.layout_bytes_program) != sizeof(ProgramSide)) {
    return -EPROTO;
  }
  arena->epoch = load(header.epoch);
  arena->cob_address = load(header.cob_address);
  return 0;
}

int join_arena(Arena* arena, int liveness, i64 patience_ms) {
  return handshake(arena, liveness, false, patience_ms);
}

void leave_behind(Arena* arena) {
  publish_word(arena->dead, 1U);
  raw::call(SYS_shutdown, arena->liveness, SHUT_RDWR);
}

void take_moved(Arena* arena, int side) {
  if (!sealed(side, sizeof(KernelSide), true)) return;
  void* place = const_cast<KernelSide*>(arena->kernel);
  const long at = raw::call(SYS_mmap, raw::at(place), static_cast<long>(sizeof(KernelSide)),
                            PROT_READ, MAP_SHARED | MAP_FIXED, side, 0);
  if (at < 0 && at >= -4095) return;
  raw::call(SYS_madvise, at, static_cast<long>(sizeof(KernelSide)), MADV_DONTFORK);
  store(arena->last_rung, 0U);
  if (arena != g.current) return;
  store(g.kernel, u32{load(arena->kernel->header.kernel)});
  follow_leave_word(arena);
}

Arena* attach() {
  Arena* arena = current_arena();
  if (arena != nullptr && !arena->is_dead()) return arena;
  if (!attached() || confined()) return nullptr;
  Guard guard(attach_lock);
  arena = g.current;
  if (arena != nullptr && !arena->is_dead()) return arena;
  i64 now = now_ns();
  if (now < g.next_attach_ns) return nullptr;
  const RaisedLimit raised;
  Arena* fresh_arena = new_arena();
  if (fresh_arena == nullptr) return nullptr;
  int liveness = -1;
  int result = -ENETDOWN;
  if (g.place) {  // else it stays where its parent is
    liveness = ask_supervisor(Hello::place, g.kernel);
    result = liveness < 0 ? liveness : handshake(fresh_arena, liveness, false, 1'000);
    if (result < 0 && liveness >= 0) close_hidden(liveness);
    if (result == 0) settle_on(fresh_arena);
    g.place = false;
  }
  const bool first = result < 0 && arena == nullptr && g.liveness >= 0;
  if (result < 0) {
    liveness = first ? g.liveness : ask_supervisor(Hello::again, g.kernel);
    result = liveness < 0 ? liveness : handshake(fresh_arena, liveness, false, first ? 5'000 : 300);
  }
  if (result < 0 && first) {  // our kernel died before we came to it
    close_hidden(liveness);
    g.liveness = -1;
    liveness = ask_supervisor(Hello::again, g.kernel);
    result = liveness < 0 ? liveness : handshake(fresh_arena, liveness, false, 300);
  }
  if (result < 0) {
    if (liveness >= 0) close_hidden(liveness);
    fresh_arena->liveness = -1;
    publish_word(fresh_arena->dead, 1U);
    g.next_attach_ns = now + 20'000'000;
    if (first) say_unattached(-result);
    store(g.attach_failed, true);
    return nullptr;
  }
  publish_word(fresh_arena->joined, 1U);
  g.liveness = liveness;
  g.cob_address = fresh_arena->cob_address;
  store(g.attach_failed, false);
  if (g.spread_threads) note_several();
  publish_word(g.current, fresh_arena);
  follow_leave_word(fresh_arena);
  learn_shares(fresh_arena);
  adopt_inherited(fresh_arena);
  return fresh_arena;
}

void mark_dead(Arena* arena) {
  if (arena->is_dead()) return;
  publish_word(arena->dead, 1U);
  note_loss();
}

bool check_death(Arena* arena) {
  if (arena->is_dead()) return true;
  look_for_move(arena);
  const ArenaHeader& header = arena->kernel->header;
  bool dead = load(header.dead) != 0 || load(header.epoch) != arena->epoch;
  if (!dead) {
    pollfd p{arena->liveness, 0, 0};
    timespec none{0, 0};
    dead = raw::ppoll(&p, 1, &none) > 0 && (p.revents & (POLLHUP | POLLERR | POLLNVAL)) != 0;
  }
  if (dead) mark_dead(arena);
  return dead;
}

// ---- free lists
// --------------------------------------------------------------------------------------------------------

// Closed slots that the kernel has done with go onto the stack of free ones, the oldest first, so
// that the next socket gets one whose lines are warm. One whose close takes long does not keep the
// others.
static void gather_slots(Arena* arena) {
  const u32 looked_past = arena->free_slots > 0 ? 1 : 32;
  for (u32 i = 0; i < looked_past && arena->closed_head + i != arena->closed_tail;) {
    u32& closed = arena->closed_slot[(arena->closed_head + i) % first_kernel_socket];
    const KernelSocket& line = arena->kernel->socket[closed];
    if (load(line.generation) != arena->program->socket[closed].generation ||
        acquire(line.state) != SocketState::free) {
      ++i;
      continue;
    }
    arena->free_slot[arena->free_slots++] = closed;
    closed = arena->closed_slot[arena->closed_head++ % first_kernel_socket];
  }
}

u32 take_slot(Arena* arena) {
  Guard guard(arena->slots_lock);
  gather_slots(arena);
  u32 slot = arena->free_slots > 0 ? arena->free_slot[--arena->free_slots] : 0;
  if (slot == 0) {
    if (arena->fresh_slot == first_kernel_socket) return 0;
    slot = arena->fresh_slot++;
  }
  ProgramSocket& line = arena->program->socket[slot];
  line.ready_ring = line.read_waiter = line.write_waiter = line.want_space = 0;
  store(line.seat, u32{seat_idle});
  publish_word(line.generation, load(arena->kernel->socket[slot].generation) + 1);
  return slot;
}

bool slots_come_back(Arena* arena) {
  Guard guard(arena->slots_lock);
  return arena->closed_head != arena->closed_tail || arena->free_slots > 0;
}

void return_slot(Arena* arena, u32 slot, bool posted) {
  if (slot >= first_kernel_socket) return;  // the kernel's own again
  Guard guard(arena->slots_lock);
  if (!posted) {
    store(arena->program->socket[slot].generation, load(arena->kernel->socket[slot].generation));
  }
  arena->closed_slot[arena->closed_tail++ % first_kernel_socket] = slot;
}

// Many pages at once cost the host a quarter of what each costs by itself.
static void touch_chunks(Arena* arena) {
  const u32 count = chunks_to_touch(arena->touched_chunks, send_chunks);
  if (!confined()) {
    raw::call(SYS_madvise, raw::at(arena->program->chunk[arena->touched_chunks]),
              static_cast<long>(count) * chunk_bytes, MADV_POPULATE_WRITE);
  }
  arena->touched_chunks += count;
}

u32 take_chunks(Arena* arena, u32* chunks, u32 most) {
  Guard guard(arena->chunks_lock);
  // What came back last is taken first: its lines are warm.
  const u32 head = acquire(arena->kernel->freed_head.head);
  while (arena->freed_tail != head && arena->spares < send_chunks) {
    const u32 chunk = load(arena->kernel->freed.chunk[arena->freed_tail++ % send_chunks]);
    if (chunk < send_chunks) arena->spare_chunks[arena->spares++] = chunk;
  }
  publish_word(arena->program->freed_tail.tail, arena->freed_tail);
  u32 taken = 0;
  while (taken < most && arena->spares > 0) chunks[taken++] = arena->spare_chunks[--arena->spares];
  while (taken < most && arena->fresh_chunk < send_chunks) {
    if (arena->fresh_chunk == arena->touched_chunks) touch_chunks(arena);
    chunks[taken++] = arena->fresh_chunk++;
  }
  return taken;
}

void return_chunks(Arena* arena, const u32* chunks, u32 count) {
  Guard guard(arena->chunks_lock);
  for (u32 i = 0; i < count && arena->spares < send_chunks; ++i) {
    arena->spare_chunks[arena->spares++] = chunks[i];
  }
}

namespace {

// What no thread holds.
u32 free_chunks(const Arena* arena) {
  const u32 freed = acquire(arena->kernel->freed_head.head) - load(arena->freed_tail);
  return load(arena->spares) + freed + (send_chunks - load(arena->fresh_chunk));
}

}  // namespace

u32 fair_limit_of_few(const Arena* arena) {
  const u32 left = free_chunks(arena);
  if (left >= send_chunks / 4) return ~0U;
  if (left >= send_chunks / 8) return 32 * chunk_bytes;
  return left >= send_chunks / 16 ? 8 * chunk_bytes : chunk_bytes;
}

bool has_chunks(const Arena* arena) { return free_chunks(arena) != 0; }

bool note_no_chunks(Arena* arena) {
  store(arena->starved, 1U);
  store(arena->program->freed_tail.waiter, 1U);
  full_fence();
  return has_chunks(arena);
}

u16 take_ready_ring(Arena* arena) {
  u64 used = load(arena->ready_rings);
  while (~used != 0) {
    auto ring = static_cast<u32>(__builtin_ctzll(~used));
    if (change_if(arena->ready_rings, used, used | 1ULL << ring)) return static_cast<u16>(ring);
    used = load(arena->ready_rings);
  }
  return 0;
}

void return_ready_ring(Arena* arena, u16 ring) {
  if (ring != 0) __atomic_and_fetch(&arena->ready_rings, ~(1ULL << ring), __ATOMIC_RELEASE);
}

void rename_in_arenas(int from, int to) {
  if (load(g.attach_right) == from) {
    store(g.attach_right, to);
    raw::fcntl(to, F_SETFD, 0);
  }
  if (load(g.liveness) == from) store(g.liveness, to);
  for (Arena& arena : EverUsed()) {
    if (!arena.in_use) continue;
    if (load(arena.liveness) == from) store(arena.liveness, to);
    if (load(arena.doorbell) == from) store(arena.doorbell, to);
  }
}

void forget_arenas() {
  for (Arena& arena : EverUsed()) {
    if (!arena.in_use) continue;
    arena.kernel = nullptr;
    arena.program = nullptr;
    unmap(&arena);
    memset(static_cast<void*>(&arena), 0, sizeof arena);
  }
  g.current = nullptr;
  follow_leave_word(nullptr);
}

// ---- datagrams with descriptors
// ------------------------------------------------------------------------------------------

long send_with_fds(int socket, const void* data, size_t bytes, const int* fds, u32 count) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 4)] = {};
  iovec part{const_cast<void*>(data), bytes};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * count);
  }
  long result = 0;
  do {
    result = raw::call(SYS_sendmsg, socket, raw::at(&message), MSG_NOSIGNAL);
  } while (result == -EINTR);
  return result;
}

long receive_with_fds(int socket, void* data, size_t bytes, int* fds, u32 most, u32& count,
                      int flags) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 4)] = {};
  iovec part{data, bytes};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(sizeof(int) * most);
  long result = 0;
  do {
    result = raw::call(SYS_recvmsg, socket, raw::at(&message), MSG_CMSG_CLOEXEC | flags);
  } while (result == -EINTR);
  count = 0;
  if (result < 0) return result;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    count = static_cast<u32>((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    if (count > most) count = most;
    memcpy(fds, CMSG_DATA(header), sizeof(int) * count);
    for (u32 i = 0; i < count; ++i) drop_stale(fds[i]);
  }
  return result == 0 ? -ECONNRESET : result;
}

}  // namespace cob::shim
