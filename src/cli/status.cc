// `cob status`: the kernels, their load over a short sample, what was dropped, and who listens
// where; from the boards. Rates are differences of two readings of a board 200 ms apart. One
// thread.
#include <fmt/format.h>
#include <poll.h>

#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/kernel_samples.h"
#include "message/stats.h"

namespace cob::cli {
namespace {

constexpr int sample_ms = 200;

// What joins it to each of the others. `kernels`: all, in the supervisor's words.
nlohmann::json links_of(const kernel::Board& board, const std::vector<KernelView>& kernels) {
  nlohmann::json links = nlohmann::json::array();
  for (const KernelView& other : kernels) {
    const auto k = other.info.value("kernel", 0u);
    if (k == board.kernel || k >= kernel::board_peers) continue;
    const kernel::BoardPeer& peer = board.peer[k];
    links.push_back({{"kernel", k},
                     {"island", other.info.value("island", "")},
                     {"transport", name_of(static_cast<message::TransportKind>(peer.transport))},
                     {"up", peer.connected != 0}});
  }
  return links;
}

std::string format_uptime(i64 ms) {
  const i64 s = ms / 1'000;
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3'600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3'600, s / 60 % 60);
}

// What is in use, of how much: "3/511".
std::string of(const nlohmann::json& object, const char* used, const char* room) {
  return fmt::format("{}/{}", object[used].get<u64>(), object[room].get<u64>());
}

void print_queues(const nlohmann::json& kernels) {
  Table listeners({"LISTENER", "KERNEL", "ACCEPT QUEUE", "HANDSHAKES"});
  Table programs({"PID", "KERNEL", "CALLS WAITING", "RECEIVE CHUNKS", "SEND CHUNKS", "COMMAND"});
  Table rings({"FROM KERNEL", "TO", "MESSAGE LINES", "FRAMES"});
  bool any_listener = false, any_program = false, any_ring = false;
  for (const auto& kernel : kernels) {
    if (!kernel.contains("queues")) continue;
    const std::string number = kernel["kernel"].dump();
    for (const auto& l : kernel["queues"]["listeners"]) {
      any_listener = true;
      listeners.add({l["listener"].get<std::string>(), number, of(l, "accept_queue", "backlog"),
                     l["handshakes"].dump()});
    }
    for (const auto& p : kernel["queues"]["programs"]) {
      any_program = true;
      programs.add({p["pid"].dump(), number, p["calls_waiting"].dump(),
                    of(p, "receive_chunks", "receive_chunks_of"),
                    of(p, "send_chunks", "send_chunks_of"), p["command"].get<std::string>()});
    }
    for (const auto& p : kernel["queues"]["peers"]) {
      any_ring = true;
      rings.add({number, p["kernel"].dump(), of(p, "message_lines", "message_lines_of"),
                 of(p, "frames", "frames_of")});
    }
  }
  if (any_listener) fmt::print("\n{}", listeners.text());
  if (any_program) fmt::print("\n{}", programs.text());
  if (any_ring) fmt::print("\n{}", rings.text());
}

void print_uplink(const nlohmann::json& status) {
  if (!status.contains("uplink")) return;
  Table table({"UPLINK OF KERNEL", "FRAMES IN", "OUT", "MB IN", "OUT", "DROPPED", "HANDED ON",
               "LOST", "UNSETTLED", "ENTRIES"});
  for (const auto& kernel : status["kernels"]) {
    if (!kernel.contains("uplink")) continue;
    const auto& u = kernel["uplink"];
    const auto megabytes = [&u](const char* key) {
      return fmt::format("{:.1f}", u[key].get<double>() / 1e6);
    };
    table.add({kernel["kernel"].dump(), u["frames_in"].dump(), u["frames_out"].dump(),
               megabytes("bytes_in"), megabytes("bytes_out"), u["dropped"].dump(),
               u["handed_on"].dump(), u["lost"].dump(), u["unsettled"].dump(),
               u["entries"].dump()});
  }
  const std::string receives = status.value("linux_receives", "");
  fmt::print("\nuplink {}, steered by {}{}{}\n{}", status["uplink"].get<std::string>(),
             status["steering"].get<std::string>(), receives.empty() ? "" : "; Linux receives ",
             receives, table.text());
}

void print_cable(const nlohmann::json& cable, const nlohmann::json& kernels) {
  if (!cable.is_object()) return;
  const std::string state = cable.value("state", "");
  if (state != "plugged") {
    fmt::print("\ncable: {}{}{}\n", state, cable.contains("why") ? ": " : "",
               cable.value("why", ""));
    return;
  }
  fmt::print("\ncable to cob '{}' of user {} at {}, {} of {} kernels alive\n",
             cable.value("name", ""), cable["uid"].dump(), cable.value("address", ""),
             cable["alive"].dump(), cable["kernels"].dump());
  Table table({"CABLE OF KERNEL", "WIRES", "FRAMES IN", "OUT", "MB IN", "OUT", "FULL", "NO WIRE",
               "CUT", "HANDED ON", "LOST", "UNSETTLED", "ENTRIES"});
  for (const auto& kernel : kernels) {
    if (!kernel.contains("cable") || !kernel.contains("uplink")) continue;
    const auto& c = kernel["cable"];
    const auto& u = kernel["uplink"];
    const auto mb = [&c](const char* bytes) {
      return fmt::format("{:.1f}", c[bytes].get<double>() / 1e6);
    };
    table.add({kernel["kernel"].dump(), c["wires"].dump(), c["frames_in"].dump(),
               c["frames_out"].dump(), mb("bytes_in"), mb("bytes_out"), c["dropped_full"].dump(),
               c["dropped_route"].dump(), c["wires_cut"].dump(), u["handed_on"].dump(),
               u["lost"].dump(), u["unsettled"].dump(), u["entries"].dump()});
  }
  fmt::print("{}", table.text());
}

// Of islands, and what lies between them.
void print_islands(const nlohmann::json& status) {
  if (status["islands"].size() < 2) return;
  Table table({"LINK OF KERNEL", "ISLAND", "TO", "ISLAND", "BY", "STATE"});
  for (const auto& kernel : status["kernels"]) {
    if (!kernel.contains("links")) continue;
    for (const auto& link : kernel["links"]) {
      if (link["island"] == kernel["island"]) continue;
      table.add({kernel["kernel"].dump(), kernel.value("island", ""), link["kernel"].dump(),
                 link.value("island", ""), link.value("transport", ""),
                 link["up"].get<bool>() ? "up" : "down"});
    }
  }
  fmt::print("\n{}", table.text());
}

void print_shares(const nlohmann::json& shares) {
  if (shares.empty()) return;
  Table table({"SHARE", "ISLAND", "MODE", "DIRECTORY"});
  for (const auto& share : shares) {
    table.add({share["number"].dump(), share.value("island", ""),
               share["read_only"].get<bool>() ? "ro" : "rw", share.value("path", "")});
  }
  fmt::print("\n{}", table.text());
}

void print_text(const nlohmann::json& status) {
  fmt::print("cob '{}' at {}, supervisor pid {}, up {}\n\n", status.value("name", ""),
             status.value("address", ""), status.value("pid", 0),
             format_uptime(status.value("uptime_ms", i64{0})));
  Table table({"KERNEL", "ISLAND", "STATE", "PID", "CORE", "EPOCH", "UPTIME", "PROGRAMS", "CONNS",
               "MEMORY", "OPENS/S", "CALLS/S", "MSGS/S", "FRAMES/S", "MB/S", "CONTESTED", "DROPPED",
               "FULL"});
  for (const auto& kernel : status["kernels"]) {
    std::vector<std::string> row{kernel["kernel"].dump(),
                                 kernel.value("island", ""),
                                 kernel.value("state", ""),
                                 kernel["pid"].dump(),
                                 kernel["core"].dump(),
                                 kernel["epoch"].dump(),
                                 format_uptime(kernel.value("uptime_ms", i64{0}))};
    if (kernel.contains("now")) {
      const auto &now = kernel["now"], &rate = kernel["per_second"], &total = kernel["since_start"];
      auto sum = [&rate](const char* in, const char* out) {
        return rate[in].get<double>() + rate[out].get<double>();
      };
      row.insert(row.end(), {now["programs"].dump(), now["connections"].dump(),
                             fmt::format("{:.1f}M", now["resident_kib"].get<double>() / 1024),
                             format_count(sum("active_opens", "passive_opens")),
                             format_count(rate["calls"].get<double>()),
                             format_count(sum("messages_in", "messages_out")),
                             format_count(sum("frames_in", "frames_out")),
                             fmt::format("{:.1f}", sum("bytes_in", "bytes_out") / 1e6),
                             fmt::format("{:.0f}%", kernel["contested_percent"].get<double>()),
                             fmt::format("{}", total["frames_dropped"].get<u64>() +
                                                   total["datagrams_dropped"].get<u64>() +
                                                   total["accept_overflows"].get<u64>()),
                             total["messages_full"].dump()});
    }
    table.add(std::move(row));
  }
  fmt::print("{}", table.text());
  print_islands(status);
  print_shares(status["shares"]);
  print_uplink(status);
  print_cable(status.value("cable", nlohmann::json()), status["kernels"]);
  print_queues(status["kernels"]);
}

void status(const Context& context) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const CobView view = view_cob(client);
  const std::vector<KernelSample> before = sample(view);
  ::poll(nullptr, 0, sample_ms);
  const std::vector<KernelSample> after = sample(view);
  nlohmann::json status = view.info;
  status["kernels"] = nlohmann::json::array();
  for (std::size_t i = 0; i < view.kernels.size(); ++i) {
    auto& kernel =
        status["kernels"].emplace_back(describe_kernel(view.kernels[i].info, before[i], after[i]));
    if (after[i].board) kernel["links"] = links_of(*after[i].board, view.kernels);
  }
  if (context.json) return print_json(status);
  print_text(status);
}

}  // namespace

void add_status(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("status", "Show the kernels: state, load, drops, listeners");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob status\n"
      "  watch -n 1 cob status --name web\n"
      "  cob status --json            every counter\n"
      "\n"
      "STATE      running, asleep (armed, nothing to do), stuck (its loop stands still), "
      "restarting\n"
      "EPOCH      which life of the kernel this is; 2 or more: it died and was started again\n"
      "MEMORY     bytes resident, those that it shares with its programs and peers included\n"
      "CONTESTED  share of the time in which another process computed on the kernel's core\n"
      "DROPPED    frames and datagrams dropped, connections refused by a full accept queue, since "
      "the "
      "kernel's start\n"
      "FULL       times a message to another kernel found the ring full and had to wait\n"
      "\n"
      "With several islands:\n"
      "LINK       what joins kernels of different islands: a window or a socket; up, or down: the\n"
      "           other kernel is not there, or was not heard of for 2 s\n"
      "With shares (cob up --share): whose directories the whole cob shall see\n"
      "With an uplink, since the kernel's start:\n"
      "DROPPED    frames malformed, or without room on this side or the other\n"
      "HANDED ON  frames given to the kernel that has their connection; LOST: that found no room\n"
      "UNSETTLED  frames of no known connection that came while flows were steered anew\n"
      "ENTRIES    connections of other kernels whose frames come to this one\n"
      "With a cable, of each kernel since its start:\n"
      "WIRES      kernels of the other cob that frames flow to\n"
      "FULL       frames dropped because the other kernel did not keep up\n"
      "NO WIRE    frames dropped because the kernel that they were for was not there\n"
      "CUT        wires that were cut because the other kernel broke the protocol\n"
      "\n"
      "Then what waits, of how much room:\n"
      "ACCEPT QUEUE    connections that no program has accepted yet, of the listener's backlog\n"
      "HANDSHAKES      connections of that listener that are being opened\n"
      "CALLS WAITING   calls that a program has posted and its kernel has not taken\n"
      "RECEIVE CHUNKS  2 KiB pieces of the program's memory that hold what it has not read\n"
      "SEND CHUNKS     the same, of what was not acknowledged yet\n"
      "MESSAGE LINES, FRAMES  what the other kernel has not taken out of the ring to it");
  command->callback([&context] { status(context); });
}

}  // namespace cob::cli
