// The Stack's frame: construction, the turn of poll(), and the deadline of the next one.
// Model: poll() runs timers first, then flushes every touched TCB; quiet_until_ makes an idle poll
// one comparison.
// Owned by one kernel's loop.
#include <algorithm>

#include "net/stack/tcp_stack.h"

namespace cob::net {
namespace {

constexpr Duration blocked_retry = Duration::microseconds(100);

}  // namespace

Result<std::unique_ptr<Stack>> Stack::create(const StackOptions& options, Device& device,
                                             SocketLayer& layer) {
  if (options.address.is_any() || options.prefix_bits > 32)
    return Error::of(EINVAL, "stack: address or prefix");
  if (options.ipv6.prefix_bits > 128) return Error::of(EINVAL, "stack: IPv6 prefix");
  if (options.max_connections == 0 || options.max_connections > 1u << 24 ||
      options.max_time_wait == 0 || options.max_time_wait > 1u << 24 ||
      options.max_scoreboards == 0 || options.max_scoreboards > 1u << 24)
    return Error::of(EINVAL, "stack: table sizes");
  return std::unique_ptr<Stack>(std::make_unique<TcpStack>(options, device, layer));
}

TcpStack::TcpStack(const StackOptions& options, Device& device, SocketLayer& layer)
    : options_(options),
      device_(device),
      layer_(layer),
      secret_{options.secret[0], options.secret[1]},
      names_({siphash(secret_, 9, 0), siphash(secret_, 10, 0)}),
      table_(options.max_connections, {siphash(secret_, 1, 0), siphash(secret_, 2, 0)}),
      time_wait_(options.max_time_wait),
      wheel_(std::bit_ceil(options.max_connections)),
      reassembly_(reassembly_pieces),
      udp_({siphash(secret_, 3, 0), siphash(secret_, 4, 0)}, names_),
      boards_(options.max_scoreboards),
      ipv6_(options.ipv6, options.mac, names_, {siphash(secret_, 11, 0), siphash(secret_, 12, 0)},
            {.detect_duplicate = [this](const Ipv6Address& target) { detect_duplicate(target); },
             .solicit_routers = [this] { solicit_routers(); },
             .gone = [this](u32 place) { on_own_address_gone(place); },
             .tell_groups =
                 [this](const Ipv6Address& group, std::span<const std::byte> packet) {
                   send_link_ipv6(group_mac(group), packet);
                 }}),
      path_mtu_({siphash(secret_, 5, 0), siphash(secret_, 6, 0)}),
      fast_open_({siphash(secret_, 7, 0), siphash(secret_, 8, 0)}),
      listener_of_port_(65'536),
      soft_acks_(soft_ack_capacity) {
  options_.receive_window_bytes =
      std::clamp<u32>(options.receive_window_bytes, 1, most_receive_window);
}

void TcpStack::poll(Time now) {
  latest_ = now;
  if (now < quiet_until_ && output_list_.empty() && blocked_.empty()) [[likely]]
    return;
  set_now(now);
  table_.settle_idle(now_ms_);
  wheel_.advance(static_cast<u64>(now_.ns) / wheel_tick_ns, [this](u32 slot) { on_timer(slot); });
  poll_soft_acks();
  poll_arp();
  if (ipv6_.on()) poll_ipv6();
  if (!lowered_.empty()) [[unlikely]]
    raise_segments();
  if (!fragments_.empty()) [[unlikely]]
    expire_fragments();
  flush_output();
  if (time_wait_.size() > 0) time_wait_.expire(now_ms_);
  quiet_until_ = next_event();
}

// When poll() has to run although nothing is marked.
Time TcpStack::next_event() const {
  Time best = Time::never();
  const auto at_ms = [&](u32 ms) {
    const i64 delta = static_cast<i32>(ms - now_ms_);
    best = std::min(best, Time{(static_cast<i64>(now_tick_) + delta) * 1'000'000});
  };
  const u64 tick = wheel_.next_event();
  if (tick != TimerWheel::never) best = Time{static_cast<i64>(tick) * wheel_tick_ns};
  if (soft_ack_head_ != soft_ack_tail_)
    best = std::min(best, soft_acks_[soft_ack_head_ % soft_ack_capacity].deadline);
  if (!lowered_.empty()) [[unlikely]]
    at_ms(lowered_.front().due_ms);
  if (!fragments_.empty()) [[unlikely]]
    at_ms(fragments_.next_deadline_ms());
  if (arp_.waiting()) at_ms(arp_.next_deadline_ms());
  if (ipv6_.on()) {
    if (neighbours_.waiting()) at_ms(neighbours_.next_deadline_ms());
    if (const u64 ms = ipv6_.next_deadline_ms(); ms != Ipv6Interface::forever)
      best = std::min(best, Time{static_cast<i64>(ms) * 1'000'000});
  }
  // A second late is early enough for TIME_WAIT: many entries go at one wake-up.
  if (time_wait_.size() > 0) at_ms(time_wait_.next_expiry_ms() + 1'000);
  return best;
}

Time TcpStack::next_deadline() const {
  if (!output_list_.empty()) return now_;
  const Time event = quiet_until_;
  return blocked_.empty() ? event : std::min(event, now_ + blocked_retry);
}

const StackCounters& TcpStack::counters() const {
  counters_.connections = table_.size();
  counters_.time_wait = time_wait_.size();
  const Fragments::Counters& fragments = fragments_.counters();
  counters_.fragments_in = fragments.asked;
  counters_.reassembled = fragments.whole;
  counters_.reassembly_failed = fragments.failed;
  counters_.reassembly_timed_out = fragments.timed_out;
  return counters_;
}

bool TcpStack::tuple_in_use(Endpoint local, Endpoint remote, Time now) const {
  latest_ = std::max(latest_, now);  // a connect() that follows judges by the same instant
  const u16 first = listener_of_port_[local.port.value];
  if (first != 0) return true;
  const FlowKey key = FlowKey::of(local, remote);
  const u32 hash = table_.hash(key);
  if (table_.find(key, hash) != nullptr) return true;
  const TimeWaitEntry* e = time_wait_.find(key, hash);
  return e != nullptr && !reusable(*e, static_cast<u32>(now.ns / 1'000'000));
}

}  // namespace cob::net
