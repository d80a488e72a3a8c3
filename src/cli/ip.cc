// `cob ip`: the cob's address, device, neighbours and routes, in the manner of ip(8). Model: one
// device, cob0, whose queue pairs are the kernels; what all kernels share is asked of the first
// that answers, counters and neighbours of each. One thread.
#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/net_counters.h"
#include "cli/socket_text.h"
#include "cli/view_client.h"

namespace cob::cli {
namespace {

using nlohmann::json;

struct IpOptions {
  std::string object = "addr";
  std::string verb = "show";
  bool statistics = false;
};

struct Cob {
  ControlClient client;
  CobView view;
  kernel::DeviceRow device;
};

std::string format_mac(const u8 (&m)[6]) {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4],
                     m[5]);
}

u32 mask_of(u32 bits) { return bits == 0 ? 0 : ~u32{0} << (32 - std::min(bits, 32u)); }

Cob look_at(const std::string& name) {
  ControlClient client = ControlClient::connect(checked_name(name));
  CobView view = view_cob(client);
  std::string problem = "no kernel runs just now";
  for (int k = 0; k < static_cast<int>(view.kernels.size()); ++k) {
    ViewClient kernel(client, k);
    std::vector<kernel::DeviceRow> rows;
    if (kernel.read(kernel::ViewKind::device, rows) && rows.size() == 1 &&
        rows[0].prefix_bits <= 32)
      return {std::move(client), std::move(view), rows[0]};
    if (!kernel.problem().empty()) problem = kernel.problem();
  }
  throw Failure{exit_state, problem};
}

// Of the first kernel that tells: all have the same.
std::vector<kernel::Ipv6Row> read_ipv6(Cob& cob) {
  std::vector<kernel::Ipv6Row> rows;
  for (int k = 0; k < static_cast<int>(cob.view.kernels.size()); ++k) {
    ViewClient kernel(cob.client, k);
    if (kernel.read(kernel::ViewKind::ipv6, rows)) break;
    rows.clear();
  }
  return rows;
}

std::string ipv6_text(const u8 (&address)[16]) {
  char text[INET6_ADDRSTRLEN];
  return ::inet_ntop(AF_INET6, address, text, sizeof text);
}

bool is_link_local(const kernel::Ipv6Row& row) {
  return row.address[0] == 0xfe && (row.address[1] & 0xc0) == 0x80;
}

std::string lifetime(u32 seconds) {
  return seconds == 0xffff'ffff ? "forever" : fmt::format("{}sec", seconds);
}

json statistics_of(const std::map<std::string, u64>& counters) {
  const auto count = [&counters](const char* name) {
    const auto found = counters.find(name);
    return found == counters.end() ? 0 : found->second;
  };
  return {{"rx",
           {{"bytes", count("CobInOctets") + count("CobUplinkInOctets")},
            {"packets", count("CobInFrames") + count("CobUplinkInFrames")},
            {"errors", count("CobInMalformed") + count("CobInChecksumErrors")},
            {"dropped", count("CobInNotOurs") + count("CobUplinkInDrops")}}},
          {"tx",
           {{"bytes", count("CobOutOctets") + count("CobUplinkOutOctets")},
            {"packets", count("CobOutFrames") + count("CobUplinkOutFrames")},
            {"errors", 0},
            {"dropped", count("CobOutDropsFull") + count("CobOutDropsNoRoute") +
                            count("CobUplinkOutDrops")}}}};
}

json link_of(Cob& cob, const IpOptions& options, Context& context) {
  json link = {{"ifindex", 1},
               {"ifname", "cob0"},
               {"flags", {"UP", "LOWER_UP"}},
               {"mtu", cob.device.mtu},
               {"operstate", "UP"},
               {"link_type", "ether"},
               {"address", format_mac(cob.device.mac)},
               {"queues", cob.view.kernels.size()}};
  if (!options.statistics) return link;
  const NetCounters counters = read_counters(cob.client, cob.view.kernels.size());
  link["stats64"] = statistics_of(counters.sum);
  link["kernels"] = json::array();
  for (const auto& [kernel, own] : counters.by_kernel) {
    json one = statistics_of(own);
    one["kernel"] = kernel;
    link["kernels"].push_back(std::move(one));
  }
  for (const std::string& problem : counters.problems) {
    context.exit_code = exit_state;
    fmt::print(stderr, "cob: {}; its counters are missing\n", problem);
  }
  return link;
}

void print_statistics(const json& all) {
  Table table({"", "RX BYTES", "PACKETS", "ERRORS", "DROPPED", "TX BYTES", "PACKETS", "DROPPED"});
  const auto add = [&table](const std::string& who, const json& s) {
    table.add({who, s["rx"]["bytes"].dump(), s["rx"]["packets"].dump(), s["rx"]["errors"].dump(),
               s["rx"]["dropped"].dump(), s["tx"]["bytes"].dump(), s["tx"]["packets"].dump(),
               s["tx"]["dropped"].dump()});
  };
  for (const json& one : all["kernels"])
    add(fmt::format("    kernel{}", one["kernel"].get<int>()), one);
  add("    all", all["stats64"]);
  fmt::print("{}", table.text());
}

void print_link(const json& link) {
  fmt::print("1: cob0: <UP,LOWER_UP> mtu {} state UP queues {}\n", link["mtu"].get<u32>(),
             link["queues"].get<u64>());
  fmt::print("    link/ether {} brd ff:ff:ff:ff:ff:ff\n", link["address"].get<std::string>());
}

void show_link(Cob& cob, const IpOptions& options, Context& context, bool addresses) {
  json link = link_of(cob, options, context);
  const std::string address = format_host(cob.device.address);
  if (addresses)
    link["addr_info"] = json::array({{{"family", "inet"},
                                      {"local", address},
                                      {"prefixlen", cob.device.prefix_bits},
                                      {"scope", "global"}}});
  const auto ipv6 = addresses ? read_ipv6(cob) : std::vector<kernel::Ipv6Row>{};
  for (const kernel::Ipv6Row& row : ipv6)
    if (row.is_route == 0)
      link["addr_info"].push_back({{"family", "inet6"},
                                   {"local", ipv6_text(row.address)},
                                   {"prefixlen", row.prefix_bits},
                                   {"scope", is_link_local(row) ? "link" : "global"},
                                   {"tentative", row.tentative != 0},
                                   {"deprecated", row.deprecated != 0},
                                   {"dynamic", row.automatic != 0},
                                   {"valid_life_time", row.valid_s},
                                   {"preferred_life_time", row.preferred_s}});
  if (context.json) return print_json(json::array({link}));
  print_link(link);
  if (addresses) fmt::print("    inet {}/{} scope global cob0\n", address, cob.device.prefix_bits);
  for (const kernel::Ipv6Row& row : ipv6)
    if (row.is_route == 0)
      fmt::print("    inet6 {}/{} scope {}{}{}{}{} cob0\n", ipv6_text(row.address), row.prefix_bits,
                 is_link_local(row) ? "link" : "global", row.automatic != 0 ? " dynamic" : "",
                 row.tentative != 0 ? " tentative" : "", row.deprecated != 0 ? " deprecated" : "",
                 row.automatic != 0 ? " valid " + lifetime(row.valid_s) : "");
  if (options.statistics) print_statistics(link);
}

void show_neighbours(Cob& cob, const IpOptions& options, Context& context) {
  json neighbours = json::array();
  for (int k = 0; k < static_cast<int>(cob.view.kernels.size()); ++k) {
    ViewClient kernel(cob.client, k);
    std::vector<kernel::NeighbourRow> rows;
    if (!kernel.read(kernel::ViewKind::neighbours, rows)) {
      context.exit_code = exit_state;
      fmt::print(stderr, "cob: {}; its neighbours are missing\n", kernel.problem());
    }
    for (const kernel::NeighbourRow& row : rows) {
      json entry = {{"dst", row.address != 0 ? format_host(row.address) : ipv6_text(row.ipv6)},
                    {"dev", "cob0"},
                    {"state",
                     {row.fresh      ? "REACHABLE"
                      : row.answered ? "STALE"
                                     : "INCOMPLETE"}},
                    {"kernel", k}};
      if (row.answered != 0) entry["lladdr"] = format_mac(row.mac);
      if (options.statistics) entry["heard_ms"] = row.heard_ms;
      neighbours.push_back(std::move(entry));
    }
  }
  if (context.json) return print_json(neighbours);
  for (const json& n : neighbours) {
    fmt::print(
        "{} dev cob0{}{} {} kernel {}\n", n["dst"].get<std::string>(),
        n.contains("lladdr") ? " lladdr " + n["lladdr"].get<std::string>() : "",
        n.contains("heard_ms") ? fmt::format(" heard {} ms ago", n["heard_ms"].get<u32>()) : "",
        n["state"][0].get<std::string>(), n["kernel"].get<int>());
  }
}

void show_routes(Cob& cob, const Context& context) {
  const u32 bits = cob.device.prefix_bits;
  const std::string own = format_host(cob.device.address);
  const std::string net =
      fmt::format("{}/{}", format_host(cob.device.address & mask_of(bits)), bits);
  json routes = json::array(
      {{{"type", "local"}, {"dst", own}, {"dev", "cob0"}, {"scope", "host"}},
       {{"type", "local"}, {"dst", "127.0.0.0/8"}, {"dev", "cob0"}, {"scope", "host"}},
       {{"type", "unicast"}, {"dst", net}, {"dev", "cob0"}, {"scope", "link"}, {"prefsrc", own}}});
  for (const kernel::Ipv6Row& row : read_ipv6(cob)) {
    const bool direct = row.is_route == 0 || row.prefix_bits != 0;
    json route = {
        {"type", "unicast"},
        {"dst", direct ? fmt::format("{}/{}", ipv6_text(row.address), row.prefix_bits) : "default"},
        {"dev", "cob0"},
        {"scope", direct ? "link" : "global"},
        {"expires", lifetime(row.valid_s)}};
    if (!direct) route["gateway"] = ipv6_text(row.router);
    if (row.is_route == 0) route["type"] = "local", route["dst"] = ipv6_text(row.address);
    routes.push_back(std::move(route));
  }
  if (context.json) return print_json(routes);
  for (const json& r : routes) {
    if (r.contains("expires")) {
      fmt::print("{}{}{} dev cob0 expires {}\n", r["type"] == "local" ? "local " : "",
                 r["dst"].get<std::string>(),
                 r.contains("gateway") ? " via " + r["gateway"].get<std::string>() : "",
                 r["expires"].get<std::string>());
      continue;
    }
    const bool local = r["type"] == "local";
    fmt::print("{}{} dev cob0 scope {}{}\n", local ? "local " : "", r["dst"].get<std::string>(),
               r["scope"].get<std::string>(), local ? "" : " src " + own);
  }
}

// ip(8) takes any beginning of a word that is one thing only.
std::string whole_word(const std::string& word) {
  for (const char* known : {"address", "addr", "link", "neighbour", "neighbor", "route"}) {
    if (!word.empty() && std::string_view(known).starts_with(word)) return known;
  }
  fail(exit_usage, "'{}' is none of addr, link, neigh, route (see: cob ip --help)", word);
}

void ip(Context& context, const IpOptions& options) {
  const std::string object = whole_word(options.object);
  Cob cob = look_at(context.name);
  if (object.starts_with("addr")) return show_link(cob, options, context, true);
  if (object == "link") return show_link(cob, options, context, false);
  if (object == "route") return show_routes(cob, context);
  show_neighbours(cob, options, context);
}

}  // namespace

void add_ip(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("ip", "Show the cob's address, device, neighbours and routes, as ip(8)");
  auto options = std::make_shared<IpOptions>();
  command->add_option("object", options->object, "addr, link, neigh or route; or their beginnings")
      ->type_name("OBJECT")
      ->capture_default_str();
  command->add_option("verb", options->verb, "show, which is all there is to do")
      ->type_name("VERB")
      ->check(CLI::IsMember({"show", "list", "ls"}).description(""));
  command->add_flag("-s,--statistics", options->statistics,
                    "What the device counts, by kernel and summed");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob ip                 the address and the device\n"
      "  cob ip -s link         bytes, frames, errors, drops\n"
      "  cob ip neigh           who was asked by ARP or by IPv6, and what they answered\n"
      "  cob ip --json route\n"
      "\n"
      "A cob has one IPv4 address, one MAC and one device, cob0; each kernel has a queue pair "
      "of it. 'queues' counts them.\n"
      "Addresses are given at its start: cob up --ip A/BITS --ip6 A/BITS. cob stats --net has "
      "all counters.");
  command->callback([options, &context] { ip(context, *options); });
}

}  // namespace cob::cli
