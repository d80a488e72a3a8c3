// The passage's two words. Model: passage.h.
#include "shim/passage.h"

namespace cob::shim {

thread_local u32 passage_depth;

namespace {

u32 within;  // threads
u32 closed;

void nap() {
  const timespec time{0, 20'000};
  raw::call(SYS_nanosleep, raw::at(&time), 0);
}

}  // namespace

void enter_passage() {
  const Critical critical;
  if (passage_depth++ > 0) return;
  for (;;) {
    __atomic_add_fetch(&within, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&closed, __ATOMIC_SEQ_CST) == 0) return;
    __atomic_sub_fetch(&within, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&closed, __ATOMIC_SEQ_CST) != 0) nap();
  }
}

void leave_passage() {
  const Critical critical;
  if (--passage_depth == 0) __atomic_sub_fetch(&within, 1, __ATOMIC_SEQ_CST);
}

bool close_passage(i64 patience_ns) {
  __atomic_store_n(&closed, 1U, __ATOMIC_SEQ_CST);
  const i64 until = now_ns() + patience_ns;
  while (__atomic_load_n(&within, __ATOMIC_SEQ_CST) != 0) {
    if (now_ns() >= until) {
      open_passage();
      return false;
    }
    nap();
  }
  return true;
}

void open_passage() { __atomic_store_n(&closed, 0U, __ATOMIC_SEQ_CST); }

void forget_passage() {
  within = closed = 0;
  passage_depth = 0;
}

}  // namespace cob::shim
