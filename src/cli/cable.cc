// `cob cable A B`: plugs a cable between two cobs of this user, or unplugs it. Model: the command
// makes a pair of sockets and hands each supervisor an end; the rest the two settle themselves
// (cable_end.h). Cobs of other users meet at a path: `cob up --cable FILE`. One thread.
#include <fmt/format.h>
#include <poll.h>

#include <cstring>
#include <memory>

#include "base/clock.h"
#include "base/passing.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr Duration patience = Duration::seconds(5);

struct CableOptions {
  std::string one, other;
  bool remove = false;
};

// A cob and what it says of its cable.
struct End {
  std::string name;
  ControlClient client;
  CobView view;

  explicit End(const std::string& asked)
      : name(checked_name(asked)), client(ControlClient::connect(name)), view(view_cob(client)) {}

  void look_again() { view = view_cob(client); }
  std::string address() const { return view.info.value("address", ""); }
  nlohmann::json cable() const { return view.info.value("cable", nlohmann::json()); }
  bool has_cable() const {
    return cable().is_object() && cable().value("state", "") != "unplugged";
  }
  bool has_cable_to(const End& other) const {
    return has_cable() && cable().value("name", "") == other.name &&
           cable().value("address", "") == other.address();
  }
  // Every kernel has a wire to every one of `other`.
  bool wired_to(const End& other) const {
    for (const KernelView& kernel : view.kernels) {
      const auto board = kernel.read();
      if (board == nullptr || board->cable.wires != other.view.kernels.size()) return false;
    }
    return has_cable_to(other);
  }
};

void check(const End& one, const End& other) {
  for (const End* end : {&one, &other}) {
    if (!end->has_cable()) continue;
    const End& far = end == &one ? other : one;
    if (end->has_cable_to(far))
      fail(exit_state, "cobs '{}' and '{}' have a cable already", one.name, other.name);
    fail(exit_state,
         "cob '{}' has a cable to '{}' already, and a cob has one; remove it first: cob cable "
         "--remove {} {}",
         end->name, end->cable().value("name", "?"), end->name, end->cable().value("name", "?"));
  }
  if (one.name == other.name) fail(exit_usage, "a cable needs two cobs; '{}' is one", one.name);
  const CobAddress a = parse_address(one.address()), b = parse_address(other.address());
  if (a.address == b.address) {
    fail(exit_state,
         "cobs '{}' and '{}' have the same address, {}; bring one up with another, such as "
         "--ip 10.77.0.2/24",
         one.name, other.name, one.address());
  }
  const u32 mask = a.prefix_bits == 0 ? 0 : ~0U << (32 - a.prefix_bits);
  if (a.prefix_bits != b.prefix_bits || ((a.address ^ b.address) & mask) != 0) {
    fail(exit_state, "cob '{}' at {} and cob '{}' at {} are not of one network", one.name,
         one.address(), other.name, other.address());
  }
}

void plug(End& one, End& other) {
  check(one, other);
  auto pair = seqpacket_pair();
  if (pair.is_error()) fail(exit_state, "no socket pair: {}", std::strerror(pair.error().code));
  auto& [at_one, at_other] = pair.value();
  one.client.ask({{"do", "cable"}, {"role", "maker"}}, at_one.ref());
  at_one.reset();
  other.client.ask({{"do", "cable"}, {"role", "other"}}, at_other.ref());
  at_other.reset();
  one.look_again();  // what was seen before may tell of an earlier cable's end
  other.look_again();
  const Time give_up = HostClock::read() + patience;
  while (!one.wired_to(other) || !other.wired_to(one)) {
    for (End* end : {&one, &other}) {
      if (!end->has_cable() && end->cable().is_object()) {
        fail(exit_state, "cob '{}' does not take the cable: {}", end->name,
             end->cable().value("why", ""));
      }
    }
    if (HostClock::read() > give_up) {
      fail(exit_state, "the cable is plugged in, but not all kernels answer; see: cob status -n {}",
           one.name);
    }
    ::poll(nullptr, 0, 5);
    one.look_again();
    other.look_again();
  }
}

void unplug(End& one, End& other) {
  if (!one.has_cable_to(other))
    fail(exit_state, "cobs '{}' and '{}' have no cable", one.name, other.name);
  one.client.ask({{"do", "uncable"}});
  const Time give_up = HostClock::read() + patience;
  while (other.has_cable_to(one) && HostClock::read() < give_up) {
    ::poll(nullptr, 0, 5);
    other.look_again();
  }
}

void cable(const CableOptions& options, const Context& context) {
  End one(options.one), other(options.other);
  if (options.remove) {
    unplug(one, other);
  } else {
    plug(one, other);
  }
  if (context.json)
    return print_json({{"cobs", {one.name, other.name}}, {"plugged", !options.remove}});
  if (options.remove) {
    fmt::print("the cable between cobs '{}' and '{}' is removed\n", one.name, other.name);
  } else {
    fmt::print("a cable joins cob '{}' at {} and cob '{}' at {}\n", one.name, one.address(),
               other.name, other.address());
  }
}

}  // namespace

void add_cable(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("cable", "Join two cobs by shared memory, so that each reaches the other");
  auto options = std::make_shared<CableOptions>();
  command->add_option("COB", options->one, "One cob's name")->required()->type_name("");
  command->add_option("OTHER", options->other, "The other's")->required()->type_name("");
  command->add_flag("--remove", options->remove, "Take the cable away again");
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob up --name a --cores 0 --ip 10.77.0.1/24\n"
      "  cob up --name b --cores 1 --ip 10.77.0.2/24\n"
      "  cob cable a b                                 then: cob run -n a -- curl "
      "http://10.77.0.2/\n"
      "  cob cable --remove a b\n"
      "\n"
      "Both cobs are yours and up; their addresses differ and are of one network. A cob has one "
      "cable. Needs no\n"
      "privilege. Cobs of other users or containers meet at a path: cob up --cable FILE.\n"
      "'cob status' shows the cable, its frames and what was dropped.");
  command->callback([options, &context] { cable(*options, context); });
}

}  // namespace cob::cli
