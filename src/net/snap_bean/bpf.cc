// bpf(2) itself; see bpf.h. Any thread.
#include "net/snap_bean/bpf.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace cob::net::bpf {

long call(bpf_cmd command, bpf_attr& attributes) {
  return ::syscall(SYS_bpf, command, &attributes, sizeof attributes);
}

Result<Fd> load_program(bpf_prog_type type, const char* name, std::span<const bpf_insn> code) {
  bpf_attr attributes{};
  attributes.prog_type = type;
  attributes.insns = reinterpret_cast<u64>(code.data());
  attributes.insn_cnt = static_cast<u32>(code.size());
  attributes.license = reinterpret_cast<u64>("Apache-2.0");
  std::strncpy(attributes.prog_name, name, sizeof attributes.prog_name - 1);
  Fd program(static_cast<int>(call(BPF_PROG_LOAD, attributes)));
  if (!program.valid()) return Error::from_errno("BPF_PROG_LOAD");
  return program;
}

Result<u32> run_program(FdRef program, std::span<const std::byte> frame) {
  bpf_attr attributes{};
  attributes.test.prog_fd = static_cast<u32>(program.get());
  attributes.test.data_in = reinterpret_cast<u64>(frame.data());
  attributes.test.data_size_in = static_cast<u32>(frame.size());
  if (call(BPF_PROG_TEST_RUN, attributes) != 0) return Error::from_errno("BPF_PROG_TEST_RUN");
  return u32{attributes.test.retval};
}

}  // namespace cob::net::bpf
