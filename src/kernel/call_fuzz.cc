// Fuzzes the call channel: the input is a list of what hostile programs do: slots in call rings,
// valid and not, of several threads; words in everything that they may write; forks, execs and
// deaths; and the turns between. HostileWorld is the oracle, beside VERIFY and the sanitizers.
#include "kernel/hostile_world.h"
#include "sim/fuzz_input.h"

using namespace cob;
using namespace cob::kernel;
using namespace cob::kernel::test;

namespace {

constexpr u32 addresses[] = {cob_address, 0, 0x7f000001, 0x0a4d0002, 0x08080808};

class Attack {
 public:
  Attack(HostileWorld& world, sim::FuzzInput& in) : world_(world), in_(in) {}

  void step() {
    const u8 what = in_.byte();
    const std::size_t index = what / 16;
    program_ = &world_.program(index);
    if (!program_->attached() && what % 16 < 12) return attach();
    switch (what % 16) {
      case 0:
      case 1:
      case 2:
        return post(some_call(some_op()));
      case 3:
        return post_raw();
      case 4:
        return scribble_line();
      case 5:
        return scribble_rings();
      case 6:
        return world_.turns(in_.byte() % 64);
      case 7:
        return listen();
      case 8:
        return connect();
      case 9:
        return world_.visit(port());
      case 10:
        return accept();
      case 11:
        return receive();
      case 12:
        return hello();
      case 13:
        return repeat();
      case 14:
        return world_.replace(index);
      default:
        return world_.idle(Duration::microseconds(i64{1} << in_.byte() % 28));
    }
  }

 private:
  Played& p() { return *program_; }
  u16 port() {
    const u8 choice = in_.byte();
    if (choice == 255) return in_.word();
    if (choice >= 250) return static_cast<u16>(78 + choice % 4);
    return static_cast<u16>(HostileWorld::first_port + choice % HostileWorld::ports);
  }
  u32 socket() {
    const u8 choice = in_.byte();
    if (choice == 255) return static_cast<u32>(in_.number());
    return choice % 16 < 8 ? choice % 16 : call::first_kernel_socket + choice % 8;
  }
  u32 generation(u32 slot) {
    if (slot >= call::max_sockets) return in_.byte();
    const call::KernelSocket& line = p().line(slot);
    const bool begins = line.state == call::SocketState::free && slot < call::first_kernel_socket;
    return line.generation + (begins ? 1 : 0);
  }
  static u64 token(u8 which) { return call::token_mark | (which % 4u + 1); }

  call::Op some_op() {
    const u8 choice = in_.byte();
    if (choice < 247) return static_cast<call::Op>(1 + choice % 25);
    return static_cast<call::Op>(static_cast<u32>(call::Op::file_open) + choice - 247);
  }

  call::CallSlot some_call(call::Op op) {
    const u32 slot = socket();
    call::CallSlot c = slot_call(op, slot, generation(slot));
    switch (op) {
      case call::Op::connect:
      case call::Op::connect_local:
        c.a[0] = addresses[in_.byte() % std::size(addresses)];
        c.a[1] = port();
        if (in_.byte() % 4 == 0)
          c.a[2] = addresses[in_.byte() % std::size(addresses)] | u64{port()} << 32;
        break;
      case call::Op::send:
      case call::Op::send_urgent:
      case call::Op::send_shared:
        c.a[0] = in_.word() % (10 * call::chunk_bytes + 2);
        name_chunks(c);
        if (op == call::Op::send_shared) c.a[0] |= u64{in_.byte() % 2u} << 33;
        break;
      case call::Op::receive_shared:
        c.a[0] = in_.word();
        c.a[1] = in_.byte() % 8;
        break;
      case call::Op::urgent:
        c.a[0] = in_.byte() % 6;
        break;
      case call::Op::bind:
        c.a[0] = addresses[in_.byte() % std::size(addresses)];
        c.a[1] = port();
        c.a[2] = in_.byte();
        break;
      case call::Op::send_to:
        c.a[0] = in_.word() % (call::max_datagram_chunks * call::chunk_bytes + 2);
        c.a[1] = addresses[in_.byte() % std::size(addresses)] | u64{port()} << 32;
        c.a[2] = addresses[in_.byte() % std::size(addresses)];
        name_datagram_chunks(c);
        break;
      case call::Op::file_open:
      case call::Op::file_name:
        c.a[0] = in_.word() % (4 * call::chunk_bytes + 2);
        name_chunks(c);
        break;
      case call::Op::file_write:
        c.a[0] = in_.word() % (8 * call::chunk_bytes + 2);
        name_chunks(c);
        std::copy_backward(c.a + 1, c.a + 5, c.a + 6);
        c.a[1] = in_.byte();
        break;
      case call::Op::file_read:
      case call::Op::file_seek:
      case call::Op::file_control:
        c.a[0] = in_.byte();
        c.a[1] = in_.byte() % 8;
        c.flags = in_.byte() % 2;
        break;
      case call::Op::file_lock:
        c.a[0] = in_.byte() % 10 | u64{in_.byte() % 4u} << 8 | u64{in_.byte() % 4u} << 16;
        c.a[1] = in_.byte();
        c.a[2] = in_.byte();
        c.a[3] = in_.byte() % 8;
        break;
      case call::Op::connect_datagram:
        c.a[0] = addresses[in_.byte() % std::size(addresses)];
        c.a[1] = port();
        c.a[2] = in_.byte() % 5;
        break;
      case call::Op::receive_datagram:
        c.a[0] = in_.byte() % 2;
        break;
      case call::Op::membership:
        c.a[0] = 0xef00'0000 | in_.byte() % 24;
        c.a[1] = in_.byte() % 2;
        break;
      case call::Op::free_receive:
        c.a[0] = in_.byte() % 12;
        for (u32 i = 0; i < 5; ++i) c.a[1 + i] = p().reply(in_.byte() % Played::threads).value[i];
        break;
      case call::Op::set_option:
        c.a[0] = in_.byte() % 16;  // signals of the host's are left out
        for (u32 i = 1; i < 4; ++i) c.a[i] = in_.number();
        break;
      case call::Op::publish:
        c.a[0] = in_.byte() % 4;
        c.a[1] = socket(), c.a[2] = token(in_.byte());
        c.a[3] = socket(), c.a[4] = token(in_.byte());
        c.flags = in_.byte() % 4;
        break;
      case call::Op::adopt:
        c.a[0] = token(in_.byte());
        c.a[1] = in_.byte() % 4;
        c.flags = in_.byte() % 2;  // 1: also what another kernel has, a listener or another socket
        break;
      case call::Op::give:
        c.a[0] = token(in_.byte());
        break;
      case call::Op::hand_over:
        c.a[0] = in_.byte() % 4;
        c.a[1] = in_.byte() % 8;
        break;
      case call::Op::adopt_handle: {
        Played& other = world_.program(in_.byte());
        if (other.attached()) c.a[0] = other.line(slot % call::max_sockets).handle;
        break;
      }
      case call::Op::use:
      case call::Op::released:
      case call::Op::consumed:
      case call::Op::nothing:
      case call::Op::want_accept:
      case call::Op::fork:
      case call::Op::adopted:
        break;
      default:
        for (u32 i = 0; i < 2; ++i) c.a[i] = in_.number();
    }
    return c;
  }
  // Likewise; those of a long datagram in a list, which is sometimes any bytes.
  void name_datagram_chunks(call::CallSlot& c) {
    const u32 chunks = static_cast<u32>((c.a[0] + call::chunk_bytes - 1) / call::chunk_bytes);
    const u8 how = in_.byte();
    const bool listed = how % 2 != 0 || chunks > call::chunks_in_send_to;
    const u32 list = next_chunk_++ % call::send_chunks;
    for (u32 i = 0; i < chunks; ++i) {
      const u32 chunk = how == 255 ? static_cast<u32>(in_.number()) : next_chunk_++;
      const u32 named = chunk % (how >= 254 ? ~0u : call::send_chunks);
      if (listed) {
        std::memcpy(p().theirs().chunk[list] + i * sizeof named, &named, sizeof named);
      } else {
        c.a[3 + i / 2] |= u64{named} << (i % 2 == 0 ? 0 : 32);
      }
    }
    if (!listed) return;
    c.a[3] = list;
    c.a[0] |= u64{call::datagram_listed} << 32;
  }
  // Chunks in turn, as if from a free list; sometimes any.
  void name_chunks(call::CallSlot& c) {
    const u32 chunks = static_cast<u32>((c.a[0] + call::chunk_bytes - 1) / call::chunk_bytes);
    const u8 how = in_.byte();
    for (u32 i = 0; i < chunks && i < 10; ++i) {
      const u32 chunk = how == 255 ? static_cast<u32>(in_.number()) : next_chunk_++;
      c.a[1 + i / 2] |= u64{chunk} << (i % 2 == 0 ? 0 : 32);
    }
  }

  void post(const call::CallSlot& call) {
    last_ = call;
    last_thread_ = in_.byte() % Played::threads;
    (void)p().post(call, last_thread_);
  }
  void post_raw() {
    call::CallSlot call{};
    const auto raw = in_.take(sizeof call);
    std::memcpy(static_cast<void*>(&call), raw.data(), raw.size());
    post(call);
  }
  void repeat() {
    const u32 times = 1u << in_.byte() % 12;
    for (u32 i = 0; i < times && p().attached(); ++i) {
      if (p().post(last_, last_thread_)) continue;
      world_.turns();
      if (!p().post(last_, last_thread_)) return;
    }
  }
  void scribble_line() {
    const u32 slot = socket() % call::max_sockets;
    call::ProgramSocket& line = p().own_line(slot);
    const u8 field = in_.byte();
    const u64 value = in_.number();
    switch (field % 8) {
      case 0:
        return publish(line.consumed, value);
      case 1:
        return publish(line.consumed, line.consumed + value);
      case 2:
        return publish(line.seat, static_cast<u32>(value));
      case 3:
        return publish(line.generation, static_cast<u32>(value));
      case 4:
        return publish(line.ready_ring, static_cast<u16>(value));
      case 5:
        return publish(line.read_waiter, static_cast<u16>(value));
      case 6:
        return publish(line.write_waiter, static_cast<u16>(value));
      default:
        return publish(line.want_space, static_cast<u16>(value));
    }
  }
  void scribble_rings() {
    call::ProgramSide& side = p().theirs();
    const u8 field = in_.byte();
    const u8 at = in_.byte();
    const u32 value = static_cast<u32>(in_.number());
    switch (field % 6) {
      case 0:
        return publish(side.ready_tail[at % call::max_ready_rings].tail, value);
      case 1:
        return publish(side.ready_tail[at % call::max_ready_rings].waiter, value);
      case 2:
        return publish(side.freed_tail.tail, value);
      case 3:
        return publish(side.armed[at].armed, value);
      case 4:
        return publish(side.armed[at].resting, value);
      default: {  // a slot that may lie anywhere in a ring
        call::CallSlot& slot = side.ring[field / 6 % Played::threads][at];
        const auto raw = in_.take(sizeof slot);
        std::memcpy(static_cast<void*>(&slot), raw.data(), raw.size());
      }
    }
  }

  // As honest programs do, to get deep.
  void listen() {
    const u32 slot = 1 + in_.byte() % 4;
    call::CallSlot c = slot_call(call::Op::bind, slot, generation(slot));
    c.a[1] = port();
    c.a[2] = in_.byte();
    (void)p().post(c);
    if (c.a[2] % 8 < 4) world_.turns(8);
    c.op = call::Op::listen;
    c.a[0] = 8;
    (void)p().post(c);
    world_.turns(8);
    c.op = call::Op::want_accept;
    post(c);
  }
  void connect() {
    const u32 slot = 1 + in_.byte() % 8;
    call::CallSlot c = slot_call(call::Op::connect, slot, generation(slot));
    c.a[0] = cob_address;
    c.a[1] = in_.byte() % 2 == 0 ? 80 : port();
    post(c);
    world_.turns(8);
  }
  void accept() {
    const u32 slot = 1 + in_.byte() % 4;
    const u8 how = in_.byte();
    const call::KernelSocket& line = p().line(slot);
    call::ProgramSocket& own = p().own_line(slot);
    if (line.offer_ring >= call::max_listeners) return;
    const u32 taken = p().ours().offers[line.offer_ring].socket[own.consumed % call::offer_slots];
    if (taken >= call::max_sockets) return;
    if (how % 4 != 1) publish(p().own_line(taken).seat, u32{call::seat_idle});
    if (how % 4 != 2) publish(own.consumed, own.consumed + 1);
  }
  void receive() {
    const u32 slot = socket() % call::max_sockets;
    publish(p().own_line(slot).consumed, load(p().line(slot).received));
    post(slot_call(call::Op::consumed, slot, generation(slot)));
  }

  void attach() { world_.kernels().attach(p(), Played::threads); }
  void hello() {
    const u8 how = in_.byte();
    switch (how % 8) {
      case 0:
        p().ask_to_attach();
        break;
      case 1:
        p().ask_for_thread(in_.byte());
        break;
      case 2:
      case 3:
        world_.announce_child(p());
        if (p().attached()) (void)p().post(slot_call(call::Op::fork));
        break;
      case 4: {
        const u8 kinds = in_.byte();
        HostileWorld::send_raw(p(), in_.take(in_.byte() % 80), kinds);
        break;
      }
      case 5:
        (void)p().take_answers();
        break;
      case 6:
        return attach();
      case 7:
        if (how < 64) return say_going(in_.byte());
        [[fallthrough]];
      default:
        p().die();
    }
    if (how >= 128) world_.kernels().host_turn();
  }

  // Of a move that nobody ordered, and what it would hand over.
  void say_going(u8 what) {
    call::LeftNotice notice{};
    constexpr call::Hello kinds[] = {call::Hello::give, call::Hello::leave, call::Hello::left,
                                     call::Hello::flight};
    notice.kind = static_cast<u32>(kinds[what % std::size(kinds)]);
    notice.reason = static_cast<call::LeftReason>(in_.byte() % 12);
    notice.result = static_cast<i32>(in_.number());
    notice.number = static_cast<u32>(in_.number());
    HostileWorld::send_raw(p(), std::as_bytes(std::span(&notice, 1)), in_.byte());
  }

  HostileWorld& world_;
  sim::FuzzInput& in_;
  Played* program_ = nullptr;
  call::CallSlot last_{};
  u32 last_thread_ = 0;
  u32 next_chunk_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  quiet_log();
  sim::FuzzInput in(data, size);
  HostileWorld world;
  Attack attack(world, in);
  for (u32 i = 0; i < 400 && !in.empty(); ++i) {
    attack.step();
    world.turns();
  }
  world.check();
  return 0;
}
