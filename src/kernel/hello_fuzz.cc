// Fuzzes what programs say on their liveness sockets: hellos of any size and content, with too
// many, too few and the wrong descriptors, in any order, with forks and deaths between.
// HostileWorld is the oracle, beside VERIFY and the sanitizers.
#include "kernel/hostile_world.h"
#include "sim/fuzz_input.h"

using namespace cob;
using namespace cob::kernel;
using namespace cob::kernel::test;

namespace {

// A hello of the right kind, then bytes of the input over it, cut to any size.
void say(HostileWorld& world, Played& program, sim::FuzzInput& in) {
  std::array<std::byte, sizeof(call::AttachRequest) + 16> bytes{};
  const u8 kind = in.byte();
  call::AttachRequest request{};
  request.kind = kind % 8 < 6 ? 1 + kind % 3 : kind;
  if (kind % 8 == 6) request.kind = static_cast<u32>(call::Hello::flight);
  if (kind % 32 == 15) request.kind = static_cast<u32>(call::Hello::give) + kind / 32 % 3;
  request.version = kind < 240 ? call::protocol_version : in.byte();
  if (request.kind == static_cast<u32>(call::Hello::thread)) request.version = in.byte() % 6;
  request.pid = in.byte();
  std::memcpy(bytes.data(), &request, sizeof request);
  const u8 size = in.byte();
  const u8 kinds = in.byte();
  const auto noise = in.take(in.byte() % 8);
  const std::size_t at = noise.empty() ? 0 : 4 + in.byte() % 60;
  std::memcpy(bytes.data() + at, noise.data(), noise.size());
  const std::size_t length = size >= 128 ? sizeof request : size % (bytes.size() + 1);
  HostileWorld::send_raw(program, std::span(bytes).first(length), kinds);
  if (size % 4 == 0) world.kernels().host_turn();
}

void post_call(Played& program, sim::FuzzInput& in) {
  constexpr call::Op ops[] = {call::Op::fork,         call::Op::open,  call::Op::adopted,
                              call::Op::adopt_handle, call::Op::bind,  call::Op::listen,
                              call::Op::connect,      call::Op::close, call::Op::nothing};
  const u32 slot = 1 + in.byte() % 3;
  const call::KernelSocket& line = program.line(slot);
  call::CallSlot c = slot_call(ops[in.byte() % std::size(ops)], slot,
                               line.generation + (line.state == call::SocketState::free ? 1 : 0));
  if (c.op == call::Op::adopt_handle) c.a[0] = program.line(1 + in.byte() % 3).handle;
  if (c.op == call::Op::bind) c.a[1] = HostileWorld::first_port + in.byte() % 4u;
  if (c.op == call::Op::connect) c.a[0] = cob_address, c.a[1] = 80;
  (void)program.post(c, in.byte() % Played::threads);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  quiet_log();
  sim::FuzzInput in(data, size);
  HostileWorld world(2, false);
  for (u32 i = 0; i < 200 && !in.empty(); ++i) {
    const u8 what = in.byte();
    Played& program = world.program(what / 8);
    switch (what % 8) {
      case 0:
      case 1:
      case 2:
        say(world, program, in);
        break;
      case 3:
        if (program.attached()) post_call(program, in);
        break;
      case 4:
        (void)program.take_answers();
        break;
      case 5:
        world.announce_child(program);
        break;
      case 6:
        if (in.byte() % 2 == 0) {
          world.kernels().attach(program, in.byte() % Played::threads);
        } else {
          world.kernels().host_turn();
        }
        break;
      default:
        program.die();
    }
    world.turns();
  }
  world.check();
  return 0;
}
