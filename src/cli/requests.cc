// What the supervisor answers to the CLI: one JSON request a datagram on the control socket, one
// JSON reply (+ descriptors).
//   {"do":"attach","kernel":K or -1,"island":NAME if K is -1 and not any will do}
//     and "from":NAME of the caller's island, or "caller":K its kernel
//                                     -> {"ok":true,"kernel","core","address","epoch","pid"} +
//   {liveness socket, attach right}; "giver": its descriptors are to go by this kernel of its
//   island
//   {"do":"status"}                   -> {"ok":true,"name",...,"kernels":[...]} + {board of each
//   running kernel, in order}
//   {"do":"view","kernel":K}          -> {"ok":true,"kernel","epoch"} + {socket to the kernel,
//   kernel/view.h}
//   {"do":"migrate_thread","tid","from":K,"to":K} -> {"ok":true}: the thread is told
//   {"do":"migrate","pid","from":K,"to":K} -> {"ok":true,"core" of the second} + {socket on which
//   the first one says how it ended, kernel/moving.h}
//   {"do":"angel","policies":[NAME...]} -> {"ok":true,"policies":[...]}
//   {"do":"drain","kernel":K,"on":BOOL} -> {"ok":true}: it gets no new connections and programs
//   {"do":"cable","role":"maker" or "other"} + {end of a SOCK_SEQPACKET pair} -> {"ok":true}
//   {"do":"uncable"}                  -> {"ok":true}
//   {"do":"island-add" or "island-remove", ...}: machines.cc
//   {"do":"down"}                     -> {"ok":true}; the connection closes when all is over
//   anything else                     -> {"ok":false,"error":"..."}
// Model: the user's own processes only (0600 socket in a 0700 directory, peer credentials checked).
// The supervisor's thread.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "call/layout.h"
#include "cli/angel_policies.h"
#include "cli/supervisor.h"
#include "kernel/board.h"

namespace cob::cli {
namespace {

nlohmann::json refusal(std::string text) { return {{"ok", false}, {"error", std::move(text)}}; }

// Those that the kernel knows, and those that it has been sent and does not know yet: of programs
// that start at the same time none has attached when the next is placed.
u64 programs_on(const KernelSlot& kernel) {
  u64 counts[2] = {};  // introduced, known
  static_assert(offsetof(kernel::Board, programs_known) ==
                offsetof(kernel::Board, programs_introduced) + sizeof(u64));
  const auto offset = static_cast<off_t>(offsetof(kernel::Board, programs_introduced));
  if (::pread(kernel.board().get(), counts, sizeof counts, offset) != sizeof counts) return 0;
  return counts[1] + (kernel.programs_sent() - counts[0]);
}

}  // namespace

void Supervisor::on_connection() {
  Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) return;
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return;
  if (peer.uid != ::geteuid() && peer.uid != 0) return;
  if (clients_.size() >= max_clients) {
    clients_.erase(std::ranges::min_element(
        clients_, {}, [](const auto& entry) { return entry.second.last_heard; }));
  }
  const u32 index = next_client_++;
  if (watch(socket.ref(), Source::client, index, EPOLLIN).is_error()) return;
  clients_.emplace(index, Client{std::move(socket), now_});
}

void Supervisor::on_client(u32 index) {
  const auto found = clients_.find(index);
  if (found == clients_.end()) return;
  Client& client = found->second;
  std::array<char, max_request_bytes> buffer{};
  auto received = receive_datagram(client.socket.ref(), std::as_writable_bytes(std::span(buffer)));
  if (received.is_error() && received.error().code == EAGAIN) return;
  if (received.is_error() || received.value().bytes == 0) {
    clients_.erase(found);
    return;
  }
  client.last_heard = now_;
  ucred peer{};
  socklen_t length = sizeof(peer);
  ::getsockopt(client.socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length);
  const std::string_view text(buffer.data(), received.value().bytes);
  const auto request = nlohmann::json::parse(text, nullptr, false);
  Reply reply = received.value().truncated || !request.is_object()
                    ? Reply{refusal("the request is not JSON"), {}, {}}
                    : answer(request, peer.pid, std::move(received.value().descriptors));
  for (const Fd& fd : reply.owned) reply.descriptors.push_back(fd.ref());
  const std::string body =
      reply.body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const auto sent =
      send_datagram(client.socket.ref(), std::as_bytes(std::span(body)), reply.descriptors);
  if (sent.is_error()) clients_.erase(index);  // it asks and does not read
}

Supervisor::Reply Supervisor::answer(const nlohmann::json& request, pid_t sender,
                                     std::vector<Fd> descriptors) {
  const auto what = request.find("do");
  const std::string verb =
      what != request.end() && what->is_string() ? what->get<std::string>() : "";
  if (verb == "status") return answer_status();
  if (ending_) return {refusal("the cob is going down"), {}, {}};
  if (verb == "attach") return answer_attach(request, sender);
  if (verb == "view") return answer_view(request);
  if (verb == "migrate") return answer_migrate(request);
  if (verb == "migrate_thread") return answer_migrate_thread(request);
  if (verb == "angel") return answer_angel(request);
  if (verb == "drain") return answer_drain(request);
  if (verb == "cable") return answer_cable(request, std::move(descriptors));
  if (verb == "uncable") {
    if (!cable_->in_use()) return {refusal("there is no cable"), {}, {}};
    cable_->unplug("removed");
    return {{{"ok", true}}, {}, {}};
  }
  if (verb == "island-add") return answer_island_add(request);
  if (verb == "island-remove") return answer_island_remove(request);
  if (verb == "down") {
    begin_shutdown("");
    return {{{"ok", true}, {"pid", ::getpid()}}, {}, {}};
  }
  return {refusal("unknown request"), {}, {}};
}

nlohmann::json Supervisor::describe() const {
  nlohmann::json kernels = nlohmann::json::array();
  for (const KernelSlot& kernel : kernels_) {
    if (kernel.removed()) continue;
    kernels.push_back(
        {{"kernel", kernel.id()},
         {"island", island_of(kernel)},
         {"state", to_string(kernel.state())},
         {"pid", kernel.pid()},
         {"core", kernel.core()},
         {"epoch", kernel.epoch()},
         {"draining", drains(kernel)},
         {"hangs", standing_[kernel.id()].hangs},
         {"uptime_ms", kernel.running() ? (now_ - kernel.running_since()).to_ms() : 0}});
    if (kernel.elsewhere()) kernels.back()["machine"] = kernel.arguments().front();
  }
  nlohmann::json all{{"ok", true},
                     {"name", options_.name},
                     {"address", format_address(options_.address)},
                     {"pid", ::getpid()},
                     {"uptime_ms", (now_ - started_).to_ms()},
                     {"log", directory_.path() + "/log"},
                     {"cable", cable_->describe()},
                     {"angel", angel_names(angel_)},
                     {"kernels", std::move(kernels)}};
  describe_islands(all);
  if (uplink_->is_device()) {
    all["uplink"] = options_.uplink.text;
    all["steering"] = uplink_->steering();
    if (!uplink_->linux_receives().empty()) all["linux_receives"] = uplink_->linux_receives();
  }
  return all;
}

Supervisor::Reply Supervisor::answer_cable(const nlohmann::json& request,
                                           std::vector<Fd> descriptors) {
  const auto role = request.find("role");
  if (role == request.end() || !role->is_string() || descriptors.size() != 1)
    return {refusal("cable needs a role and a socket"), {}, {}};
  if (uplink_->is_device())
    return {refusal(fmt::format("cob '{}' has an uplink: {}; a cable beside it is not supported",
                                options_.name, options_.uplink.text)),
            {},
            {}};
  if (options_.islands.size() > 1 || options_.room != 0)
    return {refusal(fmt::format("cob '{}' has several islands; a cable's frames do not cross them",
                                options_.name)),
            {},
            {}};
  const auto done = plug(std::move(descriptors[0]),
                         *role == "maker" ? CableEnd::Role::maker : CableEnd::Role::other);
  if (done.is_error())
    return {refusal(fmt::format("cob '{}': {}", options_.name, done.error().what)), {}, {}};
  return {{{"ok", true}}, {}, {}};
}

Supervisor::Reply Supervisor::answer_status() const {
  Reply reply{describe(), {}, {}};
  for (const KernelSlot& kernel : kernels_) {
    if (kernel.running()) reply.descriptors.push_back(kernel.board());
  }
  return reply;
}

// A command and a kernel talk by themselves; the supervisor introduces them. What a kernel that
// stands still has not taken must leave room for what its peers tell it.
Supervisor::Reply Supervisor::answer_view(const nlohmann::json& request) {
  const auto wanted = request.find("kernel");
  if (wanted == request.end() || !wanted->is_number_integer())
    return {refusal("view needs a kernel"), {}, {}};
  const auto number = wanted->get<i64>();
  if (number < 0 || number >= static_cast<i64>(kernels_.size()))
    return {refusal(fmt::format("there is no kernel {}", number)), {}, {}};
  KernelSlot& kernel = kernels_[static_cast<std::size_t>(number)];
  if (!kernel.running())
    return {refusal(fmt::format("kernel {} is {}", number, to_string(kernel.state()))), {}, {}};
  if (kernel.has_queued()) return {refusal(fmt::format("kernel {} stands still", number)), {}, {}};
  auto pair = seqpacket_pair();
  if (pair.is_error())
    return {refusal(fmt::format("no socket pair: {}", std::strerror(pair.error().code))), {}, {}};
  auto [kernel_end, viewer_end] = pair.release_value();
  message::Simple viewer{};
  viewer.kind = std::to_underlying(message::ControlKind::viewer);
  viewer.epoch = kernel.epoch();
  std::vector<Fd> passed;
  passed.push_back(std::move(kernel_end));
  if (kernel.send(viewer, std::move(passed)).is_error())
    return {refusal(fmt::format("kernel {} takes no requests", number)), {}, {}};
  Reply reply{{{"ok", true}, {"kernel", kernel.id()}, {"epoch", kernel.epoch()}}, {}, {}};
  reply.owned.push_back(std::move(viewer_end));
  return reply;
}

// The running kernel with the fewest programs; among equals the one chosen longest ago.
KernelSlot* Supervisor::least_used(int island) {
  KernelSlot* best = nullptr;
  u64 best_programs = 0;
  for (KernelSlot& kernel : kernels_) {
    // On another machine only who is asked for by name.
    if (!kernel.running() || (island >= 0 ? kernel.island() != island : kernel.elsewhere()))
      continue;
    const u64 programs = programs_on(kernel);
    if (best != nullptr && drains(*best) != drains(kernel)) {
      if (drains(kernel)) continue;
      best = nullptr;
    }
    const bool better =
        best == nullptr || programs < best_programs ||
        (programs == best_programs && last_attach_[kernel.id()] < last_attach_[best->id()]);
    if (!better) continue;
    best = &kernel;
    best_programs = programs;
  }
  return best;
}

Supervisor::Reply Supervisor::answer_attach(const nlohmann::json& request, pid_t sender) {
  const auto wanted = request.find("kernel");
  if (wanted == request.end() || !wanted->is_number_integer())
    return {refusal("attach needs a kernel"), {}, {}};
  const auto number = wanted->get<i64>();
  if (number >= static_cast<i64>(kernels_.size()) || number < -1) {
    return {refusal(fmt::format("there is no kernel {}; '{}' has kernels 0 to {}", number,
                                options_.name, kernels_.size() - 1)),
            {},
            {}};
  }
  int island = -1;
  if (const auto name = request.find("island"); name != request.end() && name->is_string()) {
    island = find_island(name->get<std::string>());
    if (island < 0) {
      return {refusal(fmt::format("there is no island '{}'; '{}' has {}", name->get<std::string>(),
                                  options_.name, island_names())),
              {},
              {}};
    }
  }
  std::string problem;
  const int from = callers_island(request, problem);
  if (from < 0) return {refusal(std::move(problem)), {}, {}};
  KernelSlot* kernel =
      number < 0 ? least_used(island) : &kernels_[static_cast<std::size_t>(number)];
  if (kernel == nullptr || !kernel->running()) {
    Reply reply{refusal(kernel == nullptr
                            ? "no kernel runs just now"
                            : fmt::format("kernel {} is {}", number, to_string(kernel->state()))),
                {},
                {}};
    reply.body["retry"] = true;
    return reply;
  }
  const KernelSlot* giver = from == kernel->island() ? nullptr : giver_on(request, from);
  if (from != kernel->island() && giver == nullptr) {
    Reply reply{refusal("no kernel of the caller's island runs just now"), {}, {}};
    reply.body["retry"] = true;
    return reply;
  }
  auto pair = seqpacket_pair();
  if (pair.is_error())
    return {refusal(fmt::format("no socket pair: {}", std::strerror(pair.error().code))), {}, {}};
  auto [kernel_end, program_end] = pair.release_value();
  make_blocking(program_end.ref());
  message::Simple program{};
  program.kind = std::to_underlying(message::ControlKind::program);
  program.value = static_cast<u32>(sender);
  program.epoch = kernel->epoch();
  std::vector<Fd> passed;
  passed.push_back(std::move(kernel_end));
  if (kernel->send_program(program, std::move(passed)).is_error())
    return {refusal("the kernel does not take new programs"), {}, {}};
  last_attach_[kernel->id()] = now_;
  Reply reply{{{"ok", true},
               {"kernel", kernel->id()},
               {"core", kernel->core()},
               {"address", kernel->address()},
               {"pid", sender},
               {"epoch", kernel->epoch()}},
              {},
              {}};
  if (giver != nullptr) reply.body["giver"] = giver->id();
  if (kernel->elsewhere()) {
    reply.body["machine"] = kernel->arguments().front();
    reply.body["island"] = island_of(*kernel);
  }
  // What programs reach by the cob: its network, or with a gateway all.
  reply.body["ipv6"] = options_.ipv6.on;
  reply.body["islands"] = options_.islands.size() + options_.room;
  reply.body["reach"] = options_.uplink.gateway != 0 ? 0 : options_.address.prefix_bits;
  reply.owned.push_back(std::move(program_end));
  reply.owned.emplace_back(::fcntl(attach_right_inlet_.get(), F_DUPFD_CLOEXEC, 0));
  if (!reply.owned.back().valid()) return {refusal("out of descriptors"), {}, {}};
  return reply;
}

// A program wants a kernel (again): after a fork, an exec or its kernel's death; a forked child of
// `cob run --spread` wants the one that is due. Whatever does not
// fit is dropped: its socket closes, and the program knows.
void Supervisor::on_attach_again() {
  alignas(8) std::array<std::byte, 64> buffer{};
  for (int budget = 256; budget > 0; --budget) {
    auto received = receive_datagram(attach_right_.ref(), buffer);
    if (received.is_error()) return;
    Datagram datagram = received.release_value();
    call::AgainRequest request{};
    if (datagram.truncated || datagram.bytes != sizeof(request) || datagram.descriptors.size() != 1)
      continue;
    std::memcpy(&request, buffer.data(), sizeof(request));
    const bool place = request.kind == std::to_underlying(call::Hello::place);
    if ((!place && request.kind != std::to_underlying(call::Hello::again)) ||
        request.kernel >= kernels_.size() || ending_)
      continue;
    KernelSlot* wanted = &kernels_[request.kernel];
    if (place) wanted = least_used(wanted->island());
    if (wanted == nullptr || !wanted->running() || wanted->elsewhere()) continue;
    KernelSlot& kernel = *wanted;
    if (place) last_attach_[kernel.id()] = now_;
    message::Simple program{};
    program.kind = std::to_underlying(message::ControlKind::program);
    program.value = datagram.sender > 0 ? static_cast<u32>(datagram.sender) : request.pid;
    program.epoch = kernel.epoch();
    if (kernel.send_program(program, std::move(datagram.descriptors)).is_error()) {
      log(fmt::format("kernel {} does not take new programs; one was turned away", kernel.id()));
    }
  }
}

}  // namespace cob::cli
