// The supervisor's part in Angel: which policies are on, which kernels drain; docs/angel.md. The
// supervisor's thread.
#include <fmt/format.h>
#include <unistd.h>

#include "cli/angel_policies.h"
#include "cli/supervisor.h"
#include "kernel/board.h"

namespace cob::cli {
namespace {

nlohmann::json refusal(std::string text) { return {{"ok", false}, {"error", std::move(text)}}; }

// Of a kernel's orders to move flow groups; its own period is longer.
constexpr Duration groups_interval = Duration::milliseconds(40);

constexpr Duration hung_after = Duration::milliseconds(10);

u64 heartbeat_of(const KernelSlot& kernel) {
  u64 heartbeat = 0;
  const auto offset = static_cast<off_t>(offsetof(kernel::Board, heartbeat_ns));
  if (::pread(kernel.board().get(), &heartbeat, sizeof heartbeat, offset) != sizeof heartbeat)
    return 0;
  return heartbeat;
}

}  // namespace

void Supervisor::tell_angel(KernelSlot& kernel) {
  message::AngelNotice notice;
  notice.kind = std::to_underlying(message::ControlKind::angel);
  notice.policies = angel_;
  notice.draining = draining_;
  if (kernel.running() && kernel.send(notice).is_error())
    broken_protocol(kernel, "nothing for Angel's policies: its queue is full");
}

// A kernel says that another does not take its input. What it says is not believed: the suspect is
// given something to do, and hangs if its board shows no turn 10 ms later, until it shows one.
void Supervisor::on_suspicion(KernelSlot& accuser, const message::Simple& news) {
  if (!accuser.running() || (angel_ & message::angel_hung) == 0) return;
  if (news.value >= kernels_.size() || news.value == accuser.id())
    return broken_protocol(accuser, "a suspicion of no peer");
  KernelSlot& suspect = kernels_[news.value];
  Standing& standing = standing_[suspect.id()];
  if (!suspect.running() || !together(accuser, suspect) || standing.judged != Time::never()) return;
  standing.heartbeat = heartbeat_of(suspect);
  standing.judged = now_ + hung_after;
  message::Simple wake{};
  wake.kind = std::to_underlying(message::ControlKind::steered);
  wake.epoch = suspect.epoch();
  if (!suspect.has_queued() && suspect.send(wake).is_error())
    broken_protocol(suspect, "nothing for the news of its peers: its queue is full");
}

void Supervisor::judge_suspect(KernelSlot& kernel) {
  Standing& standing = standing_[kernel.id()];
  const u64 heartbeat = heartbeat_of(kernel);
  const bool turned = heartbeat != standing.heartbeat;
  if (!kernel.running() || turned || (angel_ & message::angel_hung) == 0) return no_suspect(kernel);
  standing.judged = now_ + hung_after;
  if (std::exchange(standing.hangs, true)) return;
  log(fmt::format("kernel {} hangs: it has not turned for {} ms; it gets no new connections",
                  kernel.id(), hung_after.to_ms()));
  if (uplink_->hang(kernel.id(), true)) tell_steered();
}

void Supervisor::no_suspect(KernelSlot& kernel) {
  Standing& standing = standing_[kernel.id()];
  standing.judged = Time::never();
  if (!std::exchange(standing.hangs, false)) return;
  log(fmt::format("kernel {} does not hang any more", kernel.id()));
  if (uplink_->hang(kernel.id(), false)) tell_steered();
}

// What a kernel says of its own groups is believed, as often as it may have reason to.
void Supervisor::on_group_order(KernelSlot& kernel, const message::GroupOrder& order) {
  if (order.count > message::most_group_moves)
    return broken_protocol(kernel, "more flow groups to move than there can be");
  Standing& standing = standing_[kernel.id()];
  if (!kernel.running() || (angel_ & message::angel_moves) == 0 || now_ < standing.moves_groups)
    return;
  standing.moves_groups = now_ + groups_interval;
  std::vector<SteeringKeeper::Move> moves;
  moves.reserve(order.count);
  for (u16 i = 0; i < order.count; ++i) moves.push_back({order.group[i], order.to[i]});
  if (uplink_->move_groups(kernel.id(), Port(order.port), moves) != 0) tell_steered();
}

Supervisor::Reply Supervisor::answer_angel(const nlohmann::json& request) {
  const auto wanted = request.find("policies");
  if (wanted == request.end() || !wanted->is_number_unsigned() ||
      wanted->get<u64>() > message::angel_all)
    return {refusal("angel needs policies"), {}, {}};
  angel_ = static_cast<u32>(wanted->get<u64>());
  for (KernelSlot& kernel : kernels_) tell_angel(kernel);
  log(fmt::format("Angel: {}", angel_ == 0 ? "no policy" : angel_names(angel_).dump()));
  return {{{"ok", true}, {"policies", angel_names(angel_)}}, {}, {}};
}

// At least one kernel of each island takes connections and programs.
Supervisor::Reply Supervisor::answer_drain(const nlohmann::json& request) {
  const auto wanted = request.find("kernel");
  const auto on = request.find("on");
  if (wanted == request.end() || !wanted->is_number_integer() || on == request.end() ||
      !on->is_boolean())
    return {refusal("drain needs a kernel, and whether"), {}, {}};
  const auto number = wanted->get<i64>();
  if (number < 0 || number >= static_cast<i64>(kernels_.size()))
    return {refusal(fmt::format("there is no kernel {}; '{}' has kernels 0 to {}", number,
                                options_.name, kernels_.size() - 1)),
            {},
            {}};
  const KernelSlot& kernel = kernels_[static_cast<std::size_t>(number)];
  const u64 after =
      on->get<bool>() ? draining_ | u64{1} << number : draining_ & ~(u64{1} << number);
  const bool another = std::ranges::any_of(kernels_, [&](const KernelSlot& other) {
    return together(other, kernel) && (after >> other.id() & 1) == 0;
  });
  if (!another)
    return {refusal(fmt::format("kernel {} is the last of its island that is not drained; undrain "
                                "another first",
                                number)),
            {},
            {}};
  if (draining_ != after) {
    draining_ = after;
    for (KernelSlot& told : kernels_) tell_angel(told);
    if (uplink_->drain(kernel.id(), on->get<bool>())) tell_steered();
    log(fmt::format("kernel {} is {}drained", number, on->get<bool>() ? "" : "not "));
  }
  return {{{"ok", true}}, {}, {}};
}

}  // namespace cob::cli
