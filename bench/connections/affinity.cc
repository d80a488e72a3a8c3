// Steering and watermarks of affinity.h.
// The receiving core chooses the listener by a classic BPF program: socket(7),
// SO_ATTACH_REUSEPORT_CBPF. Attached by the server's main thread; used by all of its workers.
#include "bench/connections/affinity.h"

#include <fmt/format.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "net/snap_bean/steering.h"

namespace cob::bench {

namespace {

// "" or why not.
std::string attach_program(int listener, std::span<sock_filter> code) {
  const sock_fprog program{.len = static_cast<unsigned short>(code.size()), .filter = code.data()};
  if (setsockopt(listener, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) == 0)
    return "";
  return fmt::format("SO_ATTACH_REUSEPORT_CBPF: {}", std::strerror(errno));
}

}  // namespace

bool BusyMark::busy_with(u32 length) {
  average_ += (length - average_) / (2.0 * limit_);
  if (length > limit_ * 3 / 4) {
    busy_ = true;
    average_ = length;
  } else if (average_ < 0.1 * limit_) {
    busy_ = false;
  }
  return busy_;
}

Affinity::Affinity(std::span<const int> listeners, u32 limit)
    : listeners_(listeners.begin(), listeners.end()),
      lines_(listeners.size()),
      marks_(listeners.size(), BusyMark(limit)) {
  for (std::size_t i = 0; i < listeners.size(); ++i)
    bells_.emplace_back(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

Outcome<Affinity> Affinity::attach(std::span<const int> listeners, std::span<const int> cores,
                                   u32 limit) {
  using Made = Outcome<Affinity>;
  // A = the core; compared with each worker's core; else A mod workers.
  std::vector<sock_filter> code{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<u32>(SKF_AD_OFF + SKF_AD_CPU))};
  for (std::size_t i = 0; i < cores.size(); ++i) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<u32>(cores[i]), 0, 1));
    code.push_back(BPF_STMT(BPF_RET | BPF_K, static_cast<u32>(i)));
  }
  code.push_back(BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, static_cast<u32>(listeners.size())));
  code.push_back(BPF_STMT(BPF_RET | BPF_A, 0));
  const std::string wrong = attach_program(listeners[0], code);
  return wrong.empty() ? Made(Affinity(listeners, limit)) : Made::failed(wrong);
}

Outcome<Affinity> Affinity::attach_by_flow_group(std::span<const int> listeners, u32 limit) {
  using Made = Outcome<Affinity>;
  const net::Toeplitz toeplitz;
  const auto group_bits = [&](u32 address, u16 port) {
    const net::Endpoint any{net::Ipv4Address{0}, Port(0)};
    return net::flow_group(toeplitz.hash({net::Ipv4Address{address}, Port(port)}, any));
  };
  // The hash is linear: what each bit that is set contributes is added up in M[0].
  std::vector<sock_filter> code{BPF_STMT(BPF_LD | BPF_IMM, 0), BPF_STMT(BPF_ST, 0)};
  const auto add_bits = [&](u16 size, int offset, u32 bits, auto contribution) {
    code.push_back(BPF_STMT(static_cast<u16>(BPF_LD | size | BPF_ABS),
                            static_cast<u32>(SKF_NET_OFF + offset)));
    code.push_back(BPF_STMT(BPF_MISC | BPF_TAX, 0));
    for (u32 bit = 0; bit < bits; ++bit) {
      code.push_back(BPF_STMT(BPF_MISC | BPF_TXA, 0));
      code.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, u32{1} << bit, 0, 3));
      code.push_back(BPF_STMT(BPF_LD | BPF_MEM, 0));
      code.push_back(BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, contribution(bit)));
      code.push_back(BPF_STMT(BPF_ST, 0));
    }
  };
  constexpr int source_address = 12, source_port = 20;  // of an IPv4 packet without options
  add_bits(BPF_W, source_address, 32, [&](u32 bit) { return group_bits(u32{1} << bit, 0); });
  add_bits(BPF_H, source_port, 16,
           [&](u32 bit) { return group_bits(0, static_cast<u16>(1 << bit)); });
  code.push_back(BPF_STMT(BPF_LD | BPF_MEM, 0));
  code.push_back(BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, static_cast<u32>(listeners.size())));
  code.push_back(BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, static_cast<u32>(net::flow_groups)));
  code.push_back(BPF_STMT(BPF_RET | BPF_A, 0));
  const std::string wrong = attach_program(listeners[0], code);
  return wrong.empty() ? Made(Affinity(listeners, limit)) : Made::failed(wrong);
}

void Affinity::look(std::size_t worker) {
  // Of a listener tcpi_unacked is the accept queue's length: tcp(7), tcp_get_info().
  tcp_info info{};
  socklen_t length = sizeof info;
  if (getsockopt(listeners_[worker], IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return;
  const bool busy = marks_[worker].busy_with(info.tcpi_unacked);
  const bool before = lines_[worker].busy.exchange(busy, std::memory_order_relaxed);
  if (!busy || before) return;
  const u64 one = 1;
  for (std::size_t i = 0; i < bells_.size(); ++i) {
    // A full counter has rung already.
    if (i != worker) (void)!write(bells_[i].get(), &one, sizeof one);
  }
}

std::size_t Affinity::victim(std::size_t worker) const {
  for (std::size_t i = 1; i < lines_.size(); ++i) {
    const std::size_t other = (worker + i) % lines_.size();
    if (lines_[other].busy.load(std::memory_order_relaxed)) return other;
  }
  return worker;
}

}  // namespace cob::bench
