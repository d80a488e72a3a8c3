// The maps and the program of hermes.h, loaded by bpf(2) itself: no compiler for BPF is needed.
// The program's text stands beside each instruction.
// Loaded once by the server's main thread; used by all of its workers.
#include "bench/connections/hermes.h"

#include <fmt/format.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#ifndef SO_ATTACH_REUSEPORT_EBPF
#define SO_ATTACH_REUSEPORT_EBPF 52
#endif

namespace cob::bench {

namespace {

constexpr i64 hang_ns = 10'000'000;

Fd bpf(bpf_cmd command, bpf_attr& attributes) {
  return Fd(static_cast<int>(syscall(SYS_bpf, command, &attributes, sizeof attributes)));
}

Fd make_map(bpf_map_type type, u32 value_bytes, u32 entries, u32 flags) {
  bpf_attr attributes{};
  attributes.map_type = type;
  attributes.key_size = 4;
  attributes.value_size = value_bytes;
  attributes.max_entries = entries;
  attributes.map_flags = flags;
  return bpf(BPF_MAP_CREATE, attributes);
}

using Code = std::vector<bpf_insn>;

bpf_insn instruction(int code, int destination, int source, int offset, int immediate) {
  bpf_insn one{};
  one.code = static_cast<u8>(code);
  one.dst_reg = static_cast<u8>(destination & 0xf);
  one.src_reg = static_cast<u8>(source & 0xf);
  one.off = static_cast<short>(offset);
  one.imm = immediate;
  return one;
}

void move(Code& code, int to, int from) {
  code.push_back(instruction(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0));
}
void calculate(Code& code, int operation, int to, int immediate) {
  code.push_back(instruction(BPF_ALU64 | operation | BPF_K, to, 0, 0, immediate));
}
void load_map(Code& code, int to, const Fd& map) {
  code.push_back(instruction(BPF_LD | BPF_DW | BPF_IMM, to, BPF_PSEUDO_MAP_FD, 0, map.get()));
  code.push_back({});
}
// r2 = address of the four bytes below the frame pointer.
void key_address(Code& code, int to) {
  move(code, to, BPF_REG_10);
  calculate(code, BPF_ADD, to, -4);
}

// SK_PASS with no socket chosen leaves the choice to the kernel's own hash.
Code selector(const Fd& bitmap, const Fd& sockets, std::size_t workers) {
  Code code;
  std::vector<std::size_t> to_end;
  const auto jump_to_end = [&](int condition, int reg, int value) {
    to_end.push_back(code.size());
    code.push_back(instruction(BPF_JMP | condition | BPF_K, reg, 0, 0, value));
  };
  move(code, BPF_REG_6, BPF_REG_1);                                             // r6 = context
  code.push_back(instruction(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0));  // key = 0
  load_map(code, BPF_REG_1, bitmap);
  key_address(code, BPF_REG_2);
  code.push_back(instruction(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem));
  jump_to_end(BPF_JEQ, BPF_REG_0, 0);
  code.push_back(instruction(BPF_LDX | BPF_MEM | BPF_DW, BPF_REG_7, BPF_REG_0, 0, 0));  // r7 = bits
  code.push_back(instruction(BPF_LDX | BPF_MEM | BPF_W, BPF_REG_8, BPF_REG_6,
                             offsetof(sk_reuseport_md, hash), 0));  // r8 = hash
  calculate(code, BPF_MOV, BPF_REG_9, 0);                           // r9 = fit workers
  for (std::size_t i = 0; i < workers; ++i) {
    move(code, BPF_REG_1, BPF_REG_7);
    calculate(code, BPF_RSH, BPF_REG_1, static_cast<int>(i));
    calculate(code, BPF_AND, BPF_REG_1, 1);
    code.push_back(instruction(BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_9, BPF_REG_1, 0, 0));
  }
  jump_to_end(BPF_JEQ, BPF_REG_9, 0);
  code.push_back(instruction(BPF_ALU64 | BPF_MUL | BPF_X, BPF_REG_8, BPF_REG_9, 0, 0));
  calculate(code, BPF_RSH, BPF_REG_8, 32);  // r8 = which of the fit ones
  std::vector<std::size_t> to_select;
  for (std::size_t i = 0; i < workers; ++i) {
    move(code, BPF_REG_1, BPF_REG_7);
    calculate(code, BPF_RSH, BPF_REG_1, static_cast<int>(i));
    calculate(code, BPF_AND, BPF_REG_1, 1);
    code.push_back(instruction(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_1, 0, 3, 0));  // not fit: next
    calculate(code, BPF_MOV, BPF_REG_2, static_cast<int>(i));
    to_select.push_back(code.size());
    code.push_back(instruction(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_8, 0, 0, 0));  // this one
    calculate(code, BPF_SUB, BPF_REG_8, 1);
  }
  jump_to_end(BPF_JA, 0, 0);
  for (const std::size_t at : to_select) code[at].off = static_cast<short>(code.size() - at - 1);
  code.push_back(instruction(BPF_STX | BPF_MEM | BPF_W, BPF_REG_10, BPF_REG_2, -4, 0));
  move(code, BPF_REG_1, BPF_REG_6);
  load_map(code, BPF_REG_2, sockets);
  key_address(code, BPF_REG_3);
  calculate(code, BPF_MOV, BPF_REG_4, 0);
  code.push_back(instruction(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_sk_select_reuseport));
  for (const std::size_t at : to_end) code[at].off = static_cast<short>(code.size() - at - 1);
  calculate(code, BPF_MOV, BPF_REG_0, SK_PASS);
  code.push_back(instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
  return code;
}

Fd load(const Code& code, std::string& log) {
  bpf_attr attributes{};
  attributes.prog_type = BPF_PROG_TYPE_SK_REUSEPORT;
  attributes.insns = reinterpret_cast<u64>(code.data());
  attributes.insn_cnt = static_cast<u32>(code.size());
  static constexpr char license[] = "Apache-2.0";
  attributes.license = reinterpret_cast<u64>(license);
  log.resize(4'096);
  attributes.log_buf = reinterpret_cast<u64>(log.data());
  attributes.log_size = static_cast<u32>(log.size());
  attributes.log_level = 1;
  Fd program = bpf(BPF_PROG_LOAD, attributes);
  if (!program.valid() && errno == ENOSPC) {
    attributes.log_level = 0;
    attributes.log_buf = 0;
    attributes.log_size = 0;
    program = bpf(BPF_PROG_LOAD, attributes);
  }
  return program;
}

}  // namespace

u64 fit_workers(std::span<const WorkerState> workers, i64 now_ns) {
  u64 fit = 0;
  for (std::size_t i = 0; i < workers.size(); ++i) {
    const WorkerState& worker = workers[i];
    if (worker.pending == 0 || now_ns - worker.looked_ns < hang_ns) fit |= u64{1} << i;
  }
  for (const auto load : {&WorkerState::connections, &WorkerState::pending}) {
    i64 sum = 0, count = 0;
    for (std::size_t i = 0; i < workers.size(); ++i) {
      if ((fit >> i & 1) == 0) continue;
      sum += workers[i].*load;
      ++count;
    }
    u64 left = 0;
    for (std::size_t i = 0; i < workers.size(); ++i) {
      // More than half above the mean, and by more than one: load > 1.5 * sum / count + 1.
      if ((fit >> i & 1) != 0 && (workers[i].*load - 1) * 2 * count <= 3 * sum) left |= u64{1} << i;
    }
    if (left != 0) fit = left;
  }
  return fit;
}

Outcome<Hermes> Hermes::attach(std::span<const int> listeners) {
  using Made = Outcome<Hermes>;
  const auto failed = [](const char* what) {
    return Made::failed(fmt::format("{}: {}", what, std::strerror(errno)));
  };
  if (listeners.size() > most_workers) return Made::failed("at most 32 workers");
  Hermes hermes;
  hermes.lines_ = std::vector<Line>(listeners.size());
  hermes.bitmap_map_ = make_map(BPF_MAP_TYPE_ARRAY, 8, 1, BPF_F_MMAPABLE);
  if (!hermes.bitmap_map_.valid()) return failed("bpf(2), array map");
  hermes.socket_map_ =
      make_map(BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, 8, static_cast<u32>(listeners.size()), 0);
  if (!hermes.socket_map_.valid()) return failed("bpf(2), socket map");
  const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* mapped =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, hermes.bitmap_map_.get(), 0);
  if (mapped == MAP_FAILED) return failed("mmap of a map");
  hermes.bitmap_ = static_cast<u64*>(mapped);
  for (u32 i = 0; i < listeners.size(); ++i) {
    const u64 socket = static_cast<u64>(listeners[i]);
    bpf_attr attributes{};
    attributes.map_fd = static_cast<u32>(hermes.socket_map_.get());
    attributes.key = reinterpret_cast<u64>(&i);
    attributes.value = reinterpret_cast<u64>(&socket);
    if (syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attributes, sizeof attributes) != 0)
      return failed("bpf(2), a listener into its map");
  }
  std::string log;
  hermes.program_ = load(selector(hermes.bitmap_map_, hermes.socket_map_, listeners.size()), log);
  if (!hermes.program_.valid()) {
    return Made::failed(fmt::format("bpf(2), selector: {} {}", std::strerror(errno), log.c_str()));
  }
  const int program = hermes.program_.get();
  if (setsockopt(listeners[0], SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program, sizeof program) != 0)
    return failed("SO_ATTACH_REUSEPORT_EBPF");
  hermes.publish(0);
  return Made(std::move(hermes));
}

Hermes::Hermes(Hermes&& other) noexcept
    : lines_(std::move(other.lines_)),
      bitmap_map_(std::move(other.bitmap_map_)),
      socket_map_(std::move(other.socket_map_)),
      program_(std::move(other.program_)),
      bitmap_(std::exchange(other.bitmap_, nullptr)) {}

Hermes::~Hermes() {
  if (bitmap_ != nullptr) munmap(bitmap_, static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
}

void Hermes::begins(std::size_t worker, i64 now_ns, i64 events) {
  lines_[worker].looked_ns.store(now_ns, std::memory_order_relaxed);
  lines_[worker].pending.store(events, std::memory_order_relaxed);
}
void Hermes::handled(std::size_t worker) {
  std::atomic<i64>& pending = lines_[worker].pending;
  pending.store(pending.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
}
void Hermes::holds(std::size_t worker, i64 connections) {
  lines_[worker].connections.store(connections, std::memory_order_relaxed);
}

void Hermes::publish(i64 now_ns) {
  WorkerState states[most_workers];
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    states[i] = {.looked_ns = lines_[i].looked_ns.load(std::memory_order_relaxed),
                 .pending = lines_[i].pending.load(std::memory_order_relaxed),
                 .connections = lines_[i].connections.load(std::memory_order_relaxed)};
  }
  const u64 fit = fit_workers(std::span(states, lines_.size()), now_ns);
  std::atomic_ref<u64> shown(*bitmap_);
  if (shown.load(std::memory_order_relaxed) != fit) shown.store(fit, std::memory_order_relaxed);
}

u64 Hermes::shown() const { return std::atomic_ref<u64>(*bitmap_).load(std::memory_order_relaxed); }

}  // namespace cob::bench
