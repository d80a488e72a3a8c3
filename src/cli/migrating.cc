// The supervisor's part in moving a program: it joins the two kernels, which do the rest by
// themselves, or, if they are of different islands, the program with the new one; docs/moving.md.
// The supervisor's thread.
#include <fmt/format.h>

#include <cstring>

#include "cli/supervisor.h"

namespace cob::cli {
namespace {

nlohmann::json refusal(std::string text) { return {{"ok", false}, {"error", std::move(text)}}; }

i64 number_of(const nlohmann::json& request, const char* name) {
  const auto found = request.find(name);
  return found != request.end() && found->is_number_integer() ? found->get<i64>() : -1;
}

// The program's end of a liveness socket with that kernel.
Result<Fd> liveness_with(KernelSlot& kernel, u32 pid) {
  auto [kernel_end, program_end] = TRY(seqpacket_pair());
  make_blocking(program_end.ref());
  message::Simple program{};
  program.kind = std::to_underlying(message::ControlKind::program);
  program.value = pid;
  program.epoch = kernel.epoch();
  std::vector<Fd> passed;
  passed.push_back(std::move(kernel_end));
  TRY(kernel.send_program(program, std::move(passed)));
  return std::move(program_end);
}

}  // namespace

Supervisor::Reply Supervisor::answer_migrate(const nlohmann::json& request) {
  const i64 pid = number_of(request, "pid"), from = number_of(request, "from"),
            to = number_of(request, "to");
  const auto kernels = static_cast<i64>(kernels_.size());
  if (pid <= 0 || pid > INT32_MAX || from < 0 || from >= kernels)
    return {refusal("migrate needs a program and its kernel"), {}, {}};
  if (to < 0 || to >= kernels)
    return {refusal(fmt::format("there is no kernel {}; '{}' has kernels 0 to {}", to,
                                options_.name, kernels - 1)),
            {},
            {}};
  if (from == to)
    return {refusal(fmt::format("program {} is on kernel {} already", pid, to)), {}, {}};
  KernelSlot& old_kernel = kernels_[static_cast<std::size_t>(from)];
  KernelSlot& new_kernel = kernels_[static_cast<std::size_t>(to)];
  for (const KernelSlot* kernel : {&old_kernel, &new_kernel}) {
    if (kernel->elsewhere())
      return {refusal(fmt::format("kernel {} is on another machine; programs do not move there or "
                                  "from there",
                                  kernel->id())),
              {},
              {}};
    if (!kernel->running())
      return {refusal(fmt::format("kernel {} is {}", kernel->id(), to_string(kernel->state()))),
              {},
              {}};
    if (kernel->has_queued())
      return {refusal(fmt::format("kernel {} stands still", kernel->id())), {}, {}};
  }
  auto channel = seqpacket_pair();
  auto report = seqpacket_pair();
  if (channel.is_error() || report.is_error())
    return {refusal("the supervisor has no descriptors left"), {}, {}};
  const bool apart = !Supervisor::together(old_kernel, new_kernel);
  auto [old_end, new_end] = channel.release_value();
  auto [kernel_end, command_end] = report.release_value();
  message::Simple in{};
  in.kind = std::to_underlying(message::ControlKind::move_in);
  in.value = old_kernel.id();
  in.epoch = new_kernel.epoch();
  std::vector<Fd> to_new, to_old;
  to_new.push_back(std::move(new_end));
  message::Simple out{};
  out.kind = std::to_underlying(message::ControlKind::move_out);
  out.value = static_cast<u32>(pid);
  out.epoch = old_kernel.epoch();
  const auto tree = request.find("tree");
  const bool together = tree != request.end() && tree->is_boolean() && tree->get<bool>();
  out.reserved =
      new_kernel.id() | (together ? message::move_together : 0) | (apart ? message::move_apart : 0);
  to_old.push_back(std::move(old_end));
  to_old.push_back(std::move(kernel_end));
  if (options_.islands.size() > 1) {
    auto liveness = liveness_with(new_kernel, static_cast<u32>(pid));
    if (liveness.is_error())
      return {refusal(fmt::format("kernel {} takes no programs just now", to)), {}, {}};
    to_old.push_back(liveness.release_value());
  }
  if ((!apart && new_kernel.send(in, std::move(to_new)).is_error()) ||
      old_kernel.send(out, std::move(to_old)).is_error())
    return {refusal("a kernel takes no requests"), {}, {}};
  Reply reply{{{"ok", true}, {"core", new_kernel.core()}}, {}, {}};
  reply.owned.push_back(std::move(command_end));
  return reply;
}

Supervisor::Reply Supervisor::answer_migrate_thread(const nlohmann::json& request) {
  const i64 tid = number_of(request, "tid"), from = number_of(request, "from"),
            to = number_of(request, "to");
  const auto kernels = static_cast<i64>(kernels_.size());
  if (tid <= 0 || tid > INT32_MAX || from < 0 || from >= kernels)
    return {refusal("migrate_thread needs a thread and its kernel"), {}, {}};
  if (to < 0 || to >= kernels)
    return {refusal(fmt::format("there is no kernel {}; '{}' has kernels 0 to {}", to,
                                options_.name, kernels - 1)),
            {},
            {}};
  KernelSlot& old_kernel = kernels_[static_cast<std::size_t>(from)];
  const KernelSlot& new_kernel = kernels_[static_cast<std::size_t>(to)];
  if (!Supervisor::together(old_kernel, new_kernel))
    return {refusal(fmt::format("kernel {} is of another island", to)), {}, {}};
  for (const KernelSlot* kernel : {static_cast<const KernelSlot*>(&old_kernel), &new_kernel})
    if (!kernel->running())
      return {refusal(fmt::format("kernel {} is {}", kernel->id(), to_string(kernel->state()))),
              {},
              {}};
  message::Simple order{};
  order.kind = std::to_underlying(message::ControlKind::move_thread);
  order.value = static_cast<u32>(tid);
  order.epoch = old_kernel.epoch();
  order.reserved = new_kernel.id();
  if (old_kernel.send(order, {}).is_error()) return {refusal("a kernel takes no requests"), {}, {}};
  return {{{"ok", true}}, {}, {}};
}

}  // namespace cob::cli
