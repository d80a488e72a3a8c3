// What loading small eBPF programs takes: bpf(2), and an assembler for programs written by hand
// (RFC 9669). Model: programs of a hundred instructions or less, so that nothing is needed at build
// or run time but Linux itself. Values; any thread.
#pragma once

#include <linux/bpf.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/types.h"

namespace cob::net::bpf {

// bpf(2): -1 and errno on failure.
long call(bpf_cmd command, bpf_attr& attributes);

// `name`: at most 15 bytes. EPERM: needs CAP_BPF, or root.
Result<Fd> load_program(bpf_prog_type type, const char* name, std::span<const bpf_insn> code);

// What the program answers to a frame, by BPF_PROG_TEST_RUN. For tests.
Result<u32> run_program(FdRef program, std::span<const std::byte> frame);

// One instruction after another; jumps to labels are set by finish().
class Assembler {
 public:
  static constexpr std::size_t max_labels = 8;

  void emit(u8 code, u8 destination, u8 source, std::int16_t offset, i32 immediate) {
    bpf_insn instruction{};
    instruction.code = code;
    instruction.dst_reg = destination & 15;
    instruction.src_reg = source & 15;
    instruction.off = offset;
    instruction.imm = immediate;
    code_.push_back(instruction);
  }
  void move(u8 to, u8 from) { emit(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0); }
  void set(u8 to, i32 value) { emit(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, value); }
  void alu(u8 operation, u8 to, i32 value) { emit(BPF_ALU64 | operation | BPF_K, to, 0, 0, value); }
  void alu_register(u8 operation, u8 to, u8 from) {
    emit(BPF_ALU64 | operation | BPF_X, to, from, 0, 0);
  }
  void load(u8 size, u8 to, u8 from, int offset) {
    emit(BPF_LDX | BPF_MEM | size, to, from, static_cast<std::int16_t>(offset), 0);
  }
  void from_network16(u8 reg) { emit(BPF_ALU | BPF_END | BPF_TO_BE, reg, 0, 0, 16); }
  void map(u8 to, FdRef map) { load_map(to, BPF_PSEUDO_MAP_FD, map); }
  void map_value(u8 to, FdRef map) { load_map(to, BPF_PSEUDO_MAP_VALUE, map); }
  void call(i32 helper) { emit(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }
  void exit() { emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }
  // `label`: < max_labels, placed behind.
  void jump(u8 condition, u8 reg, i32 value, u8 label) {
    jumps_.push_back({code_.size(), label});
    emit(BPF_JMP | condition | BPF_K, reg, 0, 0, value);
  }
  // The low 32 bits are compared, without sign.
  void jump32(u8 condition, u8 reg, u32 value, u8 label) {
    jumps_.push_back({code_.size(), label});
    emit(BPF_JMP32 | condition | BPF_K, reg, 0, 0, static_cast<i32>(value));
  }
  void jump_register(u8 condition, u8 reg, u8 other, u8 label) {
    jumps_.push_back({code_.size(), label});
    emit(BPF_JMP | condition | BPF_X, reg, other, 0, 0);
  }
  void place(u8 label) { places_[label] = code_.size(); }
  std::vector<bpf_insn> finish() {
    for (const auto& [at, label] : jumps_)
      code_[at].off = static_cast<std::int16_t>(places_[label] - at - 1);
    return code_;
  }

 private:
  void load_map(u8 to, u8 what, FdRef map) {
    emit(BPF_LD | BPF_DW | BPF_IMM, to, what, 0, map.get());
    emit(0, 0, 0, 0, 0);
  }

  std::vector<bpf_insn> code_;
  std::vector<std::pair<std::size_t, u8>> jumps_;
  std::array<std::size_t, max_labels> places_{};
};

}  // namespace cob::net::bpf
