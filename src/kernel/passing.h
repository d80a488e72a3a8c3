// Datagrams with descriptors over a SOCK_SEQPACKET pair, without ever blocking. unix(7),
// SCM_RIGHTS; cmsg(3). Model: one send or receive, at most 8 descriptors, all close-on-exec and
// owned by the receiver at once. Stateless.
#pragma once

#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace cob::kernel {

inline constexpr std::size_t max_passed_fds = 8;

Result<void> send_with_fds(FdRef socket, std::span<const std::byte> bytes,
                           std::span<const FdRef> fds);
// Bytes received, 0 at the other end's closing; EAGAIN when there is nothing.
Result<std::size_t> receive_with_fds(FdRef socket, std::span<std::byte> bytes,
                                     std::vector<Fd>& fds);

}  // namespace cob::kernel
