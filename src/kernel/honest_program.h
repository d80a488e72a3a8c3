// For tests and fuzzers: a program that keeps the protocol, as the shim does, on a kernel in
// simulated time. Model: non-blocking operations on numbered sockets; turn() accepts what its
// listeners are offered and echoes what those connections say, until their peer closes. One thread.
// Test code only.
#pragma once

#include <map>
#include <vector>

#include "kernel/test_kernels.h"

namespace cob::kernel::test {

class Honest {
 public:
  Honest(TwoKernels& kernels, u16 kernel) : kernels_(kernels), program_(kernels.attached(kernel)) {
    VERIFY(program_->attached());
  }

  Played& program() { return *program_; }
  void expect_alive() { VERIFY(program_->take_answers()); }

  // Listens on 0.0.0.0:port, perhaps beside others (SO_REUSEPORT); its slot.
  u32 listen(u16 port, bool accepts = true, bool reuse_port = false) {
    const u32 slot = begin();
    auto call = named(call::Op::bind, slot);
    call.a[1] = port;
    call.a[2] = reuse_port ? 3 : 1;
    VERIFY(kernels_.call(*program_, call) == 0);
    call = named(call::Op::listen, slot);
    call.a[0] = 64;
    VERIFY(kernels_.call(*program_, call) == 0);
    if (accepts) ask_for_connections(slot);
    return slot;
  }
  void ask_for_connections(u32 listener) {
    post(named(call::Op::want_accept, listener));
    listeners_.push_back(listener);
  }
  // Names the socket, for who adopts it by that token.
  void share(u32 slot, u64 token) {
    auto call = slot_call(call::Op::publish);
    call.a[0] = 1;
    call.a[1] = slot;
    call.a[2] = token;
    VERIFY(kernels_.call(*program_, call) == 0);
  }
  call::CallSlot adoption(u64 token, u16 first = 0) const {
    auto call = slot_call(call::Op::adopt);
    call.flags = 1;
    call.a[0] = token;
    call.a[1] = first;
    return call;
  }
  // The slot of the listener with this token, also of another kernel's; -errno.
  i32 join(u64 token, u16 first = 0) {
    const i32 result = kernels_.call(*program_, adoption(token, first));
    return result < 0 ? result : adopted();
  }
  // What the adoption that was answered last has brought.
  i32 adopted() {
    const auto slot = static_cast<u32>(program_->reply().value[0]);
    program_->own_line(slot).generation = program_->line(slot).generation;
    sockets_[slot].generation = program_->line(slot).generation;
    sockets_[slot].posted = program_->line(slot).acknowledged;
    return static_cast<i32>(slot);
  }
  // A call that names the socket; its result.
  i32 ask(call::Op op, u32 slot, u64 a0 = 0) {
    auto call = named(op, slot);
    call.a[0] = a0;
    return kernels_.call(*program_, call);
  }
  // A post that names it.
  void tell(call::Op op, u32 slot, const std::vector<u64>& words = {}) {
    auto call = named(op, slot);
    std::copy(words.begin(), words.end(), call.a);
    post(call);
  }
  // A thread waits on its listeners, as in accept; or none does.
  void wait(bool on) {
    for (const u32 slot : listeners_) publish(program_->own_line(slot).read_waiter, u16{on});
  }
  // A connection that the listener was offered, not echoed; 0: none.
  u32 take(u32 listener) { return accept(listener); }
  // Of a socket whose seat is the kernel's: at most so many bytes; `error`: -errno, or how many.
  std::string receive_shared(u32 slot, u64 most, i32* error = nullptr) {
    const i32 result = ask(call::Op::receive_shared, slot, most);
    if (error != nullptr) *error = result;
    std::string text;
    if (result <= 0) return text;
    auto back = slot_call(call::Op::free_receive);
    for (u32 i = 0; text.size() < static_cast<u32>(result); ++i) {
      const u32 chunk = static_cast<u32>(program_->reply().value[i / 2] >> (i % 2 == 0 ? 0 : 32));
      VERIFY(chunk < call::receive_chunks);
      const std::size_t part = std::min<std::size_t>(static_cast<u32>(result) - text.size(),
                                                     call::receive_chunk_payload);
      text.append(
          reinterpret_cast<const char*>(program_->ours().chunk[chunk]) + sizeof(call::ChunkHeader),
          part);
      back.a[0] = i + 1;
      back.a[1 + i / 2] |= u64{chunk} << (i % 2 == 0 ? 0 : 32);
    }
    post(back);
    return text;
  }
  // One chunk's worth at most; how many bytes, or -errno.
  i32 send_shared(u32 slot, const std::string& text) {
    take_freed();
    const u32 chunk = free_.back();
    free_.pop_back();
    std::memcpy(program_->theirs().chunk[chunk], text.data(), text.size());
    auto call = named(call::Op::send_shared, slot);
    call.a[0] = text.size();
    call.a[1] = chunk;
    const i32 result = kernels_.call(*program_, call);
    if (result <= 0)
      free_.push_back(chunk);
    else
      sockets_.at(slot).posted += static_cast<u32>(result);
    return result;
  }
  // Bytes that the kernel was given.
  u64 posted(u32 slot) const { return sockets_.at(slot).posted; }
  // Connections accepted and not over.
  std::size_t serving() const { return echoed_.size(); }
  // 0, or -errno: whether the port can be had; given back at once.
  i32 try_port(u16 port) {
    const u32 slot = begin();
    auto call = named(call::Op::bind, slot);
    call.a[1] = port;
    const i32 result = kernels_.call(*program_, call);
    close(slot);
    return result;
  }
  u32 connect(u16 port) {
    const u32 slot = begin();
    auto call = named(call::Op::connect, slot);
    call.a[0] = cob_address;
    call.a[1] = port;
    post(call);
    return slot;
  }
  call::SocketState state(u32 slot) const { return program_->line(slot).state; }
  bool over(u32 slot) const {
    const call::KernelSocket& line = program_->line(slot);
    return (line.flags & (call::flag_reset | call::flag_peer_closed)) != 0 &&
           (load(line.received) == program_->own_line(slot).consumed || line.error != 0);
  }
  // Queues `text`; it leaves in this and later turns.
  void send(u32 slot, const std::string& text) {
    sockets_.at(slot).unsent += text;
    push(slot);
  }
  std::string receive(u32 slot) {
    Socket& socket = sockets_.at(slot);
    const call::KernelSocket& line = program_->line(slot);
    call::ProgramSocket& own = program_->own_line(slot);
    const u64 received = load(line.received);
    std::string text;
    if (received == own.consumed) return text;
    if (load(line.first_position) == own.consumed) {
      socket.chunk = line.first_chunk;
      socket.offset = 0;
    }
    while (own.consumed + text.size() != received) {
      VERIFY(socket.chunk < call::receive_chunks);
      const u8* bytes = program_->ours().chunk[socket.chunk];
      if (socket.offset == call::receive_chunk_payload) {
        std::memcpy(&socket.chunk, bytes, sizeof socket.chunk);  // ChunkHeader::next
        socket.offset = 0;
        continue;
      }
      const u64 part = std::min<u64>(received - own.consumed - text.size(),
                                     call::receive_chunk_payload - socket.offset);
      text.append(reinterpret_cast<const char*>(bytes) + sizeof(call::ChunkHeader) + socket.offset,
                  part);
      socket.offset += static_cast<u32>(part);
    }
    publish(own.consumed, received);
    post(named(call::Op::consumed, slot));
    return text;
  }
  void close(u32 slot) {
    post(named(call::Op::close, slot));
    std::erase(listeners_, slot);
    sockets_.erase(slot);
  }

  // The program's work: accepts, echoes, closes what is over.
  void turn() {
    for (const u32 listener : listeners_) {
      while (const u32 slot = accept(listener)) echoed_.push_back(slot);
    }
    std::erase_if(echoed_, [&](u32 slot) {
      const std::string text = receive(slot);
      if (sockets_.at(slot).unsent.size() < std::size_t{64} * 1024)
        sockets_.at(slot).unsent += text;
      push(slot);
      if (!over(slot)) return false;
      close(slot);
      return true;
    });
  }

 private:
  struct Socket {
    u32 generation = 0;
    u32 chunk = 0, offset = 0;  // where reading goes on
    u64 posted = 0;
    std::string unsent;
  };

  u32 begin() {
    u32 slot = 1;
    while (sockets_.contains(slot) || program_->line(slot).state != call::SocketState::free) ++slot;
    const u32 generation = program_->line(slot).generation + 1;
    program_->own_line(slot) = {};
    program_->own_line(slot).generation = generation;
    sockets_[slot].generation = generation;
    sockets_[slot].posted = program_->line(slot).acknowledged;
    return slot;
  }
  u32 accept(u32 listener) {
    for (;;) {
      const call::KernelSocket& line = program_->line(listener);
      call::u64& seen = program_->own_line(listener).consumed;
      if (load(line.received) == seen) return 0;
      const u32 slot = program_->ours().offers[line.offer_ring].socket[seen % call::offer_slots];
      u32 expected = call::seat_offered;
      const bool taken = __atomic_compare_exchange_n(&program_->own_line(slot).seat, &expected,
                                                     u32{call::seat_idle}, false, __ATOMIC_SEQ_CST,
                                                     __ATOMIC_SEQ_CST);
      publish(seen, seen + 1);
      if (!taken) continue;
      const call::KernelSocket& ours = program_->line(slot);
      program_->own_line(slot).generation = ours.generation;
      sockets_[slot].generation = ours.generation;
      sockets_[slot].posted = ours.acknowledged;
      return slot;
    }
  }
  void push(u32 slot) {
    Socket& socket = sockets_.at(slot);
    const call::KernelSocket& line = program_->line(slot);
    if (load(line.generation) != socket.generation) return;  // the kernel has yet to begin it
    if (line.state == call::SocketState::closed || line.state == call::SocketState::failed)
      socket.unsent.clear();
    while (!socket.unsent.empty()) {
      take_freed();
      const u64 room = line.send_limit - (socket.posted - load(line.acknowledged));
      const u32 part = static_cast<u32>(
          std::min<u64>({socket.unsent.size(), room, u64{10} * call::chunk_bytes}));
      const u32 chunks = (part + call::chunk_bytes - 1) / call::chunk_bytes;
      if (part == 0 || chunks > free_.size()) return;
      auto call = named(call::Op::send, slot);
      call.a[0] = part;
      for (u32 i = 0; i < chunks; ++i) {
        const u32 at = i * call::chunk_bytes;
        std::memcpy(program_->theirs().chunk[free_.back()], socket.unsent.data() + at,
                    std::min(part - at, call::chunk_bytes));
        call.a[1 + i / 2] |= u64{free_.back()} << (i % 2 == 0 ? 0 : 32);
        free_.pop_back();
      }
      post(call);
      socket.posted += part;
      socket.unsent.erase(0, part);
    }
  }
  void take_freed() {
    const u32 head = load(program_->ours().freed_head.head);
    for (; freed_tail_ != head; ++freed_tail_)
      free_.push_back(program_->ours().freed.chunk[freed_tail_ % call::send_chunks]);
    while (fresh_ < 256) free_.push_back(fresh_++);
  }
  call::CallSlot named(call::Op op, u32 slot) const {
    return slot_call(op, slot, sockets_.at(slot).generation);
  }
  void post(const call::CallSlot& call) {
    while (!program_->post(call)) kernels_.turns();
  }

  TwoKernels& kernels_;
  std::unique_ptr<Played> program_;
  std::map<u32, Socket> sockets_;
  std::vector<u32> listeners_, echoed_;
  std::vector<u32> free_;
  u32 freed_tail_ = 0, fresh_ = 0;
};

// A server on kernel 0 (ports 80 and 81: one at home there, one at kernel 1) and a client on
// kernel 1, to be served whatever others do.
class HonestPair {
 public:
  explicit HonestPair(TwoKernels& kernels)
      : kernels_(kernels), server_(kernels, 0), client_(kernels, 1) {
    server_.listen(80);
    server_.listen(81);
    steady_ = client_.connect(80);
    expect_echo(steady_, "first");
  }
  Honest& server() { return server_; }
  Honest& client() { return client_; }

  void turn() {
    server_.turn();
    client_.turn();
  }
  // Old connections and new ones carry bytes, both ports are reached.
  void expect_service() {
    server_.expect_alive();
    client_.expect_alive();
    expect_echo(steady_, "still");
    for (const u16 port : {u16{80}, u16{81}}) {
      const u32 fresh = client_.connect(port);
      expect_echo(fresh, "fresh");
      client_.close(fresh);
    }
  }
  // Turns until both kernels hold nothing more than at the start: what others left is gone.
  template <typename F>
  bool until(F done, Duration patience = Duration::seconds(60)) {
    return kernels_.until(
        [&] {
          turn();
          return done();
        },
        patience);
  }

 private:
  void expect_echo(u32 slot, const std::string& text) {
    client_.send(slot, text);
    std::string got;
    const bool came = until([&] {
      client_.send(slot, {});
      got += client_.receive(slot);
      return got.size() >= text.size();
    });
    VERIFY(came);
    VERIFY(got == text);
  }

  TwoKernels& kernels_;
  Honest server_, client_;
  u32 steady_ = 0;
};

}  // namespace cob::kernel::test
