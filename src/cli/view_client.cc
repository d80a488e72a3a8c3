// See view_client.h. Model: one request, one reply, with a deadline; a kernel answers from its loop
// within a millisecond unless it is stopped. Those that are asked after one that did not answer get
// less time, so that many stopped kernels do not add up. unix(7), poll(2).
#include "cli/view_client.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>

#include "base/passing.h"
#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr i64 patience_ms = 2'000, patience_when_one_failed_ms = 200;

bool wait_readable(FdRef socket, i64 patience) {
  pollfd wanted{socket.get(), POLLIN, 0};
  const Time until = HostClock::read() + Duration::milliseconds(patience);
  int ready;
  do {
    const i64 left_ms = std::max<i64>((until - HostClock::read()).to_ms(), 0);
    ready = ::poll(&wanted, 1, static_cast<int>(left_ms));
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

}  // namespace

std::optional<kernel::ViewReply> check_view_reply(std::span<const std::byte> reply,
                                                  const kernel::ViewRequest& request,
                                                  std::size_t row_bytes) {
  kernel::ViewReply head;
  if (reply.size() < sizeof head) return std::nullopt;
  std::memcpy(&head, reply.data(), sizeof head);
  if (head.version != kernel::view_version || head.kind != request.kind || head.error < 0)
    return std::nullopt;
  if (head.rows > kernel::view_rows || (head.rows != 0 && head.row_bytes != row_bytes) ||
      (head.rows != 0 && head.error != 0))
    return std::nullopt;
  if (reply.size() != sizeof head + head.rows * row_bytes) return std::nullopt;
  if (head.error != 0) head.cursor = 0;
  if (head.cursor != 0 && head.cursor <= request.cursor) return std::nullopt;  // it would not end
  return head;
}

std::string printable(std::span<const char> text) {
  std::string out(text.begin(), std::ranges::find(text, '\0'));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  return out;
}

ViewClient::ViewClient(ControlClient& client, int kernel)
    : client_(client), kernel_(kernel), buffer_(max_view_reply) {
  try {
    ControlReply reply = client.ask({{"do", "view"}, {"kernel", kernel}});
    if (reply.descriptors.size() == 1) socket_ = std::move(reply.descriptors.front());
    if (!socket_.valid()) problem_ = fmt::format("kernel {}: no socket to it came", kernel);
  } catch (const Failure& failure) {
    problem_ = failure.text;
  }
}

std::optional<kernel::ViewReply> ViewClient::ask(const kernel::ViewRequest& request,
                                                 std::size_t row_bytes) {
  const auto give_up = [this](std::string why) {
    problem_ = std::move(why);
    socket_.reset();
    return std::nullopt;
  };
  if (!socket_.valid()) return std::nullopt;
  if (send_struct(socket_.ref(), request, {}, Blocking::never).is_error())
    return give_up(
        fmt::format("kernel {} hung up: it ended, or has as many viewers as it takes", kernel_));
  bool& silent = client_.a_kernel_was_silent;
  if (!wait_readable(socket_.ref(), silent ? patience_when_one_failed_ms : patience_ms)) {
    silent = true;
    return give_up(fmt::format("kernel {} does not answer: is it stopped?", kernel_));
  }
  auto received = receive_datagram(socket_.ref(), buffer_);
  if (received.is_error() || received.value().bytes == 0)
    return give_up(
        fmt::format("kernel {} hung up: it ended, or has as many viewers as it takes", kernel_));
  const auto reply =
      check_view_reply(std::span(buffer_).first(received.value().bytes), request, row_bytes);
  if (!reply || received.value().truncated)
    return give_up(fmt::format("kernel {} answers gibberish", kernel_));
  if (reply->error == EBUSY)
    return give_up(fmt::format("kernel {}: as many captures run there as may", kernel_));
  if (reply->error != 0)
    return give_up(fmt::format("kernel {}: {}", kernel_, std::strerror(reply->error)));
  received_ = std::move(received.value().descriptors);
  return reply;
}

std::vector<Fd> ViewClient::capture(const net::CaptureOptions& options) {
  const kernel::ViewRequest request{.kind = static_cast<u32>(kernel::ViewKind::capture),
                                    .capture = options};
  if (!ask(request, 0)) return {};
  if (received_.size() != 2) problem_ = fmt::format("kernel {} sent no capture ring", kernel_);
  return std::move(received_);
}

}  // namespace cob::cli
