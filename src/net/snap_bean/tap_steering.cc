// The steering program, assembled by hand, and its maps; see tap_steering.h. bpf(2),
// bpf-helpers(7). The supervisor's thread.
#include "net/snap_bean/tap_steering.h"

#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "net/snap_bean/bpf.h"
#include "net/wire/bytes.h"

namespace cob::net {
namespace {

Result<Fd> create_map(const char* name, u32 value_bytes) {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = 4;
  attributes.value_size = value_bytes;
  attributes.max_entries = 1;
  attributes.map_flags = BPF_F_MMAPABLE;
  std::strncpy(attributes.map_name, name, sizeof attributes.map_name - 1);
  Fd map(static_cast<int>(bpf::call(BPF_MAP_CREATE, attributes)));
  if (!map.valid()) return Error::from_errno("BPF_MAP_CREATE");
  return map;
}

}  // namespace

// Offsets below: Ethernet type, then the IPv4 header, from the stack's -48 on; the ports at -8. Of
// IPv6 from there on: next header and hop limit, both addresses, the ports; what has extension
// headers is no TCP here.
Result<Fd> TapSteering::load(FdRef image_map, FdRef group_map) {
  enum Label : u8 { other, found, ipv6, steer };
  constexpr int header = -48, ip = header + 2, ports = -8;
  constexpr i32 start_of_ethernet = 0;  // BPF_HDR_START_MAC
  static_assert(offsetof(Image, port) + 1 < 32'768, "reached by an instruction's offset");
  constexpr int ipv6_from = 20, ipv6_input = header + 2, ipv6_ports = ipv6_input + 32;
  bpf::Assembler a;
  const auto fetch = [&](int to, i32 bytes) {  // from offset r2 of the frame
    a.move(BPF_REG_1, BPF_REG_6);
    a.move(BPF_REG_3, BPF_REG_10);
    a.alu(BPF_ADD, BPF_REG_3, to);
    a.set(BPF_REG_4, bytes);
    a.set(BPF_REG_5, start_of_ethernet);
    a.call(BPF_FUNC_skb_load_bytes_relative);
    a.jump(BPF_JNE, BPF_REG_0, 0, other);
  };
  const auto add_hash = [&](int input, int at) {  // r9 ^= the table of input byte `input`
    a.load(BPF_B, BPF_REG_1, BPF_REG_10, at);
    a.alu(BPF_LSH, BPF_REG_1, 2);
    a.move(BPF_REG_2, BPF_REG_8);
    a.alu_register(BPF_ADD, BPF_REG_2, BPF_REG_1);
    a.alu(BPF_ADD, BPF_REG_2, static_cast<i32>(offsetof(Image, toeplitz)) + input * 1'024);
    a.load(BPF_W, BPF_REG_3, BPF_REG_2, 0);
    a.alu_register(BPF_XOR, BPF_REG_9, BPF_REG_3);
  };
  a.move(BPF_REG_6, BPF_REG_1);
  a.set(BPF_REG_2, 12);
  fetch(header, 22);
  a.load(BPF_H, BPF_REG_1, BPF_REG_10, header);
  a.jump(BPF_JEQ, BPF_REG_1, swap_to_network(u16{0x86dd}), ipv6);
  a.jump(BPF_JNE, BPF_REG_1, swap_to_network(u16{0x0800}), other);
  a.load(BPF_B, BPF_REG_1, BPF_REG_10, ip);
  a.move(BPF_REG_7, BPF_REG_1);
  a.alu(BPF_AND, BPF_REG_1, 0xf0);
  a.jump(BPF_JNE, BPF_REG_1, 0x40, other);
  a.alu(BPF_AND, BPF_REG_7, 15);
  a.alu(BPF_LSH, BPF_REG_7, 2);
  a.jump(BPF_JLT, BPF_REG_7, 20, other);
  a.load(BPF_H, BPF_REG_1, BPF_REG_10, ip + 6);  // a fragment
  a.alu(BPF_AND, BPF_REG_1, swap_to_network(u16{0x3fff}));
  a.jump(BPF_JNE, BPF_REG_1, 0, other);
  a.load(BPF_B, BPF_REG_1, BPF_REG_10, ip + 9);
  a.jump(BPF_JNE, BPF_REG_1, 6, other);
  a.move(BPF_REG_2, BPF_REG_7);
  a.alu(BPF_ADD, BPF_REG_2, 14);
  fetch(ports, 4);
  // The hash: a table for each byte of both addresses and both ports.
  a.map_value(BPF_REG_8, image_map);
  a.set(BPF_REG_9, 0);
  for (int i = 0; i < 12; ++i) add_hash(i, i < 8 ? ip + 12 + i : ports + i - 8);
  a.load(BPF_H, BPF_REG_1, BPF_REG_10, ports + 2);
  a.jump(BPF_JA, 0, 0, steer);
  a.place(ipv6);
  a.set(BPF_REG_2, ipv6_from);
  fetch(header, 38);
  a.load(BPF_B, BPF_REG_1, BPF_REG_10, header);
  a.jump(BPF_JNE, BPF_REG_1, 6, other);
  a.map_value(BPF_REG_8, image_map);
  a.set(BPF_REG_9, 0);
  for (int i = 0; i < static_cast<int>(Toeplitz::most_bytes); ++i) add_hash(i, ipv6_input + i);
  a.load(BPF_H, BPF_REG_1, BPF_REG_10, ipv6_ports + 2);
  a.place(steer);
  a.alu(BPF_AND, BPF_REG_9, flow_groups - 1);
  a.from_network16(BPF_REG_1);
  a.alu(BPF_LSH, BPF_REG_1, 1);
  a.move(BPF_REG_2, BPF_REG_8);
  a.alu_register(BPF_ADD, BPF_REG_2, BPF_REG_1);
  a.load(BPF_H, BPF_REG_3, BPF_REG_2, offsetof(Image, port));
  a.jump(BPF_JNE, BPF_REG_3, SteeringMemory::no_table, found);
  a.load(BPF_H, BPF_REG_3, BPF_REG_8, offsetof(Image, default_table));
  a.place(found);
  a.jump(BPF_JGE, BPF_REG_3, steering_tables, other);
  a.alu(BPF_LSH, BPF_REG_3, std::countr_zero(flow_groups));
  a.alu_register(BPF_ADD, BPF_REG_3, BPF_REG_9);
  a.map_value(BPF_REG_4, group_map);
  a.alu_register(BPF_ADD, BPF_REG_4, BPF_REG_3);
  a.load(BPF_B, BPF_REG_0, BPF_REG_4, 0);
  a.exit();
  a.place(other);
  a.map_value(BPF_REG_8, image_map);
  a.load(BPF_H, BPF_REG_0, BPF_REG_8, offsetof(Image, first));
  a.exit();
  const std::vector<bpf_insn> code = a.finish();

  return bpf::load_program(BPF_PROG_TYPE_SOCKET_FILTER, "cob_steering", code);
}

TapSteering::TapSteering(Mapping source, Fd image_map, Mapping image, Fd group_map, Mapping groups,
                         Fd program)
    : source_(std::move(source)),
      image_map_(std::move(image_map)),
      group_map_(std::move(group_map)),
      program_(std::move(program)),
      image_(std::move(image)),
      groups_(std::move(groups)) {}

Result<TapSteering> TapSteering::create(const SteeringWriter& tables) {
  Mapping source =
      TRY(map_foreign(tables.fd(), sizeof(SteeringMemory), Writers::creator, Access::read));
  Fd image_map = TRY(create_map("cob_ports", sizeof(Image)));
  Fd group_map = TRY(create_map("cob_groups", sizeof(Groups)));
  Mapping image = TRY(Mapping::map(image_map.ref(), sizeof(Image), Access::read_write));
  Mapping groups = TRY(Mapping::map(group_map.ref(), sizeof(Groups), Access::read_write));
  Fd program = TRY(load(image_map.ref(), group_map.ref()));
  TapSteering steering(std::move(source), std::move(image_map), std::move(image),
                       std::move(group_map), std::move(groups), std::move(program));
  // By linearity: the hash with one byte of its input set, and all others 0.
  const Toeplitz toeplitz(steering.source().header.key);
  for (u32 byte = 0; byte < Toeplitz::most_bytes; ++byte) {
    for (u32 value = 0; value < 256; ++value) {
      std::array<u8, Toeplitz::most_bytes> input{};
      input[byte] = static_cast<u8>(value);
      Ipv6Bytes from, to;
      std::memcpy(from.data(), input.data(), from.size());
      std::memcpy(to.data(), input.data() + from.size(), to.size());
      const auto port = [&](u32 at) {
        return Port(static_cast<u16>(input[at] << 8 | input[at + 1]));
      };
      steering.image().toeplitz[byte][value] = toeplitz.hash(from, port(32), to, port(34));
    }
  }
  steering.mirror();
  return steering;
}

Result<void> TapSteering::attach(FdRef queue) const {
  int fd = program_.get();
  if (::ioctl(queue.get(), TUNSETSTEERINGEBPF, &fd) != 0)
    return Error::from_errno("TUNSETSTEERINGEBPF");
  return {};
}

void TapSteering::mirror() {
  for (std::size_t t = 0; t < steering_tables; ++t) {
    const auto& from = source().table[t];
    if (std::memcmp(groups()[t], from, flow_groups) != 0)
      std::memcpy(groups()[t], from, flow_groups);
  }
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  __atomic_store_n(&image().default_table, u16{source().header.default_table}, __ATOMIC_RELEASE);
  const auto& ports = source().port[std::to_underlying(SteeredProtocol::tcp)];
  for (std::size_t p = 0; p < 65'536; ++p) {
    const u16 table = ports[p];
    if (image().port[p] != table) __atomic_store_n(&image().port[p], table, __ATOMIC_RELEASE);
  }
}

void TapSteering::set_first(KernelId kernel) {
  __atomic_store_n(&image().first, kernel.value, __ATOMIC_RELEASE);
}

Result<u32> TapSteering::run(std::span<const std::byte> frame) const {
  return bpf::run_program(program_.ref(), frame);
}

}  // namespace cob::net
