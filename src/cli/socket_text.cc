// See socket_text.h. The words are those of iproute2's ss; what it has no word for (kernels, seats)
// stands under -e. One thread.
#include "cli/socket_text.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>

#include <algorithm>
#include <array>

#include "net/stack/tcb.h"

namespace cob::cli {
namespace {

using kernel::SocketRow;

// By net::TcpState.
constexpr std::array state_names{"UNCONN",     "SYN-SENT",   "SYN-RECV", "ESTAB",    "FIN-WAIT-1",
                                 "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING",  "LAST-ACK", "TIME-WAIT"};
// By net::WaitKind.
constexpr std::array wait_names{"", "on", "persist", "cork", "keepalive", "finwait2"};
constexpr u8 time_wait = static_cast<u8>(net::TcpState::time_wait);

bool has(const SocketRow& row, kernel::SocketRowFlag flag) { return (row.flags & flag) != 0; }

const char* wait_name(const SocketRow& row) {
  if (row.state == time_wait) return "timewait";
  return row.wait < wait_names.size() ? wait_names[row.wait] : "?";
}

// As ss: 12sec, 1min5sec, 340ms.
std::string format_wait(u32 ms) {
  const u32 s = ms / 1'000;
  if (s >= 60)
    return fmt::format("{}min{}", s / 60, s % 60 != 0 ? fmt::format("{}sec", s % 60) : "");
  if (s >= 10) return fmt::format("{}sec", s);
  if (s >= 1) return fmt::format("{}.{:03}sec", s, ms % 1'000);
  return fmt::format("{}ms", ms);
}

std::string peer_name(const SocketRow& row) {
  if (row.route == net::Route::uplink_id) return "uplink";
  return fmt::format("kernel{}", row.route);
}

const char* control_name(const SocketRow& row) {
  return row.control == static_cast<u8>(net::CongestionControl::cubic) ? "cubic" : "reno";
}

std::span<const u32> shown_pids(const SocketRow& row) {
  return std::span(row.pid).first(std::min(row.holders, SocketRow::shown_holders));
}

}  // namespace

std::string format_host(u32 a, std::span<const u8, 16> ipv6) {
  if (a == net::ipv6_elsewhere.value) {
    char text[INET6_ADDRSTRLEN];
    return fmt::format("[{}]", ::inet_ntop(AF_INET6, ipv6.data(), text, sizeof text));
  }
  if (a == net::ipv6_loopback.value) return "[::1]";
  if (a == net::ipv6_any.value) return "[::]";
  if (a == net::dual_any.value) return "*";  // as ss(8)
  return fmt::format("{}.{}.{}.{}", a >> 24, (a >> 16) & 255, (a >> 8) & 255, a & 255);
}

const char* state_name(u8 state) {
  if (state == kernel::state_listening) return "LISTEN";
  return state < state_names.size() ? state_names[state] : "?";
}

std::string SocketText::end_point(const std::string& host, u16 port, bool datagram) const {
  if (!numeric_) {
    if (const servent* service = ::getservbyport(htons(port), datagram ? "udp" : "tcp");
        service != nullptr)
      return host + ":" + service->s_name;
  }
  return fmt::format("{}:{}", host, port);
}

std::string SocketText::local(const SocketRow& row) const {
  return end_point(format_host(row.local_address, row.local_ipv6), row.local_port,
                   has(row, kernel::row_datagram));
}

std::string SocketText::remote(const SocketRow& row) const {
  if (row.state == kernel::state_listening || row.remote_port == 0) {
    if (row.local_address == net::dual_any.value) return "*:*";
    return net::Ipv4Address{row.local_address}.families() == 1 ? "0.0.0.0:*" : "[::]:*";
  }
  return end_point(format_host(row.remote_address, row.remote_ipv6), row.remote_port,
                   has(row, kernel::row_datagram));
}

std::string SocketText::command_of(u32 pid) const {
  const auto found = commands_.find(pid);
  return found == commands_.end() ? "?" : found->second;
}

std::string SocketText::users(const SocketRow& row) const {
  std::string users;
  for (const u32 pid : shown_pids(row))
    users += fmt::format("{}(\"{}\",pid={})", users.empty() ? "" : ",", command_of(pid), pid);
  if (row.holders > SocketRow::shown_holders)
    users += fmt::format(",+{}", row.holders - SocketRow::shown_holders);
  return users.empty() ? "" : "users:(" + users + ")";
}

std::string SocketText::timer(const SocketRow& row) const {
  if (row.wait == 0 && row.state != time_wait) return "";
  return fmt::format("timer:({},{},{})", wait_name(row), format_wait(row.wait_ms), row.retries);
}

std::string SocketText::details(const SocketRow& row) const {
  std::string text;
  const auto add = [&text](const std::string& word) { text += (text.empty() ? "" : " ") + word; };
  if (row.handle != 0) add(fmt::format("sk:{:x}", row.handle));
  if (row.state != kernel::state_listening && !has(row, kernel::row_datagram))
    add("peer:" + peer_name(row));
  if (has(row, kernel::row_unaccepted)) add("unaccepted");
  if (has(row, kernel::row_kernel_seat)) add("shared");
  if (has(row, kernel::row_no_delay)) add("nodelay");
  if (has(row, kernel::row_cork)) add("cork");
  if (has(row, kernel::row_keep_alive)) add("keepalive");
  return text;
}

std::string SocketText::memory(const SocketRow& row) const {
  const bool queues = row.state != kernel::state_listening;
  return fmt::format("skmem:(r{},rb{},t{},tb{})", queues ? row.receive_queue : 0, row.receive_limit,
                     queues ? row.send_queue : 0, row.send_limit);
}

std::string SocketText::info(const SocketRow& row) const {
  if (row.state == kernel::state_listening) return fmt::format("synqueue:{}", row.syn_queue);
  if (row.state == time_wait) return "";
  if (has(row, kernel::row_datagram))
    return row.dropped == 0 ? "" : fmt::format("dropped:{}", row.dropped);
  std::string text;
  const auto add = [&text](const std::string& word) { text += (text.empty() ? "" : " ") + word; };
  if (has(row, kernel::row_timestamps)) add("ts");
  if (row.sack != 0) add("sack");
  if (row.ecn != 0) add("ecn");
  add(control_name(row));
  if (has(row, kernel::row_window_scaling))
    add(fmt::format("wscale:{},{}", row.send_scale, net::receive_window_scale));
  add(fmt::format("rto:{:g}", row.retransmit_timeout_us / 1e3));
  if (row.smoothed_rtt_us != 0)
    add(fmt::format("rtt:{:g}/{:g}", row.smoothed_rtt_us / 1e3, row.rtt_variance_us / 1e3));
  add(fmt::format("mss:{}", row.mss));
  add(fmt::format("cwnd:{}",
                  row.mss == 0 ? row.congestion_window : row.congestion_window / row.mss));
  if (row.slow_start_threshold < 0x4000'0000 && row.mss != 0)
    add(fmt::format("ssthresh:{}", row.slow_start_threshold / row.mss));
  add(fmt::format("bytes_sent:{} bytes_received:{}", row.bytes_sent, row.bytes_received));
  if (row.congestion == static_cast<u8>(net::CongestionState::recovery)) add("recovery");
  if (row.congestion == static_cast<u8>(net::CongestionState::loss)) add("loss");
  if (row.unacked != 0) add(fmt::format("unacked:{}", row.unacked));
  if (row.retransmits != 0) add(fmt::format("retrans:{}/{}", row.retries, row.retransmits));
  if (row.unsent != 0) add(fmt::format("notsent:{}", row.unsent));
  add(fmt::format("snd_wnd:{} rcv_wnd:{}", row.send_window, row.receive_window));
  return text;
}

nlohmann::json SocketText::json(const SocketRow& row, int kernel) const {
  const bool listens = row.state == kernel::state_listening;
  nlohmann::json processes = nlohmann::json::array();
  for (const u32 pid : shown_pids(row))
    processes.push_back({{"pid", pid}, {"command", command_of(pid)}});
  nlohmann::json json = {
      {"protocol", has(row, kernel::row_datagram) ? "udp" : "tcp"},
      {"state", state_name(row.state)},
      {"kernel", kernel},
      {"recv_q", row.receive_queue},
      {"send_q", row.send_queue},
      {"local",
       {{"address", format_host(row.local_address, row.local_ipv6)}, {"port", row.local_port}}},
      {"processes", std::move(processes)},
      {"holders", row.holders}};
  if (has(row, kernel::row_datagram)) {
    json["peer"] = {{"address", format_host(row.remote_address, row.remote_ipv6)},
                    {"port", row.remote_port}};
    json["dropped"] = row.dropped;
    json["memory"] = {{"receive_limit", row.receive_limit}, {"send_limit", row.send_limit}};
    return json;
  }
  if (listens) {
    json["syn_queue"] = row.syn_queue;
    return json;
  }
  json["peer"] = {{"address", format_host(row.remote_address, row.remote_ipv6)},
                  {"port", row.remote_port},
                  {"by", peer_name(row)}};
  if (row.wait != 0 || row.state == time_wait)
    json["timer"] = {{"kind", wait_name(row)}, {"ms", row.wait_ms}, {"retries", row.retries}};
  if (row.state == time_wait) return json;
  json["unaccepted"] = has(row, kernel::row_unaccepted);
  json["memory"] = {{"receive_limit", row.receive_limit}, {"send_limit", row.send_limit}};
  json["info"] = {{"congestion_control", control_name(row)},
                  {"sack", row.sack != 0},
                  {"ecn", row.ecn != 0},
                  {"mss", row.mss},
                  {"cwnd_bytes", row.congestion_window},
                  {"ssthresh_bytes", row.slow_start_threshold},
                  {"rtt_us", row.smoothed_rtt_us},
                  {"rttvar_us", row.rtt_variance_us},
                  {"rto_us", row.retransmit_timeout_us},
                  {"snd_wnd", row.send_window},
                  {"rcv_wnd", row.receive_window},
                  {"retrans", row.retransmits},
                  {"unacked", row.unacked},
                  {"notsent", row.unsent},
                  {"bytes_sent", row.bytes_sent},
                  {"bytes_received", row.bytes_received},
                  {"timestamps", has(row, kernel::row_timestamps)},
                  {"window_scaling", has(row, kernel::row_window_scaling)}};
  return json;
}

}  // namespace cob::cli
