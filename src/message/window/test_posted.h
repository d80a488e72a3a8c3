// For tests: a link of posted writes. What is stored into a PostedWire's shadow is caught store by
// store, and reaches the real memory in order, when the test says so; so do rings.
// Model: the shadow has no rights, so each access faults: a read ends the test, a write is stepped
// over (trap flag) and taken from the page, which is refilled with garbage, so that a
// read-modify-write finds garbage too. sigaction(2), x86-64. One thread. Test code only.
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "base/memory.h"

namespace cob::message::test {

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
inline constexpr bool can_post = true;
#else
inline constexpr bool can_post = false;
#endif

class PostedWire {
 public:
  // `bell`: what a ring that arrives does.
  PostedWire(std::span<std::byte> real, std::function<void()> bell)
      : real_(real), bell_(std::move(bell)) {
    shadow_ = Mapping::anonymous(real.size()).release_value();
    VERIFY(::mprotect(shadow_.data(), shadow_.size(), PROT_NONE) == 0);
    trap().wires.push_back(this);
  }
  PostedWire(const PostedWire&) = delete;
  PostedWire& operator=(const PostedWire&) = delete;
  ~PostedWire() { std::erase(trap().wires, this); }

  std::span<std::byte> shadow() const { return shadow_.bytes(); }
  void ring() { under_way_.push_back({}); }
  std::size_t under_way() const { return under_way_.size(); }
  u64 stores() const { return stores_; }
  // The next `n` arrive.
  void deliver(std::size_t n) {
    for (; n > 0 && !under_way_.empty(); --n) {
      const Posted posted = under_way_.front();
      under_way_.pop_front();
      auto* word = reinterpret_cast<u32*>(real_.data() + posted.offset);
      if (posted.halves == 0) bell_();
      if (posted.halves == 3) {
        __atomic_store_n(reinterpret_cast<u64*>(word), posted.value, __ATOMIC_RELEASE);
      } else if (posted.halves == 1) {
        __atomic_store_n(word, static_cast<u32>(posted.value), __ATOMIC_RELEASE);
      } else if (posted.halves == 2) {
        __atomic_store_n(word + 1, static_cast<u32>(posted.value >> 32), __ATOMIC_RELEASE);
      }
    }
  }
  void deliver_all() { deliver(under_way_.size()); }
  void lose_all() { under_way_.clear(); }

 private:
  struct Posted {
    std::size_t offset = 0;
    u64 value = 0;
    u8 halves = 0;  // 1: the lower one, 2: the upper one, 3: both; 0: a ring
  };
  // The words before, at and after the one that is written.
  using Near = std::array<u64, 3>;

  struct Trap {
    std::vector<PostedWire*> wires;
    PostedWire* wire = nullptr;  // that is being written
    std::byte* word = nullptr;
    Near garbage{};
    std::mt19937_64 random{1};
    struct sigaction former_fault{};

    Trap() {
      struct sigaction action{};
      sigemptyset(&action.sa_mask);
      action.sa_flags = SA_SIGINFO;
      action.sa_sigaction = on_fault;
      VERIFY(::sigaction(SIGSEGV, &action, &former_fault) == 0);
      action.sa_sigaction = on_step;
      VERIFY(::sigaction(SIGTRAP, &action, nullptr) == 0);
    }
  };
  static Trap& trap() {
    static Trap one;
    return one;
  }

  [[noreturn]] static void refuse(const char* what) {
    (void)std::fprintf(stderr, "a window's far memory was %s\n", what);
    std::abort();
  }

#if defined(__x86_64__)
  static constexpr std::uintptr_t page_bytes = 4'096;
  static constexpr greg_t written = 2, trap_flag = 0x100;

  static std::byte* page_of(std::byte* at) {
    return at - reinterpret_cast<std::uintptr_t>(at) % page_bytes;
  }
  static bool same_page(std::byte* a, std::byte* b) { return page_of(a) == page_of(b); }

  static void on_fault(int, siginfo_t* info, void* context) {
    Trap& t = trap();
    auto* at = static_cast<std::byte*>(info->si_addr);
    t.wire = nullptr;
    for (PostedWire* wire : t.wires) {
      const auto bytes = wire->shadow_.bytes();
      if (at >= bytes.data() && at < bytes.data() + bytes.size()) t.wire = wire;
    }
    if (t.wire == nullptr) {  // somebody else's fault, again and for good
      ::sigaction(SIGSEGV, &t.former_fault, nullptr);
      return;
    }
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    if ((registers[REG_ERR] & written) == 0) refuse("read");
    t.word = at - reinterpret_cast<std::uintptr_t>(at) % sizeof(u64);
    (void)::mprotect(page_of(at), page_bytes, PROT_READ | PROT_WRITE);
    for (std::size_t i = 0; i < t.garbage.size(); ++i) {
      std::byte* near = t.word + (i * sizeof(u64)) - sizeof(u64);
      t.garbage[i] = t.random();
      if (same_page(near, at)) std::memcpy(near, &t.garbage[i], sizeof(u64));
    }
    registers[REG_EFL] |= trap_flag;
  }

  static void on_step(int, siginfo_t*, void* context) {
    Trap& t = trap();
    Near now = t.garbage;
    for (std::size_t i = 0; i < now.size(); ++i) {
      const std::byte* near = t.word + (i * sizeof(u64)) - sizeof(u64);
      if (same_page(const_cast<std::byte*>(near), t.word)) std::memcpy(&now[i], near, sizeof(u64));
    }
    if (now[0] != t.garbage[0] || now[2] != t.garbage[2]) refuse("written in no aligned word");
    const u64 changed = now[1] ^ t.garbage[1];
    const u8 lower = static_cast<u32>(changed) != 0 ? 1 : 0;
    const u8 upper = changed >> 32 != 0 ? 2 : 0;
    t.wire->under_way_.push_back(
        {.offset = static_cast<std::size_t>(t.word - t.wire->shadow_.data()),
         .value = now[1],
         .halves = static_cast<u8>(lower | upper)});
    ++t.wire->stores_;
    (void)::mprotect(page_of(t.word), page_bytes, PROT_NONE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~trap_flag;
  }
#else
  static void on_fault(int, siginfo_t*, void*) { refuse("reached on a machine that cannot step"); }
  static void on_step(int, siginfo_t*, void*) {}
#endif

  std::span<std::byte> real_;
  std::function<void()> bell_;
  Mapping shadow_;
  std::deque<Posted> under_way_;
  u64 stores_ = 0;
};

}  // namespace cob::message::test
