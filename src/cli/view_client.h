// ViewClient: a command's talk with one kernel (kernel/view.h): tables whole, piece by piece, or
// the words that say why not. Model: what a kernel replies is judged before it is used; it may
// stand still, die or lie, and the command goes on with the others. The command's thread.
#pragma once

#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/control_client.h"
#include "kernel/view.h"

namespace cob::cli {

inline constexpr std::size_t max_view_reply = std::size_t{64} * 1'024;

// The head of a reply to `request`, if the whole is one: rows of `row_bytes`, as many as it says,
// and a cursor that goes on from the request's.
std::optional<kernel::ViewReply> check_view_reply(std::span<const std::byte> reply,
                                                  const kernel::ViewRequest& request,
                                                  std::size_t row_bytes);
// What a kernel wrote as text, made fit to print: up to the first NUL, '?' for control characters.
std::string printable(std::span<const char> text);

class ViewClient {
 public:
  // Not connected, with a problem(), when the kernel does not run or the supervisor refuses.
  // `client` outlives what is asked here.
  ViewClient(ControlClient& client, int kernel);

  // All rows of a table. False: problem() says why; `rows` holds what came before.
  template <typename Row>
  bool read(kernel::ViewKind kind, std::vector<Row>& rows) {
    kernel::ViewRequest request;
    request.kind = static_cast<u32>(kind);
    do {
      const auto piece = ask(request, sizeof(Row));
      if (!piece) return false;
      for (u32 i = 0; i < piece->rows; ++i) {
        Row& row = rows.emplace_back();
        std::memcpy(&row, buffer_.data() + sizeof(kernel::ViewReply) + i * sizeof(Row),
                    sizeof(Row));
      }
      request.cursor = piece->cursor;
    } while (request.cursor != 0);
    return true;
  }

  // Switches a capture on; it lasts as long as the socket. The two memories of its ring, or none.
  std::vector<Fd> capture(const net::CaptureOptions& options);

  FdRef socket() const { return socket_.ref(); }
  void close() { socket_.reset(); }
  const std::string& problem() const { return problem_; }

 private:
  std::optional<kernel::ViewReply> ask(const kernel::ViewRequest& request, std::size_t row_bytes);

  ControlClient& client_;
  int kernel_;
  Fd socket_;
  std::string problem_;
  std::vector<std::byte> buffer_;
  std::vector<Fd> received_;
};

}  // namespace cob::cli
