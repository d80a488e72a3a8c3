// Flow groups that move between kernels: which ones may, and the TIME_WAIT entries that go along;
// docs/network.md, "Groups that move".
// Model: when the tables have changed, all TIME_WAIT entries are looked through, some a turn; those
// whose owner is another kernel now are sent to it, ahead of the word that all is told, until which
// their new owner refuses nothing. Kernel's loop only.
#include <array>

#include "kernel/flows.h"
#include "kernel/messages.h"
#include "kernel/wire_address.h"
#include "message/messenger.h"

namespace cob::kernel {

Flows::GroupSet Flows::groups_at_rest(Port port) const {
  GroupSet busy;
  if (!tables_) return busy;
  stack_->any_flow(port, [&](net::Endpoint local, net::Endpoint remote) {
    busy.set(net::flow_group(steering_hash({local, remote})));
    return false;
  });
  for (std::size_t group = 0; group < cookies_until_.size(); ++group)
    if (now_ < cookies_until_[group]) busy.set(group);
  return ~busy;
}

void Flows::on_cookie(net::Endpoint local, net::Endpoint remote) {
  if (!tables_) return;
  if (cookies_until_.empty()) cookies_until_.resize(net::flow_groups);
  cookies_until_[net::flow_group(steering_hash({local, remote}))] = now_ + net::syn_cookie_life;
}

void Flows::sweep_time_wait() {
  const auto leaves = [this](net::Endpoint local, net::Endpoint remote) {
    const auto owner = owner_of({local, remote});
    return owner && *owner != self_ && messenger_->connected(*owner);
  };
  for (u32 looked = 0;; looked += sweep_batch) {
    while (!leaving_.empty() && try_send(leaving_.front())) leaving_.pop_front();
    if (!leaving_.empty() || !sweeping_ || looked == sweep_places || !tables_settled()) return;
    std::array<net::MovedTimeWait, sweep_batch> taken;
    const std::size_t count = stack_->take_time_wait(sweep_cursor_, sweep_batch, leaves, taken);
    for (const net::MovedTimeWait& entry : std::span(taken).first(count))
      if (const auto owner = owner_of({entry.local, entry.remote}))
        leaving_.push_back({*owner, entry});
    sweeping_ = sweep_cursor_ != 0;
  }
}

// False: no room in the peer's ring. What cannot be sent otherwise is lost, as with a kernel that
// dies.
bool Flows::try_send(const Leaving& leaving) {
  const net::MovedTimeWait& e = leaving.entry;
  const WireAddress local = to_wire(names_, e.local.address);
  const WireAddress remote = to_wire(names_, e.remote.address);
  const auto sent =
      messenger_->send(leaving.to, TimeWaitMessage{.local_address = local.address,
                                                   .remote_address = remote.address,
                                                   .local_port = e.local.port.value,
                                                   .remote_port = e.remote.port.value,
                                                   .send_next = e.send_next,
                                                   .receive_next = e.receive_next,
                                                   .receive_window_bytes = e.receive_window_bytes,
                                                   .timestamp_recent = e.timestamp_recent,
                                                   .timestamp_sent = e.timestamp_sent,
                                                   .timestamp_offset = e.timestamp_offset,
                                                   .left_ms = e.left_ms,
                                                   .timestamps = e.timestamps ? u16{1} : u16{0},
                                                   .window_scale = e.window_scale,
                                                   .reserved = 0,
                                                   .local_ipv6_first = local.ipv6[0],
                                                   .local_ipv6_second = local.ipv6[1],
                                                   .remote_ipv6_first = remote.ipv6[0],
                                                   .remote_ipv6_second = remote.ipv6[1]});
  if (sent.is_error() && sent.error().code == EAGAIN) return false;
  if (!sent.is_error()) ++counters_.time_wait_sent;
  return true;
}

// Only what the tables give to this kernel: its frames come here anyway.
void Flows::on_time_wait(const net::MovedTimeWait& entry) {
  const bool taken =
      owner_of({entry.local, entry.remote}) == self_ && !stack_->put_time_wait(entry).is_error();
  ++(taken ? counters_.time_wait_taken : counters_.time_wait_refused);
}

}  // namespace cob::kernel
