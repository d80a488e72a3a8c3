// The XDP program, assembled by hand, its map and its link; see xdp_program.h. The supervisor's
// thread.
#include "net/snap_bean/xdp_program.h"

#include <linux/if_link.h>

#include <cstring>
#include <utility>

#include "net/snap_bean/bpf.h"
#include "net/wire/arp.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmpv6.h"
#include "net/wire/ipv4.h"

namespace cob::net {
namespace {

// ARP (RFC 826) for the cob's address, and IPv4 to it: all of it, so that nothing of the cob's is
// forwarded or refused by Linux. Likewise of `ipv6`, if there is one, and who asks for it or claims
// it (RFC 4861 sections 4.3 and 4.4, whatever their destination).
Result<Fd> load(Ipv4Address address, const Ipv6Address& ipv6, FdRef sockets) {
  enum Label : u8 { pass, compare, arp, six, discovery, ask_target, give };
  constexpr int destination_ipv6 = sizeof(EthernetHeader) + offsetof(Ipv6Header, destination);
  constexpr int icmp = sizeof(EthernetHeader) + sizeof(Ipv6Header);
  constexpr int target = icmp + static_cast<int>(sizeof(Icmpv6Header));
  constexpr int type = offsetof(EthernetHeader, type), payload = sizeof(EthernetHeader);
  const u32 ours = swap_to_network(address.value);
  bpf::Assembler a;
  const auto has = [&](int bytes) {  // r2: the frame, r3: its end
    a.move(BPF_REG_4, BPF_REG_2);
    a.alu(BPF_ADD, BPF_REG_4, bytes);
    a.jump_register(BPF_JGT, BPF_REG_4, BPF_REG_3, pass);
  };
  const auto must_be_ours = [&](int at, u8 otherwise) {
    for (int i = 0; i < 16; i += 4) {
      u32 word;
      std::memcpy(&word, ipv6.bytes.data() + i, sizeof word);
      a.load(BPF_W, BPF_REG_5, BPF_REG_2, at + i);
      a.jump32(BPF_JNE, BPF_REG_5, word, otherwise);
    }
  };
  a.move(BPF_REG_6, BPF_REG_1);
  a.load(BPF_W, BPF_REG_2, BPF_REG_1, offsetof(xdp_md, data));
  a.load(BPF_W, BPF_REG_3, BPF_REG_1, offsetof(xdp_md, data_end));
  has(payload + static_cast<int>(sizeof(Ipv4Header)));
  a.load(BPF_H, BPF_REG_5, BPF_REG_2, type);
  a.jump(BPF_JEQ, BPF_REG_5, swap_to_network(u16{ethernet_type_arp}), arp);
  if (!ipv6.is_any()) a.jump(BPF_JEQ, BPF_REG_5, swap_to_network(u16{ethernet_type_ipv6}), six);
  a.jump(BPF_JNE, BPF_REG_5, swap_to_network(u16{ethernet_type_ipv4}), pass);
  a.load(BPF_W, BPF_REG_5, BPF_REG_2, payload + int{offsetof(Ipv4Header, destination)});
  a.jump(BPF_JA, 0, 0, compare);
  a.place(arp);
  has(payload + static_cast<int>(sizeof(ArpHeader)));
  a.load(BPF_W, BPF_REG_5, BPF_REG_2, payload + int{offsetof(ArpHeader, target)});
  a.place(compare);
  a.jump32(BPF_JNE, BPF_REG_5, ours, pass);
  if (!ipv6.is_any()) {
    a.jump(BPF_JA, 0, 0, give);
    a.place(six);
    has(icmp);
    must_be_ours(destination_ipv6, discovery);
    a.jump(BPF_JA, 0, 0, give);
    a.place(discovery);
    a.load(BPF_B, BPF_REG_5, BPF_REG_2, payload + int{offsetof(Ipv6Header, next_header)});
    a.jump(BPF_JNE, BPF_REG_5, ip_protocol_icmpv6, pass);
    has(target + 16);
    a.load(BPF_B, BPF_REG_5, BPF_REG_2, icmp);
    a.jump(BPF_JEQ, BPF_REG_5, icmpv6_neighbor_advertisement, ask_target);
    a.jump(BPF_JNE, BPF_REG_5, icmpv6_neighbor_solicitation, pass);
    a.place(ask_target);
    must_be_ours(target, pass);
    a.place(give);
  }
  a.map(BPF_REG_1, sockets);
  a.load(BPF_W, BPF_REG_2, BPF_REG_6, offsetof(xdp_md, rx_queue_index));
  a.set(BPF_REG_3, XDP_DROP);  // if the queue has no socket
  a.call(BPF_FUNC_redirect_map);
  a.exit();
  a.place(pass);
  a.set(BPF_REG_0, XDP_PASS);
  a.exit();
  return bpf::load_program(BPF_PROG_TYPE_XDP, "cob_uplink", a.finish());
}

}  // namespace

Result<XdpProgram> XdpProgram::create(Ipv4Address address, u32 queues, const Ipv6Address& ipv6) {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_XSKMAP;
  attributes.key_size = attributes.value_size = sizeof(u32);
  attributes.max_entries = queues;
  std::strncpy(attributes.map_name, "cob_queues", sizeof attributes.map_name - 1);
  Fd sockets(static_cast<int>(bpf::call(BPF_MAP_CREATE, attributes)));
  if (!sockets.valid()) return Error::from_errno("the map of AF_XDP sockets");
  Fd program = TRY(load(address, ipv6, sockets.ref()));
  return XdpProgram(std::move(sockets), std::move(program));
}

Result<void> XdpProgram::attach(u32 interface, Mode mode) {
  bpf_attr attributes{};
  attributes.link_create.prog_fd = static_cast<u32>(program_.get());
  attributes.link_create.target_ifindex = interface;
  attributes.link_create.attach_type = BPF_XDP;
  attributes.link_create.flags = mode == Mode::native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
  link_ = Fd(static_cast<int>(bpf::call(BPF_LINK_CREATE, attributes)));
  if (!link_.valid()) return Error::from_errno("BPF_LINK_CREATE");
  return {};
}

Result<void> XdpProgram::give(u32 queue, FdRef socket) const {
  const u32 value = static_cast<u32>(socket.get());
  bpf_attr attributes{};
  attributes.map_fd = static_cast<u32>(sockets_.get());
  attributes.key = reinterpret_cast<u64>(&queue);
  attributes.value = reinterpret_cast<u64>(&value);
  if (bpf::call(BPF_MAP_UPDATE_ELEM, attributes) != 0)
    return Error::from_errno("BPF_MAP_UPDATE_ELEM");
  return {};
}

Result<u32> XdpProgram::run(std::span<const std::byte> frame) const {
  return bpf::run_program(program_.ref(), frame);
}

}  // namespace cob::net
