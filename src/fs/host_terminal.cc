// HostObject, a terminal's requests; terminal.h. ioctl_tty(2).
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "fs/host_object_ways.h"
#include "fs/terminal.h"

namespace cob::fs {

void HostObject::terminal(u32 number, std::span<const std::byte> in, std::span<std::byte> into,
                          Done done) {
  const auto request = terminal_request(number);
  if (!request || !is_stream()) return done(Error::of(ENOTTY, "no terminal's request"));
  if (in.size() != request->reads || into.size() < request->writes)
    return done(Error::of(EPROTO, "another length"));
  std::array<std::byte, most_terminal_bytes> bytes{};
  std::ranges::copy(in, bytes.begin());
  auto call = [fd = fd_.get(), r = *request, bytes, into]() mutable -> Result<u64> {
    int value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);
    const int result =
        r.by_value ? ::ioctl(fd, r.number, value) : ::ioctl(fd, r.number, bytes.data());
    if (result < 0) return Error::from_errno("ioctl");
    std::copy_n(bytes.begin(), r.writes, into.begin());
    return u64{r.writes};
  };
  if (!request->waits) return done(call());
  by_worker(std::move(call), 0, std::move(done));
}

}  // namespace cob::fs
