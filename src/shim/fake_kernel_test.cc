// The kernel's half for tests. Model: fake_kernel.h.

#include "shim/fake_kernel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "shim/arena.h"
#include "shim/thread.h"

namespace cob::shim {

using namespace call;

namespace {

int memory(const char* name, size_t bytes, int seals, void** at) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) abort();
  *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (*at == MAP_FAILED) abort();
  fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | seals);
  return fd;
}

}  // namespace

FakeKernel::FakeKernel(int liveness, unsigned short number)
    : liveness_(liveness), doorbell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  kernel_fd_ =
      memory("kernel", sizeof(KernelSide), F_SEAL_FUTURE_WRITE, reinterpret_cast<void**>(&kernel_));
  program_fd_ = memory("program", sizeof(ProgramSide), 0, reinterpret_cast<void**>(&program_));
  ArenaHeader& header = kernel_->header;
  header.magic = arena_magic;
  header.version = protocol_version;
  header.layout_bytes_kernel = sizeof(KernelSide);
  header.layout_bytes_program = sizeof(ProgramSide);
  header.epoch = 7;
  header.kernel = number;
  header.kernels = 2;
  header.neighbours = 3;
  header.cob_address = address;
  header.default_send_limit = send_limit;
  RemoteShare& share = kernel_->remote_share[0];
  share.number = 3;
  share.path_bytes = sizeof share_path - 1;
  std::memcpy(share.path, share_path, sizeof share_path - 1);
  for (int& button : thread_button_) button = -1;
  thread_ = std::thread([this] { run(); });
}

FakeKernel::~FakeKernel() {
  die();
  munmap(kernel_, sizeof(KernelSide));
  munmap(program_, sizeof(ProgramSide));
  ::close(kernel_fd_);
  ::close(program_fd_);
  ::close(doorbell_);
  for (int button : thread_button_) {
    if (button >= 0) ::close(button);
  }
}

void FakeKernel::die() {
  if (!thread_.joinable()) return;
  stop_ = true;
  u64 one = 1;
  (void)!::write(doorbell_, &one, sizeof one);
  thread_.join();
  ::close(liveness_);
}

void FakeKernel::run() {
  unsigned idle = 0;
  while (!stop_) {
    bool work = hellos();
    work |= take_calls();
    for (auto& [number, slot] : slots_) work |= move_bytes(number);
    for (auto& [number, slot] : slots_) {
      while (!slot.pending.empty() && slot.wants_accept && offer(slot, number)) work = true;
    }
    if (work) {
      idle = 0;
      continue;
    }
    if (++idle < 50) {
      sched_yield();
      continue;
    }
    store(kernel_->armed.armed, ++arms_);
    full_fence();
    if (!take_calls()) {
      ++sleeps_;
      pollfd fds[2] = {{doorbell_, POLLIN, 0}, {liveness_, POLLIN, 0}};
      ::poll(fds, 2, hold_data || hold_space ? 1 : 100);
      u64 count;
      (void)!::read(doorbell_, &count, sizeof count);
    }
    store(kernel_->armed.armed, 0U);
  }
}

bool FakeKernel::hellos() {
  AttachRequest request{};
  int fds[3] = {-1, -1, -1};
  u32 count = 0;
  pollfd p{liveness_, POLLIN, 0};
  if (::poll(&p, 1, 0) <= 0 || (p.revents & POLLIN) == 0) return false;
  if (receive_with_fds(liveness_, &request, sizeof request, fds, 3, count) <= 0) return false;
  AttachReply answer{request.kind, 0};
  if (request.kind == static_cast<u32>(Hello::attach)) {
    int sides[3] = {kernel_fd_, program_fd_, doorbell_};
    send_with_fds(liveness_, &answer, sizeof answer, sides, 3);
  } else {
    u32 thread = 0;
    std::memcpy(&thread, reinterpret_cast<char*>(&request) + 4, sizeof thread);
    if (thread_button_[thread] >= 0) ::close(thread_button_[thread]);
    thread_button_[thread] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int bell = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{EPOLLIN | EPOLLET, {.u64 = rung_by_kernel}};
    epoll_ctl(bell, EPOLL_CTL_ADD, thread_button_[thread], &event);
    send_with_fds(liveness_, &answer, sizeof answer, &bell, no_bells ? 0 : 1);
    ::close(bell);
  }
  return true;
}

bool FakeKernel::take_calls() {
  bool any = false;
  for (u32 t = 0; t < max_threads; ++t) {
    if (thread_button_[t] < 0) continue;
    for (;;) {
      CallSlot& slot = program_->ring[t][position_[t] % ring_slots];
      if (acquire(slot.sequence) != position_[t] + 1) break;
      CallSlot copy = slot;
      publish_word(kernel_->consumed[t].consumed, ++position_[t]);
      execute(t, copy);
      any = true;
    }
  }
  return any;
}

void FakeKernel::reply(unsigned thread, unsigned sequence, int result, unsigned long long value) {
  ThreadReply& line = kernel_->reply[thread];
  store(line.result, result);
  store(line.value[0], value);
  publish_word(line.sequence, sequence);
  wake(thread + 1);
}

void FakeKernel::begin(unsigned number, unsigned generation, SocketState state) {
  Slot& slot = slots_[number];
  slot = Slot{};
  slot.open = true;
  slot.generation = generation;
  KernelSocket& line = kernel_->socket[number];
  u64 consumed = load(program_->socket[number].consumed);
  store(line.first_position, consumed);
  store(line.received, consumed);
  store(line.send_limit, send_limit);
  store(line.handle, number);
  store(line.error, 0);
  store(line.flags, 0);
  publish_word(line.state, state);
  publish_word(line.generation, generation);
}

unsigned FakeKernel::take_kernel_slot() {
  if (free_slots_.empty()) return next_slot_++;
  unsigned number = free_slots_.back();
  free_slots_.pop_back();
  return number;
}

void FakeKernel::connect(unsigned number, unsigned short port) {
  KernelSocket& line = kernel_->socket[number];
  auto listener = listeners_.find(port);
  if (listener == listeners_.end()) {
    store(line.error, ECONNREFUSED);
    publish_word(line.flags, flag_reset | flag_peer_closed | flag_send_closed);
    publish_word(line.state, SocketState::failed);
    return changed(number);
  }
  unsigned other = take_kernel_slot();
  begin(other, load(kernel_->socket[other].generation) + 1, SocketState::connected);
  slots_[other].peer = number;
  slots_[number].peer = other;
  u16 own = static_cast<u16>(next_port_++);
  store(kernel_->names[number].local_port, own);
  store(kernel_->names[number].remote_port, port);
  store(kernel_->names[number].local_address, address);
  store(kernel_->names[number].remote_address, address);
  store(kernel_->names[other].local_port, port);
  store(kernel_->names[other].remote_port, own);
  store(kernel_->names[other].remote_address, address);
  publish_word(line.state, SocketState::connected);
  changed(number);
  slots_[listener->second].pending.push_back(other);
}

bool FakeKernel::offer(Slot& listener, unsigned number) {
  KernelSocket& line = kernel_->socket[number];
  u64 consumed = acquire(program_->socket[number].consumed);
  if (load(line.received) - consumed >= 64) return false;
  unsigned connection = listener.pending.front();
  listener.pending.pop_front();
  bool withdraw = withdraw_offers;
  publish_word(program_->socket[connection].seat, u32{withdraw ? seat_away : seat_offered});
  store(kernel_->offers[1].socket[load(line.received) % offer_slots], connection);
  publish_word(line.received, load(line.received) + 1);
  if (withdraw) listener.pending.push_back(connection);
  changed(number);
  return !withdraw;
}

unsigned FakeKernel::take_chunk() {
  if (free_chunks_.empty()) return next_chunk_++;
  const unsigned chunk = free_chunks_.back();
  free_chunks_.pop_back();
  return chunk;
}

void FakeKernel::give_back_sent(unsigned number) {
  kernel_->freed.chunk[freed_ % send_chunks] = number;
  publish_word(kernel_->freed_head.head, ++freed_);
}

unsigned FakeKernel::begin_file() {
  const unsigned number = take_kernel_slot();
  begin(number, load(kernel_->socket[number].generation) + 1, SocketState::file);
  return number;
}

void FakeKernel::execute(unsigned thread, const CallSlot& c) {
  unsigned number = c.socket;
  if (c.op >= Op::file_open) {
    u64 value[6] = {};
    const std::scoped_lock lock(files_mutex);
    const int result = files ? files(*this, c, value) : -ENOSYS;
    for (int i = 0; i < 6; ++i) store(kernel_->reply[thread].value[i], value[i]);
    return reply(thread, c.sequence, result, value[0]);
  }
  if (c.op == Op::free_receive) {
    for (u32 i = 0; i < c.a[0]; ++i)
      free_chunks_.push_back(static_cast<u32>(c.a[1 + i / 2] >> (i % 2 * 32)));
    return;
  }
  if (c.op == Op::close) {
    ++closes_;
    if (slots_[number].open && slots_[number].generation == c.generation) close(number);
    return;
  }
  if (number != 0 && !slots_[number].open && number < first_kernel_socket) {
    begin(number, c.generation, SocketState::undecided);
  }
  switch (c.op) {
    case Op::connect:
      connect(number, static_cast<u16>(c.a[1]));
      return;
    case Op::connect_local:
      if (listeners_.contains(static_cast<u16>(c.a[1]))) {
        connect(number, static_cast<u16>(c.a[1]));
        return reply(thread, c.sequence, 0);
      }
      return reply(thread, c.sequence, -EHOSTUNREACH);
    case Op::send: {
      Slot& slot = slots_[number];
      auto left = static_cast<u32>(c.a[0]);
      for (u32 i = 0; left > 0; ++i) {
        u32 chunk = static_cast<u32>(c.a[1 + i / 2] >> (i % 2 * 32));
        u32 n = left < chunk_bytes ? left : chunk_bytes;
        auto* from = reinterpret_cast<const std::byte*>(program_->chunk[chunk]);
        slot.in_flight.insert(slot.in_flight.end(), from, from + n);
        left -= n;
        kernel_->freed.chunk[freed_ % send_chunks] = chunk;
        publish_word(kernel_->freed_head.head, ++freed_);
      }
      return;
    }
    case Op::shutdown:
      if ((c.a[0] & 1) != 0) slots_[number].send_closed = true;
      return;
    case Op::want_accept:
      slots_[number].wants_accept = true;
      store(kernel_->socket[number].offer_ring, 1U);
      return;
    case Op::bind:
      slots_[number].port = static_cast<u16>(c.a[1] != 0 ? c.a[1] : next_port_++);
      store(kernel_->names[number].local_port, slots_[number].port);
      store(kernel_->names[number].local_address, static_cast<u32>(c.a[0]));
      return reply(thread, c.sequence, 0, slots_[number].port);
    case Op::listen:
      listeners_[slots_[number].port] = number;
      publish_word(kernel_->socket[number].state, SocketState::listening);
      return reply(thread, c.sequence, 0);
    case Op::publish:
      tokens_[c.a[2]] = static_cast<u32>(c.a[1]);
      return reply(thread, c.sequence, 0);
    case Op::info:
      return reply(thread, c.sequence, 0, 1);
    case Op::consumed:
    case Op::set_option:
    case Op::released:
      return;
    default:
      return reply(thread, c.sequence, 0, kernel_->socket[number].handle);
  }
}

void FakeKernel::close(unsigned number) {
  Slot& slot = slots_[number];
  move_bytes(number);
  if (slot.peer != 0) {
    Slot& other = slots_[slot.peer];
    other.peer = 0;
    KernelSocket& line = kernel_->socket[slot.peer];
    publish_word(line.flags, load(line.flags) | flag_peer_closed);
    changed(slot.peer);
  }
  if (auto found = listeners_.find(slot.port);
      found != listeners_.end() && found->second == number) {
    listeners_.erase(found);
  }
  slot.open = false;
  publish_word(kernel_->socket[number].flags, 0);
  publish_word(kernel_->socket[number].state, SocketState::free);
  if (number >= first_kernel_socket) free_slots_.push_back(number);
}

// Bytes of one socket to its peer. True: something moved.
bool FakeKernel::move_bytes(unsigned number) {
  Slot& slot = slots_[number];
  if (!slot.open || slot.peer == 0 || hold_data) return false;
  bool moved = !slot.in_flight.empty();
  if (moved) {
    append(slot.peer, slot.in_flight.data(), slot.in_flight.size());
    if (!hold_space) {
      KernelSocket& line = kernel_->socket[number];
      publish_word(line.acknowledged, load(line.acknowledged) + slot.in_flight.size());
      if (load(program_->socket[number].want_space) != 0) changed(number);
    }
    slot.in_flight.clear();
  }
  KernelSocket& other = kernel_->socket[slot.peer];
  if (slot.send_closed && (load(other.flags) & flag_peer_closed) == 0) {
    publish_word(other.flags, load(other.flags) | flag_peer_closed);
    changed(slot.peer);
    moved = true;
  }
  return moved;
}

void FakeKernel::append(unsigned number, const std::byte* data, size_t bytes) {
  Slot& slot = slots_[number];
  KernelSocket& line = kernel_->socket[number];
  u64 received = load(line.received);
  if (slot.first_chunk != no_chunk && acquire(program_->socket[number].consumed) == received) {
    for (u32 c = slot.first_chunk;; c = reinterpret_cast<ChunkHeader*>(kernel_->chunk[c])->next) {
      free_chunks_.push_back(c);
      if (c == slot.last_chunk) break;
    }
    slot.first_chunk = no_chunk;
  }
  while (bytes > 0) {
    if (slot.first_chunk == no_chunk || slot.fill == receive_chunk_payload) {
      u32 chunk = next_chunk_;
      if (!free_chunks_.empty()) {
        chunk = free_chunks_.back();
        free_chunks_.pop_back();
      } else {
        ++next_chunk_;
      }
      if (slot.first_chunk == no_chunk) {
        slot.first_chunk = chunk;
        store(line.first_chunk, chunk);
        publish_word(line.first_position, received);
      } else {
        publish_word(reinterpret_cast<ChunkHeader*>(kernel_->chunk[slot.last_chunk])->next, chunk);
      }
      slot.last_chunk = chunk;
      slot.fill = 0;
    }
    size_t n = receive_chunk_payload - slot.fill;
    if (n > bytes) n = bytes;
    std::memcpy(kernel_->chunk[slot.last_chunk] + sizeof(ChunkHeader) + slot.fill, data, n);
    slot.fill += static_cast<u32>(n);
    received += n;
    data += n;
    bytes -= n;
  }
  publish_word(line.received, received);
  changed(number);
}

void FakeKernel::wake(unsigned waiter) {
  full_fence();
  for (u32 t = 0; t < max_threads; ++t) {
    if (waiter != 0xffff && waiter != t + 1) continue;
    if (thread_button_[t] < 0 || load(program_->armed[t].armed) == 0) continue;
    u64 one = 1;
    (void)!::write(thread_button_[t], &one, sizeof one);
  }
}

void FakeKernel::changed(unsigned number) {
  Slot& slot = slots_[number];
  KernelSocket& line = kernel_->socket[number];
  ProgramSocket& theirs = program_->socket[number];
  store(line.change, load(line.change) + 1);
  full_fence();
  u32 ring = load(theirs.ready_ring);
  if (ring != 0) {
    RingTail& tail = program_->ready_tail[ring];
    u32 head = load(kernel_->ready_head[ring].head);
    bool queued =
        slot.ready_ring == ring && static_cast<i32>(slot.ready_position - acquire(tail.tail)) >= 0;
    if (!queued) {
      store(kernel_->ready[ring].socket[head % max_sockets], number);
      publish_word(kernel_->ready_head[ring].head, head + 1);
      slot.ready_ring = ring;
      slot.ready_position = head;
    }
    wake(load(tail.waiter));
  }
  wake(load(theirs.read_waiter));
  wake(load(theirs.write_waiter));
}

}  // namespace cob::shim
