// Sockets, as viewers see them: rows of listeners, connections and TIME_WAIT entries; see view.h.
// Model: connections are the stack's, joined with the description that each belongs to; nothing
// here changes anything, so that watching does not disturb. ss(8). Kernel's loop only.
#include <algorithm>

#include "kernel/sockets.h"
#include "kernel/view.h"
#include "kernel/wire_address.h"

namespace cob::kernel {

namespace {

void set_flag(SocketRow& row, SocketRowFlag flag, bool on) {
  if (on) row.flags = static_cast<u8>(row.flags | flag);
}

void set_description(SocketRow& row, const Description& d) {
  row.handle = d.handle;
  row.holders = static_cast<u32>(d.holders.size());
  for (std::size_t i = 0; i < d.holders.size() && i < SocketRow::shown_holders; ++i)
    row.pid[i] = d.holders[i].program->pid();
  row.receive_limit = d.receive_limit;
  row.send_limit = d.send_limit;
  set_flag(row, row_no_delay, d.no_delay);
  set_flag(row, row_cork, d.cork);
  set_flag(row, row_keep_alive, d.keep_alive);
  set_flag(row, row_unaccepted, d.queue_of != nullptr || d.accept_counted);
  set_flag(row, row_kernel_seat, d.seat < 0 && d.holders.size() > 1);
}

void set_address(const net::AddressNames& names, net::Ipv4Address a, u32& word, u8 (&bytes)[16]) {
  word = a.value;
  if (!has_bytes(a)) return;
  const net::Ipv6Address ipv6 = names.address(a);
  word = call::ipv6_elsewhere;
  std::memcpy(bytes, ipv6.bytes.data(), sizeof bytes);
}

void set_names(SocketRow& row, const net::AddressNames& names, net::Endpoint local,
               net::Endpoint remote, net::Route route) {
  set_address(names, local.address, row.local_address, row.local_ipv6);
  row.local_port = local.port.value;
  set_address(names, remote.address, row.remote_address, row.remote_ipv6);
  row.remote_port = remote.port.value;
  row.route = route.kernel;
}

SocketRow connection_row(const net::AddressNames& names, const net::TcbInfo& info) {
  SocketRow row{.state = static_cast<u8>(info.state),
                .wait = static_cast<u8>(info.waits_for),
                .retries = info.retries,
                .congestion = static_cast<u8>(info.congestion_state),
                .send_scale = info.send_scale,
                .control = static_cast<u8>(info.congestion_control),
                .sack = info.sack,
                .ecn = info.ecn,
                .send_queue = info.unacked_bytes + info.unsent_bytes,
                .wait_ms = info.wait_ms,
                .mss = info.mss,
                .congestion_window = info.congestion_window_bytes,
                .slow_start_threshold = info.slow_start_threshold_bytes,
                .smoothed_rtt_us = info.smoothed_rtt_us,
                .rtt_variance_us = info.rtt_variance_us,
                .retransmit_timeout_us = info.retransmit_timeout_us,
                .send_window = info.send_window_bytes,
                .receive_window = info.receive_window_bytes,
                .retransmits = info.retransmits,
                .unacked = info.unacked_bytes,
                .unsent = info.unsent_bytes,
                .bytes_sent = info.bytes_sent,
                .bytes_received = info.bytes_received};
  set_names(row, names, info.local, info.remote, info.route);
  set_flag(row, row_timestamps, info.timestamps);
  set_flag(row, row_window_scaling, info.window_scaling);
  return row;
}

}  // namespace

// As unread_bytes(), but what the holder has consumed meanwhile stays to be told to the stack.
u64 Sockets::peek_unread(const Description& d) const { return unread_in_chunks(d) + d.kept.size(); }

u64 Sockets::unread_in_chunks(const Description& d) const {
  if (d.seat < 0) return 0;
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  const u64 received = h.program->ours(h.slot).received;
  const u64 told = load(h.program->theirs(h.slot).consumed);
  return told - d.consumed > received - d.consumed ? received - d.consumed : received - told;
}

std::size_t Sockets::list_connections(u32& cursor, u32 places, std::span<SocketRow> rows) const {
  std::array<net::TcbEntry, view_rows> found;
  const std::size_t count = stack_->list_connections(
      cursor, places, std::span(found).first(std::min(rows.size(), found.size())));
  for (std::size_t i = 0; i < count; ++i) {
    rows[i] = connection_row(stack_->names(), found[i].info);
    if (found[i].cookie == 0) continue;
    const Description& d = from_cookie(found[i].cookie);
    if (d.tcb != found[i].id) continue;
    set_description(rows[i], d);
    rows[i].receive_queue = static_cast<u32>(peek_unread(d));
  }
  return count;
}

std::size_t Sockets::list_time_wait(u32& cursor, u32 places, std::span<SocketRow> rows) const {
  std::array<net::TimeWaitInfo, view_rows> found;
  const std::size_t count = stack_->list_time_wait(
      cursor, places, std::span(found).first(std::min(rows.size(), found.size())));
  for (std::size_t i = 0; i < count; ++i) {
    rows[i] = {.state = static_cast<u8>(net::TcpState::time_wait), .wait_ms = found[i].left_ms};
    set_names(rows[i], stack_->names(), found[i].local, found[i].remote, found[i].route);
  }
  return count;
}

std::size_t Sockets::list_listeners(u32& cursor, u32 places, std::span<SocketRow> rows) {
  std::size_t count = 0;
  u32 place = cursor;
  const u32 end = static_cast<u32>(descriptions_.size());
  for (u32 looked = 0; place < end && looked < places; ++looked, ++place) {
    Description& d = descriptions_[place];
    if (d.handle == 0 || d.state != call::SocketState::listening || d.queue == nullptr) continue;
    if (count == rows.size()) break;
    SocketRow& row = rows[count++] = {.state = state_listening};
    set_names(row, stack_->names(), d.local, {}, net::Route::inside(KernelId(0)));
    set_description(row, d);
    for (Holder& h : d.holders) settle(d, h);  // what was accepted meanwhile has left the queue
    const net::ListenerInfo info = stack_->info(d.queue->listener);
    const auto group = by_listener_.find(d.queue->listener.value);
    const bool alone = group != by_listener_.end() && group->second.members.size() == 1;
    row.receive_queue = alone ? info.accept_queue : waiting_at(d);
    row.send_queue = info.backlog;
    row.syn_queue = info.syn_queue;
  }
  cursor = place < end ? place : 0;
  return count;
}

std::size_t Sockets::list_datagrams(u32& cursor, u32 places, std::span<SocketRow> rows) const {
  std::size_t count = 0;
  u32 place = cursor;
  const u32 end = static_cast<u32>(descriptions_.size());
  for (u32 looked = 0; place < end && looked < places; ++looked, ++place) {
    const Description& d = descriptions_[place];
    if (d.handle == 0 || d.state != call::SocketState::datagram || !d.bound) continue;
    if (count == rows.size()) break;
    const bool connected = d.remote.port.value != 0;
    const auto state = connected ? net::TcpState::established : net::TcpState::closed;
    SocketRow& row = rows[count++] = {.state = static_cast<u8>(state)};
    set_names(row, stack_->names(), d.local, d.remote, net::Route::inside(options_.self));
    set_description(row, d);
    set_flag(row, row_datagram, true);
    row.receive_queue = static_cast<u32>(peek_unread(d));
    row.dropped = static_cast<u32>(std::min<u64>(d.datagram->dropped, ~0u));
  }
  cursor = place < end ? place : 0;
  return count;
}

// A member of a SO_REUSEPORT group: its own part of the group's queue.
u32 Sockets::waiting_at(const Description& d) const {
  std::size_t waiting = d.queue == nullptr ? 0 : d.queue->pending.size() + d.queue->deferred.size();
  for (const Holder& h : d.holders)
    if (h.wants_accept) waiting += h.program->offers(h.offer_ring).outstanding();
  return static_cast<u32>(waiting);
}

}  // namespace cob::kernel
