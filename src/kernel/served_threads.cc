// Kernel, threads of one program that several kernels serve (`cob run --spread-threads`);
// docs/moving.md, 9. Model: to a kernel such a program is as any other, attached for those of its
// threads that use something here; it tells which of them are served here, and which of them were
// ordered elsewhere go by themselves. Kernel's loop only.
#include "base/doorbell.h"
#include "base/log.h"
#include "kernel/kernel.h"

namespace cob::kernel {

// Which of its threads this kernel serves, as the program tells it.
void Kernel::show_threads(Program& program, BoardProgram& row) const {
  row.several = program.several() ? 1 : 0;
  u32 shown = 0;
  for (std::size_t i = 0; row.several != 0 && i < program.threads().size(); ++i) {
    const call::ThreadArmed& thread = program.arena().theirs().armed[i];
    const u32 tid = load(thread.tid);
    if (tid != 0 && load(thread.home) != 0 && shown < board_threads) row.served[shown++] = tid;
  }
  for (; shown < board_threads; ++shown) row.served[shown] = 0;
}

// The thread shall be served by `to`: it goes when it next calls or wakes, so it is rung.
void Kernel::order_thread(u32 tid, KernelId to) {
  if (tid == 0 || to.value >= config_.kernels || !islands_.together(to, KernelId(config_.kernel)))
    return;
  for (Program* program : attached_) {
    if (!program->several()) continue;
    for (std::size_t i = 0; i < program->threads().size(); ++i) {
      const call::ThreadArmed& thread = program->arena().theirs().armed[i];
      if (load(thread.tid) != tid || load(thread.home) == 0) continue;
      u32& order = program->arena().ours().consumed[i].home;
      publish(order, (order & 0xffff'0000u) + 0x1'0000u + (u32{to.value} + 1));
      const FdRef button = program->threads()[i].button.ref();
      if (button.valid()) cob::ring(button);
      return;
    }
  }
}

}  // namespace cob::kernel
