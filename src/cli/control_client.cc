#include "cli/control_client.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <atomic>
#include <cstring>
#include <thread>

#include "base/clock.h"
#include "base/passing.h"
#include "cli/failure.h"
#include "cli/run_directory.h"

namespace cob::cli {
namespace {

constexpr int reply_timeout_ms = 10'000;
constexpr std::size_t max_reply_bytes = std::size_t{64} * 1'024;

bool wait_readable(FdRef socket, int timeout_ms) {
  pollfd wanted{socket.get(), POLLIN, 0};
  int ready;
  do {
    ready = ::poll(&wanted, 1, timeout_ms);
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

// The tables are guarded by a sequence count; a kernel that died while writing leaves it odd, then
// the copy is what it is.
void copy_tables(const kernel::Board& from, kernel::Board& to) {
  const auto* sequence = &from.tables_sequence;
  for (int attempt = 0; attempt < 1'000; ++attempt) {
    const u32 before = __atomic_load_n(sequence, __ATOMIC_ACQUIRE);
    std::memcpy(to.program, from.program, sizeof(to.program));
    std::memcpy(to.listener, from.listener, sizeof(to.listener));
    std::memcpy(to.peer, from.peer, sizeof(to.peer));
    std::atomic_thread_fence(std::memory_order_acquire);
    if (before % 2 == 0 && __atomic_load_n(sequence, __ATOMIC_RELAXED) == before) return;
    std::this_thread::yield();
  }
}

}  // namespace

ControlClient ControlClient::connect(const std::string& name) {
  const std::string path = run_path(name) + "/control";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    fail(exit_state, "{} is too long a path for a socket", path);
  std::memcpy(address.sun_path, path.data(), path.size());
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket.valid()) fail(exit_state, "socket: {}", std::strerror(errno));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED) {
      fail(exit_state, "cob '{}' is not up; start it with: cob up{}", name,
           name == "default" ? "" : " --name " + name);
    }
    fail(exit_state, "{}: {}", path, std::strerror(errno));
  }
  return ControlClient(std::move(socket));
}

ControlReply ControlClient::ask_once(const nlohmann::json& request, FdRef descriptor) {
  const std::string text = request.dump();
  const std::span<const FdRef> beside(&descriptor, descriptor.valid() ? 1 : 0);
  const auto sent = send_datagram(socket_.ref(), std::as_bytes(std::span(text)), beside);
  if (sent.is_error())
    fail(exit_state, "the cob's supervisor is gone: {}", std::strerror(sent.error().code));
  if (!wait_readable(socket_.ref(), reply_timeout_ms))
    fail(exit_state, "the cob's supervisor does not answer");
  std::vector<std::byte> buffer(max_reply_bytes);
  auto received = receive_datagram(socket_.ref(), buffer);
  if (received.is_error() || received.value().bytes == 0)
    fail(exit_state, "the cob's supervisor hung up");
  const auto* begin = reinterpret_cast<const char*>(buffer.data());
  auto body = nlohmann::json::parse(begin, begin + received.value().bytes, nullptr, false);
  if (!body.is_object() || received.value().truncated)
    fail(exit_state, "the cob's supervisor answers gibberish");
  return {std::move(body), std::move(received.value().descriptors)};
}

ControlReply ControlClient::ask(const nlohmann::json& request, FdRef descriptor) {
  const Time give_up = HostClock::read() + Duration::seconds(2);
  while (true) {
    ControlReply reply = ask_once(request, descriptor);
    if (reply.body.value("ok", false)) return reply;
    if (!reply.body.value("retry", false) || HostClock::read() > give_up) {
      throw Failure{exit_state, reply.body.value("error", "refused")};
    }
    ::poll(nullptr, 0, 10);
  }
}

bool ControlClient::wait_for_end(int timeout_ms) {
  std::array<std::byte, 64> buffer{};
  if (!wait_readable(socket_.ref(), timeout_ms)) return false;
  const auto received = receive_datagram(socket_.ref(), buffer);
  return received.is_error() || received.value().bytes == 0;
}

std::unique_ptr<kernel::Board> KernelView::read() const {
  if (!board_memory.valid()) return nullptr;
  void* mapped =
      ::mmap(nullptr, sizeof(kernel::Board), PROT_READ, MAP_SHARED, board_memory.get(), 0);
  if (mapped == MAP_FAILED) return nullptr;
  const auto* shared = static_cast<const kernel::Board*>(mapped);
  auto copy = std::make_unique<kernel::Board>();
  std::memcpy(static_cast<void*>(copy.get()), shared, offsetof(kernel::Board, tables_sequence));
  copy_tables(*shared, *copy);
  ::munmap(mapped, sizeof(kernel::Board));
  for (kernel::BoardProgram& program : copy->program)
    program.command[sizeof(program.command) - 1] = '\0';
  return copy;
}

CobView view_cob(ControlClient& client) {
  ControlReply reply = client.ask({{"do", "status"}});
  CobView view{std::move(reply.body), {}};
  auto next = reply.descriptors.begin();
  for (auto& info : view.info["kernels"]) {
    KernelView& kernel = view.kernels.emplace_back(info, Fd{});
    if (info.value("state", "") == "running" && next != reply.descriptors.end())
      kernel.board_memory = std::move(*next++);
  }
  view.info.erase("kernels");
  view.info.erase("ok");
  return view;
}

}  // namespace cob::cli
