// Fuzzes what `cob ss` and `cob ip` read of a kernel: replies and rows of any bytes. They are
// refused, or hold the rows that they say and can be printed and filtered.
#include <cstdlib>

#include "cli/socket_filter.h"
#include "cli/socket_text.h"
#include "cli/view_client.h"

using namespace cob;
using namespace cob::cli;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size < 4) return 0;
  const std::span input(reinterpret_cast<const std::byte*>(data), size);
  kernel::ViewRequest request;
  request.kind = data[0] % 8u;
  request.cursor = data[1];
  kernel::ViewReply head{.kind = request.kind,
                         .error = data[2] < 16 ? data[2] : 0,
                         .cursor = data[3],
                         .rows = static_cast<u32>((size - 4) / sizeof(kernel::SocketRow)),
                         .row_bytes = sizeof(kernel::SocketRow)};
  std::vector<std::byte> reply(sizeof head);
  std::memcpy(reply.data(), &head, sizeof head);
  reply.insert(reply.end(), input.begin() + 4, input.end());
  if (data[0] >= 128) std::memcpy(reply.data(), data, std::min(size, sizeof head));
  const auto checked = check_view_reply(reply, request, sizeof(kernel::SocketRow));
  if (checked && sizeof head + checked->rows * sizeof(kernel::SocketRow) != reply.size()) abort();
  SocketFilter filter;
  (void)filter.parse(
      {"state", "all", "not", "(", "dst", "10.0.0.0/8:80", "or", "sport", "<", ":9", ")"});
  kernel::SocketRow row;
  std::memcpy(&row, input.data(), std::min(size, sizeof row));
  (void)filter.matches(row);
  const SocketText text({}, true);
  (void)text.details(row);
  (void)text.info(row);
  (void)text.json(row, 0).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  (void)printable(std::span(reinterpret_cast<const char*>(data), size));
  return 0;
}
