// Kernel, its board: counters and tables that `cob ps` and `cob status` read; see board.h.
// memfd_create(2).
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "kernel/kernel.h"
#include "kernel/wire_address.h"

namespace cob::kernel {

namespace {
constexpr Duration board_interval = Duration::milliseconds(5);
}

Result<void> Kernel::create_board() {
  board_memory_ = TRY(create_memory("cob-board", board_bytes(config_.kernels), Writers::creator));
  board_ = new (board_memory_.mapping.data()) Board{};
  board_->pid = static_cast<u32>(::getpid());
  board_->epoch = config_.epoch;
  board_->kernel = config_.kernel;
  board_->core = config_.core;
  return {};
}

void Kernel::update_board(Time now) {
  next_board_ = now + board_interval;
  board_behind_ = false;
  Board& b = *board_;
  b.loops = loops_;
  b.idle_loops = idle_loops_;
  b.yields = yields_;
  b.sleeps = sleeps_;
  b.contested_ns = rest_.contested_ns();
  b.calls = calls_;
  u64 in = 0, out = 0, full = 0, bells = bells_;
  for (u16 k = 0; k < config_.kernels; ++k) {
    const message::PeerStats& c = messenger_->counters(KernelId(k));
    in += c.messages_in;
    out += c.messages_out;
    full += c.messages_full + c.requests_full;
    bells += c.doorbells_rung;
  }
  b.messages_in = in;
  b.messages_out = out;
  b.messages_full = full;
  b.doorbells_rung = bells;
  const auto& frames = device_->inside();
  b.frames_in = frames.frames_in;
  b.frames_out = frames.frames_out;
  b.frames_dropped = frames.dropped_full + frames.dropped_route;
  if (cable_ != nullptr) show_cable(b.cable);
  const auto& uplink = device_->uplink();
  const auto& flows = flows_->counters();
  b.uplink = device_->has_uplink() ? 1 : 0;
  b.uplink_frames_in = uplink.frames_in;
  b.uplink_frames_out = uplink.frames_out;
  b.uplink_bytes_in = uplink.bytes_in;
  b.uplink_bytes_out = uplink.bytes_out;
  b.uplink_dropped = uplink.dropped_full + device_->dropped_in() + device_->dropped_out();
  b.uplink_handed_on = flows.handed_on;
  b.uplink_lost = flows.lost;
  b.uplink_unsettled = flows.unsettled;
  b.uplink_entries = flows_->entries();
  const net::StackCounters& s = stack_->counters();
  b.datagrams_in = s.datagrams_in;
  b.datagrams_out = s.datagrams_out;
  b.datagrams_dropped = sockets_->counters().datagrams_dropped;
  b.segments_retransmitted = s.segments_retransmitted;
  b.resets_out = s.resets_out;
  b.active_opens = s.active_opens;
  b.passive_opens = s.passive_opens;
  b.accept_overflows = s.accept_overflows;
  b.connections = s.connections;
  b.time_wait = s.time_wait;
  b.programs_attached = attached_.size();
  b.programs_introduced = introduced_;
  b.programs_known =
      static_cast<u64>(std::count_if(programs_.begin(), programs_.end(), [](const auto& p) {
        return !p.second->dead && !p.second->goes_elsewhere;
      }));
  b.children_spread = children_spread_;
  b.children_kept = children_kept_;
  b.parts_joined = parts_->counters().joined;
  b.parts_stranded = parts_->counters().stranded;
  b.seats_came = far_seats_->counters().came;
  b.seats_gone = far_seats_->counters().gone;
  b.seats_kept = far_seats_->counters().kept;
  b.seats_lost = far_seats_->counters().lost;
  b.descriptions = sockets_->open_count();
  b.bytes_in = sockets_->counters().bytes_in;
  b.bytes_out = sockets_->counters().bytes_out;
  b.faults = faults_;
  angel_->show(b.angel);
  b.angel.redirected = flows.redirected + sockets_->counters().connects_redirected;
  b.angel.redirects_repeated = flows.redirects_repeated;
  b.angel.redirects_refused = flows.redirects_refused;
  b.angel.accepted = sockets_->counters().accepted;
  publish(b.heartbeat_ns, static_cast<u64>(now.ns));
  update_tables();
}

message::TransportKind Kernel::transport_to(KernelId peer) const {
  using message::TransportKind;
  if (islands_.together(peer, KernelId(config_.kernel))) return TransportKind::coherent;
  return config_.link == message::IslandLink::socket ? TransportKind::socket
                                                     : TransportKind::window;
}

void Kernel::update_tables() {
  Board& b = *board_;
  publish(b.tables_sequence, b.tables_sequence + 1);
  __atomic_thread_fence(__ATOMIC_RELEASE);
  u32 i = 0;
  for (Program* program : attached_) {
    if (i == board_programs) break;
    BoardProgram& row = b.program[i++];
    row.pid = program->pid();
    row.threads =
        static_cast<u32>(std::count_if(program->threads().begin(), program->threads().end(),
                                       [](const auto& t) { return t.active; }));
    row.sockets = program->open_slots();
    row.calls_waiting = program->calls_waiting();
    row.receive_chunks = program->arena().chunks_held();
    row.send_chunks = program->arena().send_chunks_held();
    row.stays = program->stays;
    show_threads(*program, row);
    std::memset(row.command, 0, sizeof row.command);
    std::strncpy(row.command, program->command().c_str(), sizeof row.command - 1);
  }
  for (; i < board_programs && b.program[i].pid != 0; ++i) b.program[i].pid = 0;
  u32 l = 0;
  sockets_->for_each_listener([&](net::Endpoint local, const net::ListenerInfo& info) {
    if (l == board_listeners) return;
    const WireAddress at = to_wire(&stack_->names(), local.address);
    b.listener[l] = {.address = at.address,
                     .port = local.port.value,
                     .accept_queue = info.accept_queue,
                     .syn_queue = info.syn_queue,
                     .backlog = info.backlog};
    std::memcpy(b.listener[l++].ipv6, at.ipv6, sizeof at.ipv6);
  });
  for (; l < board_listeners && b.listener[l].port != 0; ++l) b.listener[l].port = 0;
  for (u16 k = 0; k < config_.kernels && k < board_peers; ++k) {
    const message::Link& link = *messenger_->links().find(KernelId(k));
    b.peer[k] = {};
    if (k == config_.kernel) continue;
    b.peer[k].transport = static_cast<u32>(transport_to(KernelId(k)));
    if (!link.connected) continue;
    b.peer[k].connected = 1;
    b.peer[k].message_lines = link.normal.out.unread();
    b.peer[k].frames = link.frames_out.unread();
    // That changes without a turn of this kernel.
    if (b.peer[k].message_lines != 0 || b.peer[k].frames != 0) board_behind_ = true;
  }
  publish(b.tables_sequence, b.tables_sequence + 1);
}

}  // namespace cob::kernel
