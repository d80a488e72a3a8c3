// What a kernel's board says, as JSON: see kernel_samples.h. One thread.
#include "cli/kernel_samples.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "call/layout.h"
#include "cli/angel_policies.h"
#include "cli/socket_text.h"
#include "message/link_layout.h"
#include "net/angel/policy.h"

namespace cob::cli {
namespace {

constexpr Duration stuck_after = Duration::seconds(1);

// The supervisor knows whether a kernel lives; its board tells whether it sleeps, or has stopped
// turning.
std::string state_of(const kernel::Board& board, Time now) {
  if (board.asleep != 0) return "asleep";
  return now.ns - static_cast<i64>(board.heartbeat_ns) > stuck_after.ns ? "stuck" : "running";
}

// proc(5), statm: pages mapped, pages resident (shared ones included). 0: the process is gone.
u64 resident_kib(u32 pid) {
  std::ifstream statm(fmt::format("/proc/{}/statm", pid));
  u64 mapped = 0, resident = 0;
  statm >> mapped >> resident;
  return resident * static_cast<u64>(::sysconf(_SC_PAGESIZE)) / 1024;
}

nlohmann::json listeners_of(const kernel::Board& board) {
  nlohmann::json listeners = nlohmann::json::array();
  for (const kernel::BoardListener& listener : board.listener) {
    if (listener.port != 0)
      listeners.push_back(
          fmt::format("{}:{}", format_host(listener.address, listener.ipv6), listener.port));
  }
  return listeners;
}

// What waits where, and of how much room.
nlohmann::json queues_of(const kernel::Board& board) {
  nlohmann::json listeners = nlohmann::json::array(), programs = listeners, peers = listeners;
  for (const kernel::BoardListener& l : board.listener) {
    if (l.port == 0) continue;
    listeners.push_back({{"listener", fmt::format("{}:{}", format_host(l.address, l.ipv6), l.port)},
                         {"accept_queue", l.accept_queue},
                         {"backlog", l.backlog},
                         {"handshakes", l.syn_queue}});
  }
  for (const kernel::BoardProgram& p : board.program) {
    if (p.pid == 0) continue;
    programs.push_back({{"pid", p.pid},
                        {"command", p.command},
                        {"calls_waiting", p.calls_waiting},
                        {"receive_chunks", p.receive_chunks},
                        {"receive_chunks_of", call::receive_chunks},
                        {"send_chunks", p.send_chunks},
                        {"send_chunks_of", call::send_chunks}});
  }
  for (u32 k = 0; k < kernel::board_peers; ++k) {
    const kernel::BoardPeer& p = board.peer[k];
    if (p.connected == 0) continue;
    peers.push_back({{"kernel", k},
                     {"message_lines", p.message_lines},
                     {"message_lines_of", message::message_slots},
                     {"frames", p.frames},
                     {"frames_of", message::frame_entries}});
  }
  return {{"listeners", std::move(listeners)},
          {"programs", std::move(programs)},
          {"peers", std::move(peers)}};
}

// Angel: what it sees, and what it decided, by cause.
nlohmann::json angel_of(const kernel::Board& b, Time now) {
  const kernel::BoardAngel& a = b.angel;
  const net::angel::KernelLoad& load = b.load.kernel;
  nlohmann::json causes = nlohmann::json::object(), suspected = nlohmann::json::array();
  for (std::size_t i = 0; i < static_cast<std::size_t>(net::angel::Cause::causes); ++i)
    causes[net::angel::name(static_cast<net::angel::Cause>(i))] = a.cause[i];
  for (u32 k = 0; k < kernel::board_peers; ++k)
    if ((a.suspected >> k & 1) != 0) suspected.push_back(k);
  const i64 oldest_ns =
      load.oldest_accept_ns == 0 ? 0 : now.ns - static_cast<i64>(load.oldest_accept_ns);
  return {{"policies", angel_names(static_cast<u32>(a.policies))},
          {"draining", a.draining != 0},
          {"suspected", std::move(suspected)},
          {"load",
           {{"input_waiting", load.input_waiting},
            {"runnable", load.runnable},
            {"accept_queue", load.accept_queue},
            {"oldest_accept_us", std::max(oldest_ns, i64{0}) / 1'000},
            {"asleep", load.asleep != 0}}},
          {"decisions", std::move(causes)},
          {"since_start",
           {{"accepted", a.accepted},
            {"redirected", a.redirected},
            {"redirects_repeated", a.redirects_repeated},
            {"redirects_refused", a.redirects_refused},
            {"served", a.served},
            {"failed", a.failed},
            {"asked", a.asked},
            {"asked_in_vain", a.asked_in_vain},
            {"taken", a.taken},
            {"given", a.given},
            {"given_back", a.given_back},
            {"refused", a.refused},
            {"lost", a.lost},
            {"groups_asked", a.groups_asked},
            {"groups_moved", a.groups_moved},
            {"nudges_out", a.nudges_out},
            {"nudges_in", a.nudges_in},
            {"suspicions", a.suspicions},
            {"load_written", a.shown}}}};
}

}  // namespace

std::vector<KernelSample> sample(const CobView& view) {
  std::vector<KernelSample> samples;
  samples.reserve(view.kernels.size());
  for (const KernelView& kernel : view.kernels)
    samples.push_back({kernel.read(), HostClock::read()});
  return samples;
}

nlohmann::json describe_kernel(const nlohmann::json& info, const KernelSample& before,
                               const KernelSample& after) {
  nlohmann::json kernel = info;
  if (!before.board || !after.board || before.board->epoch != after.board->epoch) return kernel;
  const kernel::Board &a = *before.board, &b = *after.board;
  const double seconds = static_cast<double>((after.at - before.at).ns) / 1e9;
  auto rate = [&](u64 kernel::Board::* counter) {
    return std::round(static_cast<double>(b.*counter - a.*counter) / seconds);
  };
  kernel["state"] = state_of(b, after.at);
  kernel["per_second"] = {{"loops", rate(&kernel::Board::loops)},
                          {"idle_loops", rate(&kernel::Board::idle_loops)},
                          {"yields", rate(&kernel::Board::yields)},
                          {"sleeps", rate(&kernel::Board::sleeps)},
                          {"doorbells_rung", rate(&kernel::Board::doorbells_rung)},
                          {"calls", rate(&kernel::Board::calls)},
                          {"messages_in", rate(&kernel::Board::messages_in)},
                          {"messages_out", rate(&kernel::Board::messages_out)},
                          {"frames_in", rate(&kernel::Board::frames_in)},
                          {"frames_out", rate(&kernel::Board::frames_out)},
                          {"bytes_in", rate(&kernel::Board::bytes_in)},
                          {"bytes_out", rate(&kernel::Board::bytes_out)},
                          {"active_opens", rate(&kernel::Board::active_opens)},
                          {"passive_opens", rate(&kernel::Board::passive_opens)}};
  kernel["contested_percent"] = std::min(
      100.0,
      std::round(static_cast<double>(b.contested_ns - a.contested_ns) / seconds / 1e5) / 100.0);
  kernel["now"] = {{"programs", b.programs_attached},
                   {"descriptions", b.descriptions},
                   {"connections", b.connections},
                   {"time_wait", b.time_wait},
                   {"resident_kib", resident_kib(b.pid)}};
  kernel["since_start"] = {{"messages_full", b.messages_full},
                           {"frames_dropped", b.frames_dropped},
                           {"datagrams_dropped", b.datagrams_dropped},
                           {"accept_overflows", b.accept_overflows},
                           {"segments_retransmitted", b.segments_retransmitted},
                           {"resets_out", b.resets_out},
                           {"faults", b.faults},
                           {"calls", b.calls},
                           {"active_opens", b.active_opens},
                           {"passive_opens", b.passive_opens},
                           {"children_spread", b.children_spread},
                           {"children_kept", b.children_kept},
                           {"listeners_joined", b.parts_joined},
                           {"connections_stranded", b.parts_stranded},
                           {"seats_came", b.seats_came},
                           {"seats_gone", b.seats_gone},
                           {"seats_kept", b.seats_kept},
                           {"seats_lost", b.seats_lost},
                           {"contested_ns", b.contested_ns}};
  if (b.uplink != 0) {
    kernel["uplink"] = {{"frames_in", b.uplink_frames_in}, {"frames_out", b.uplink_frames_out},
                        {"bytes_in", b.uplink_bytes_in},   {"bytes_out", b.uplink_bytes_out},
                        {"dropped", b.uplink_dropped},     {"handed_on", b.uplink_handed_on},
                        {"lost", b.uplink_lost},           {"unsettled", b.uplink_unsettled},
                        {"entries", b.uplink_entries}};
  }
  kernel["cable"] = {{"wires", b.cable.wires},
                     {"frames_in", b.cable.frames_in},
                     {"frames_out", b.cable.frames_out},
                     {"bytes_in", b.cable.bytes_in},
                     {"bytes_out", b.cable.bytes_out},
                     {"frames_copied", b.cable.frames_copied},
                     {"dropped_full", b.cable.dropped_full},
                     {"dropped_route", b.cable.dropped_route},
                     {"bells_rung", b.cable.bells_rung},
                     {"wires_cut", b.cable.wires_cut}};
  kernel["angel"] = angel_of(b, after.at);
  const auto angel_rate = [&](u64 kernel::BoardAngel::* counter) {
    return std::round(static_cast<double>(b.angel.*counter - a.angel.*counter) / seconds);
  };
  auto& rates = kernel["per_second"];
  rates["accepted"] = angel_rate(&kernel::BoardAngel::accepted);
  rates["redirected"] = angel_rate(&kernel::BoardAngel::redirected);
  rates["taken"] = angel_rate(&kernel::BoardAngel::taken);
  rates["given"] = angel_rate(&kernel::BoardAngel::given);
  rates["groups_moved"] = angel_rate(&kernel::BoardAngel::groups_moved);
  kernel["listeners"] = listeners_of(b);
  kernel["queues"] = queues_of(b);
  return kernel;
}

}  // namespace cob::cli
