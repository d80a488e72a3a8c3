// FakeKernel: the kernel's half of the call channel for the shim's tests: one arena, connections
// that loop back inside the program, echo and silence as peers. Model: a thread that takes calls in
// order and speaks docs/calls.md to the letter. Its thread alone writes the kernel side; tests look
// only through the shim.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "call/layout.h"

namespace cob::shim {

class FakeKernel {
 public:
  // Takes the kernel's end of a program's liveness socket. `number`: which of the two that a cob of
  // such kernels has.
  explicit FakeKernel(int liveness, unsigned short number = 0);
  ~FakeKernel();
  FakeKernel(const FakeKernel&) = delete;
  FakeKernel& operator=(const FakeKernel&) = delete;

  void die();  // as kill -9
  unsigned closes() const { return closes_; }
  unsigned sleeps() const { return sleeps_; }
  std::atomic<bool> hold_data{false};        // received bytes are not passed on while set
  std::atomic<bool> hold_space{false};       // sent bytes are not acknowledged while set
  std::atomic<bool> no_bells{false};         // threads get none, as without spare descriptors
  std::atomic<bool> withdraw_offers{false};  // take the next offers back at once

  // Answers the calls of files; on the kernel's thread, which holds `files_mutex` meanwhile.
  // `value`: of the reply.
  std::function<int(FakeKernel&, const call::CallSlot&, call::u64 (&value)[6])> files;
  std::recursive_mutex files_mutex;
  static constexpr char share_path[] = "/played/share";  // number 3
  unsigned take_chunk();  // of those that a program is told something in
  unsigned char* chunk(unsigned number) { return kernel_->chunk[number]; }
  const unsigned char* sent_chunk(unsigned number) const { return program_->chunk[number]; }
  void give_back_sent(unsigned number);
  call::KernelSide& side() { return *kernel_; }
  unsigned begin_file();  // its slot
  void file_changed(unsigned slot) { changed(slot); }
  unsigned generation_of(unsigned slot) { return slots_[slot].generation; }

  static constexpr unsigned address = 0x0a4d0001;
  static constexpr unsigned send_limit = 64 * 1024;

 private:
  struct Slot {
    bool open = false;
    unsigned generation = 0;
    unsigned peer = 0;  // slot of the other end
    unsigned short port = 0;
    bool wants_accept = false, send_closed = false;
    unsigned first_chunk = call::no_chunk, last_chunk = call::no_chunk, fill = 0;
    std::vector<std::byte> in_flight;  // to the peer
    std::deque<unsigned> pending;      // a listener's connections, not offered yet
    unsigned ready_position = 0, ready_ring = 0;
  };

  void run();
  bool hellos();
  bool take_calls();
  void execute(unsigned thread, const call::CallSlot& call);
  void begin(unsigned slot, unsigned generation, call::SocketState state);
  void connect(unsigned slot, unsigned short port);
  bool offer(Slot& listener, unsigned number);
  void close(unsigned slot);
  bool move_bytes(unsigned slot);
  void append(unsigned slot, const std::byte* data, std::size_t bytes);
  void changed(unsigned slot);
  void wake(unsigned waiter);
  void reply(unsigned thread, unsigned sequence, int result, unsigned long long value = 0);
  unsigned take_kernel_slot();

  int liveness_, doorbell_;
  call::KernelSide* kernel_ = nullptr;
  call::ProgramSide* program_ = nullptr;
  int kernel_fd_ = -1, program_fd_ = -1;
  std::map<unsigned, Slot> slots_;
  std::map<unsigned short, unsigned> listeners_;
  std::map<unsigned long long, unsigned> tokens_;
  std::vector<unsigned> free_slots_, free_chunks_;
  unsigned next_slot_ = call::first_kernel_socket, next_chunk_ = 0, next_port_ = 40'000, freed_ = 0;
  int thread_button_[call::max_threads];
  unsigned position_[call::max_threads] = {};
  std::atomic<bool> stop_{false};
  std::atomic<unsigned> closes_{0}, sleeps_{0};
  unsigned arms_ = 1;
  std::thread thread_;
};

}  // namespace cob::shim
