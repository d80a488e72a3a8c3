// `cob angel`: what places new connections by load: which policies are on, what they decided and
// why; docs/angel.md. One thread.
#include <fmt/format.h>
#include <poll.h>

#include <memory>

#include "cli/angel_policies.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/kernel_samples.h"

namespace cob::cli {
namespace {

constexpr int sample_ms = 100;

std::string joined(const nlohmann::json& names) {
  std::string text;
  for (const auto& name : names) {
    if (!text.empty()) text += ",";
    text += name.is_string() ? name.get<std::string>() : name.dump();
  }
  return text.empty() ? "none" : text;
}

std::string state_of(const nlohmann::json& kernel) {
  if (!kernel.contains("angel")) return kernel.value("state", "");
  return kernel["angel"]["draining"].get<bool>() ? "draining" : kernel.value("state", "");
}

void print_text(const nlohmann::json& status) {
  fmt::print("policies: {}\n\n", joined(status["policies"]));
  Table table({"KERNEL", "STATE", "ACCEPT QUEUE", "OLDEST US", "ACCEPTED", "REDIRECTED", "SERVED",
               "FAILED", "TAKEN", "GIVEN", "GROUPS MOVED", "LOOKS HUNG"});
  for (const auto& kernel : status["kernels"]) {
    std::vector<std::string> row{kernel["kernel"].dump(), state_of(kernel)};
    if (kernel.contains("angel")) {
      const auto& angel = kernel["angel"];
      row.push_back(angel["load"]["accept_queue"].dump());
      row.push_back(angel["load"]["oldest_accept_us"].dump());
      for (const char* name :
           {"accepted", "redirected", "served", "failed", "taken", "given", "groups_moved"})
        row.push_back(angel["since_start"][name].dump());
      row.push_back(angel["suspected"].empty() ? "-" : joined(angel["suspected"]));
    }
    table.add(std::move(row));
  }
  fmt::print("{}\n", table.text());
  Table decisions({"DECISION", "KERNEL", "TIMES"});
  bool any = false;
  for (const auto& kernel : status["kernels"]) {
    if (!kernel.contains("angel")) continue;
    for (const auto& [cause, times] : kernel["angel"]["decisions"].items()) {
      if (times == 0) continue;
      any = true;
      decisions.add({cause, kernel["kernel"].dump(), times.dump()});
    }
  }
  if (any) fmt::print("{}", decisions.text());
}

void status(const Context& context) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const CobView view = view_cob(client);
  const auto before = sample(view);
  ::poll(nullptr, 0, sample_ms);
  const auto after = sample(view);
  nlohmann::json shown{{"name", view.info.value("name", "")}, {"policies", view.info["angel"]}};
  shown["kernels"] = nlohmann::json::array();
  for (std::size_t i = 0; i < view.kernels.size(); ++i) {
    const nlohmann::json all = describe_kernel(view.kernels[i].info, before[i], after[i]);
    nlohmann::json kernel{{"kernel", all["kernel"]},
                          {"island", all["island"]},
                          {"state", all["state"]},
                          {"draining", all["draining"]}};
    if (all.contains("angel")) kernel["angel"] = all["angel"];
    shown["kernels"].push_back(std::move(kernel));
  }
  if (context.json) return print_json(shown);
  print_text(shown);
}

void set(const std::string& text, const Context& context) {
  const u32 policies = parse_angel(text);
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const ControlReply reply = client.ask({{"do", "angel"}, {"policies", policies}});
  if (context.json) return print_json({{"policies", reply.body["policies"]}});
  fmt::print("policies: {}\n", joined(reply.body["policies"]));
}

}  // namespace

void add_angel(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "angel", "Placing new connections by load: what is on, what it did and why");
  command->require_subcommand(1);
  CLI::App* shown = command->add_subcommand("status", "Show policies, load and decisions");
  add_name_option(*shown, context);
  add_json_option(*shown, context);
  shown->callback([&context] { status(context); });
  CLI::App* chosen = command->add_subcommand("set", "Switch policies on and off, at once");
  auto policies = std::make_shared<std::string>();
  chosen->add_option("POLICIES", *policies, "moves, redirect, take, hung, with commas; all; none")
      ->required()
      ->type_name("");
  add_name_option(*chosen, context);
  add_json_option(*chosen, context);
  chosen->callback([policies, &context] { set(*policies, context); });
  add_examples(
      *command,
      "  cob angel status              accept queues, what was decided, and why\n"
      "  cob angel set redirect,take   no flow groups move any more\n"
      "  cob angel set none            connections stay where they hash to\n"
      "\n"
      "moves      flow groups without connections go to kernels with less to do\n"
      "redirect   a kernel with connections waiting hands new ones to one where somebody waits\n"
      "take       a kernel where somebody waits takes connections that others have not accepted\n"
      "hung       a kernel that does not take its input for 10 ms gets nothing new\n"
      "\n"
      "SERVED, FAILED   of the REDIRECTED: their clients got an answer, or they ended without\n"
      "TAKEN, GIVEN     connections that came from, and went to, other kernels' accept queues\n"
      "They concern ports on which programs of several kernels listen (SO_REUSEPORT).");
}

}  // namespace cob::cli
