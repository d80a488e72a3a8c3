// Sockets: what programs set, kept with the description and told to the stack while there is a
// connection; TCP_INFO. Model: docs/calls.md, `set_option`, `info`; values are checked by the shim
// and clamped here. setsockopt(2), socket(7), tcp(7).
#include "kernel/parts.h"
#include "kernel/sockets.h"

namespace cob::kernel {

using call::SocketState;

void Sockets::apply_options(Description& d) {
  if (d.tcb == net::no_tcb) return;
  if (d.no_delay) stack_->set_no_delay(d.tcb, true);
  if (d.cork) stack_->set_cork(d.tcb, true);
  if (d.keep_alive)
    stack_->set_keep_alive(d.tcb, true, Duration::seconds(d.settings->keep_alive_idle_s),
                           Duration::seconds(d.settings->keep_alive_interval_s),
                           d.settings->keep_alive_probes);
  if (d.settings->limits.any()) stack_->set_limits(d.tcb, d.settings->limits);
  if (d.settings->congestion != call::CongestionName::none) set_congestion(d);
  if (d.receive_limit != options_.receive_limit) stack_->set_receive_buffer(d.tcb, d.receive_limit);
}

void Sockets::set_congestion(Description& d) {
  stack_->set_congestion_control(d.tcb, d.settings->congestion == call::CongestionName::reno
                                            ? net::CongestionControl::new_reno
                                            : net::CongestionControl::cubic);
}

void Sockets::set_option(Program& program, u32 number, const call::CallSlot& call) {
  Description& d = *program.slot(number).description;
  if (static_cast<call::SocketOption>(call.a[0]) == call::SocketOption::urgent_owner)
    return set_owner(program, d, static_cast<i32>(call.a[1]), call.a[2] == 1);
  if (!change_option(d, call)) return programs_.fault(program, "unknown socket option");
  if (d.shared->part != nullptr) parts_->tell(d, PartNews::option, call.a);
}

void Sockets::remember(Description& d, const call::u64* words) {
  SharedPart& shared = d.shared.make();
  if (shared.memory == nullptr) shared.memory = std::make_unique<std::array<u64, 6>>();
  std::copy_n(words, 6, shared.memory->begin());
  if (shared.part != nullptr) parts_->tell(d, PartNews::memory, words);
}

bool Sockets::change_option(Description& d, const call::CallSlot& call) {
  const bool live = d.tcb != net::no_tcb;
  const u32 value = static_cast<u32>(call.a[1]);
  switch (static_cast<call::SocketOption>(call.a[0])) {
    case call::SocketOption::no_delay:
      d.no_delay = value != 0;
      if (live) stack_->set_no_delay(d.tcb, d.no_delay);
      break;
    case call::SocketOption::cork:
      d.cork = value != 0;
      if (live) stack_->set_cork(d.tcb, d.cork);
      break;
    case call::SocketOption::keep_alive:  // value: on; a[2]: idle s | interval s << 32; a[3]:
                                          // probes
      d.keep_alive = value != 0;
      d.settings.make().keep_alive_idle_s = std::clamp<u32>(static_cast<u32>(call.a[2]), 1, 32'767);
      d.settings.make().keep_alive_interval_s =
          std::clamp<u32>(static_cast<u32>(call.a[2] >> 32), 1, 32'767);
      d.settings.make().keep_alive_probes = std::clamp<u32>(static_cast<u32>(call.a[3]), 1, 127);
      if (live)
        stack_->set_keep_alive(
            d.tcb, d.keep_alive, Duration::seconds(d.settings->keep_alive_idle_s),
            Duration::seconds(d.settings->keep_alive_interval_s), d.settings->keep_alive_probes);
      break;
    case call::SocketOption::receive_buffer:
      d.receive_limit = std::clamp<u32>(value, 4 * 1024, 8 * 1024 * 1024);
      d.receive_fixed = true;
      d.window_limit = 0;
      if (live) stack_->set_receive_buffer(d.tcb, d.receive_limit);
      break;
    case call::SocketOption::send_buffer:
      d.send_fixed = true;
      show_send_limit(d, std::clamp<u32>(value, 4 * 1024, 8 * 1024 * 1024));
      break;
    case call::SocketOption::linger:  // value: on; a[2]: seconds. Only "on, 0 s" is the kernel's
                                      // concern.
      d.linger_reset = value != 0 && call.a[2] == 0;
      break;
    case call::SocketOption::user_timeout:  // ms
      d.settings.make().limits.user_timeout =
          Duration::milliseconds(std::min<u32>(value, INT32_MAX));
      if (live) stack_->set_limits(d.tcb, d.settings->limits);
      break;
    case call::SocketOption::syn_count:
      d.settings.make().limits.syn_retries = static_cast<u8>(std::min(value, 127u));
      if (live) stack_->set_limits(d.tcb, d.settings->limits);
      break;
    case call::SocketOption::linger2:  // seconds; negative: no FIN_WAIT_2
      d.settings.make().limits.no_fin_wait_2 = static_cast<i32>(value) < 0;
      d.settings.make().limits.fin_wait_2_s = static_cast<u8>(std::min(value, 120u));
      if (live) stack_->set_limits(d.tcb, d.settings->limits);
      break;
    case call::SocketOption::max_segment:  // of connections that begin later
      d.settings.make().max_segment_bytes = static_cast<u16>(std::min(value, 32'767u));
      if (d.state == SocketState::listening)
        stack_->set_max_segment(d.queue->listener, d.settings->max_segment_bytes);
      break;
    case call::SocketOption::defer_accept:  // seconds
      d.settings.make().defer_accept_s = std::min(value, 3'600u);
      break;
    case call::SocketOption::fast_open:  // connections whose handshake has not ended
      d.settings.make().fast_open_queue = std::min(value, 65'535u);
      if (d.state == SocketState::listening)
        stack_->set_fast_open(d.queue->listener, d.settings->fast_open_queue);
      break;
    case call::SocketOption::congestion:
      d.settings.make().congestion =
          value == 2 ? call::CongestionName::reno : call::CongestionName::cubic;
      if (live) set_congestion(d);
      break;
    case call::SocketOption::urgent_inline:
      d.settings.make().urgent_inline = value != 0;
      if (d.urgent) write_flags(d);
      break;
    case call::SocketOption::error_taken:
      d.error = 0;
      write_flags(d);
      break;
    default:
      return false;
  }
  return true;
}

// A way within the cob: as wide as Linux's loopback.
i32 Sockets::path_mtu(const Description& d, u64* values) const {
  constexpr u32 loopback_mtu = 65'536;
  if (d.remote.port.value == 0) return -ENOTCONN;
  const net::Ipv4Address to = d.remote.address;
  values[0] = goes_out(to) ? stack_->path_mtu(to, net::Route::uplink()) : loopback_mtu;
  return 0;
}

i32 Sockets::tcp_info(Program& program, u32 number, u64 part, u64* values) {
  const Description& d = *program.slot(number).description;
  if (d.tcb == net::no_tcb) return -ENOTCONN;
  const auto info = stack_->info(d.tcb);
  if (info.is_error()) return -info.error().code;
  const net::TcbInfo& t = info.value();
  if (part == 1) {
    values[0] = t.slow_start_threshold_bytes | u64{t.unacked_bytes} << 32;
    values[1] = t.unsent_bytes | u64{t.receive_window_bytes} << 32;
    values[2] = static_cast<u64>(t.congestion_state) | u64{t.retries} << 8 |
                u64{t.send_scale} << 16 | u64{t.timestamps} << 24 | u64{t.window_scaling} << 25 |
                u64{t.sack} << 26 | u64{t.ecn} << 27 | u64{t.syn_data} << 28 |
                static_cast<u64>(t.waits_for) << 32 |
                (1 + static_cast<u64>(t.congestion_control)) << 40;
    return 0;
  }
  values[0] = static_cast<u64>(t.state) | u64{t.mss} << 32;
  values[1] = t.smoothed_rtt_us | u64{t.rtt_variance_us} << 32;
  values[2] = t.congestion_window_bytes | u64{t.send_window_bytes} << 32;
  values[3] = t.retransmits | u64{t.retransmit_timeout_us} << 32;
  values[4] = t.bytes_sent;
  values[5] = t.bytes_received;
  return 0;
}

}  // namespace cob::kernel
