// The supervisor's islands on other machines (docs/islands.md, "Machines"): added, removed, and
// told to the others. Model: a stand-in process (src/island) is the kernel; where it is called is
// known from its hello, anew in each life. Their numbers are the cob's last, as `cob up --room`
// left them. The supervisor's thread.
//   {"do":"island-add","name","architecture","image","memory","processors"}
//                                 -> {"ok":true,"kernel":K}: it boots
//   {"do":"island-remove","name"} -> {"ok":true,"kernel":K}
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "cli/supervisor.h"

namespace cob::cli {
namespace {

constexpr Duration boot_timeout = Duration::seconds(60);

nlohmann::json refusal(std::string text) { return {{"ok", false}, {"error", std::move(text)}}; }

std::string text_of(const nlohmann::json& request, const char* name) {
  const auto found = request.find(name);
  return found != request.end() && found->is_string() ? found->get<std::string>() : "";
}

u32 number_of(const nlohmann::json& request, const char* name) {
  const auto found = request.find(name);
  return found != request.end() && found->is_number_unsigned() ? found->get<u32>() : 0;
}

}  // namespace

// The slot of a number that is free, with its former lives counted; nullptr: there is none.
KernelSlot* Supervisor::free_slot(KernelPlan& plan) {
  for (KernelSlot& kernel : kernels_) {
    if (!kernel.removed() || kernel.state() != KernelState::ended) continue;
    plan.config.kernel = kernel.id();
    return &kernel;
  }
  if (kernels_.size() == whole_.kernels) return nullptr;
  plan.config.kernel = static_cast<u16>(kernels_.size());
  kernels_.emplace_back(plan);
  return &kernels_.back();
}

Supervisor::Reply Supervisor::answer_island_add(const nlohmann::json& request) {
  const std::string name = text_of(request, "name"), image = text_of(request, "image"),
                    architecture = text_of(request, "architecture");
  const u32 memory = number_of(request, "memory"), processors = number_of(request, "processors");
  if (name.empty() || image.empty() || architecture.empty() || memory == 0 || processors == 0)
    return {refusal("island-add needs a name, an architecture, an image, memory and processors"),
            {},
            {}};
  if (find_island(name) >= 0)
    return {refusal(fmt::format("there is an island '{}' already; '{}' has {}", name, options_.name,
                                island_names())),
            {},
            {}};
  if (options_.room == 0)
    return {refusal(fmt::format("cob '{}' has no room for islands that are added later; bring it "
                                "up with: cob up --room N",
                                options_.name)),
            {},
            {}};
  const auto slash = options_.kernel_executable.rfind('/');
  const std::string executable = options_.kernel_executable.substr(0, slash + 1) + "cob-island";
  if (::access(executable.c_str(), X_OK) != 0)
    return {refusal(fmt::format("{}: {}", executable, std::strerror(errno))), {}, {}};
  KernelPlan plan{
      .config = whole_,
      .executable = executable,
      .log = directory_.log(),
      .descriptors = {},
      .shares = {},
      .arguments = {architecture, image, std::to_string(memory), std::to_string(processors)},
      .hello_timeout = boot_timeout};
  KernelSlot* kernel = free_slot(plan);
  if (kernel == nullptr)
    return {refusal(fmt::format("cob '{}' has room for {} islands that are added later, and has "
                                "them; see: cob up --room",
                                options_.name, options_.room)),
            {},
            {}};
  plan.shares = shares_for(plan.config.island[plan.config.kernel]);
  kernel->renew(std::move(plan));
  name_of_added_[kernel->id()] = name;
  log(fmt::format("island {} ({}) is kernel {}", name, architecture, kernel->id()));
  spawn(*kernel);
  return {{{"ok", true}, {"kernel", kernel->id()}, {"epoch", kernel->epoch()}}, {}, {}};
}

Supervisor::Reply Supervisor::answer_island_remove(const nlohmann::json& request) {
  const std::string name = text_of(request, "name");
  const int island = find_island(name);
  if (island < 0)
    return {refusal(fmt::format("there is no island '{}'; '{}' has {}", name, options_.name,
                                island_names())),
            {},
            {}};
  const auto found = std::ranges::find_if(kernels_, [&](const KernelSlot& kernel) {
    return !kernel.removed() && kernel.island() == island;
  });
  if (found == kernels_.end() || !found->elsewhere())
    return {refusal(fmt::format("island '{}' came with the cob, and goes with it", name)), {}, {}};
  remove_island(*found);
  return {{{"ok", true}, {"kernel", found->id()}}, {}, {}};
}

void Supervisor::remove_island(KernelSlot& kernel) {
  if (kernel.running()) tell_link(kernel, 0);
  name_of_added_.erase(kernel.id());
  kernel.remove(now_);
}

// A machine that never came up is not tried again and again.
void Supervisor::on_added_end(KernelSlot& kernel, bool was_running) {
  if (was_running) tell_link(kernel, 0);
  if (kernel.has_run() || kernel.removed()) return;
  log(fmt::format("island {} did not come up; it is removed", name_of_added_[kernel.id()]));
  remove_island(kernel);
}

// The others are told where it is called, 0: nowhere any more.
void Supervisor::tell_link(const KernelSlot& added, u16 port) {
  for (KernelSlot& kernel : kernels_)
    if (kernel.running() && !kernel.elsewhere()) tell_link_to(kernel, added, port);
}

void Supervisor::tell_link_to(KernelSlot& told, const KernelSlot& added, u16 port) {
  message::Simple where{};
  where.kind = std::to_underlying(message::ControlKind::link_at);
  where.value = added.id();
  where.epoch = added.epoch();
  where.reserved = port;
  if (told.send(where).is_error())
    broken_protocol(told, "nothing for the news of its peers: its queue is full");
}

// A kernel, of whatever island, has said hello.
void Supervisor::join_added(KernelSlot& kernel) {
  if (kernel.elsewhere()) return tell_link(kernel, kernel.link_port());
  for (const KernelSlot& other : kernels_)
    if (other.running() && other.elsewhere()) tell_link_to(kernel, other, other.link_port());
}

}  // namespace cob::cli
