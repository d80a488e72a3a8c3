// Reading of /proc/PID/status; see process_credentials.h.
#include "kernel/process_credentials.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>

namespace cob::kernel {

namespace {

// The numbers on the line that begins with `key`.
std::vector<u32> numbers_of(std::string_view status, std::string_view key) {
  std::vector<u32> numbers;
  const auto begin = status.find(key);
  if (begin == std::string_view::npos) return numbers;
  std::string_view line = status.substr(begin + key.size());
  line = line.substr(0, line.find('\n'));
  for (;;) {
    const auto digit = line.find_first_of("0123456789");
    if (digit == std::string_view::npos) return numbers;
    line = line.substr(digit);
    u32 number = 0;
    const auto end = std::from_chars(line.data(), line.data() + line.size(), number);
    if (end.ec != std::errc{}) return numbers;
    numbers.push_back(number);
    line = line.substr(static_cast<std::size_t>(end.ptr - line.data()));
  }
}

std::string read_status(u32 pid) {
  const Fd file(::open(("/proc/" + std::to_string(pid) + "/status").c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(std::size_t{16} * 1024, '\0');
  const ssize_t got = file.valid() ? ::read(file.get(), text.data(), text.size()) : 0;
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return text;
}

}  // namespace

bool read_credentials(std::string_view status, fs::Credentials& into, std::array<u32, 4>& may_be) {
  const auto uids = numbers_of(status, "\nUid:"), gids = numbers_of(status, "\nGid:");
  if (uids.size() != 4 || gids.size() != 4) return false;
  std::copy_n(uids.begin(), 4, may_be.begin());
  into = {.uid = uids[3], .gid = gids[3], .groups = numbers_of(status, "\nGroups:")};
  return true;
}

bool credentials_of_process(u32 pid, fs::Credentials& into, std::array<u32, 4>& may_be) {
  return pid != 0 && read_credentials(read_status(pid), into, may_be);
}

fs::Credentials credentials_of_other(u32 uid, u32 gid, u32 pid) {
  fs::Credentials found;
  std::array<u32, 4> may_be{};
  if (credentials_of_process(pid, found, may_be) && found.uid == uid && found.gid == gid)
    return found;
  return {.uid = uid, .gid = gid, .groups = {}};
}

fs::Credentials credentials_of(FdRef liveness, u32 pid) {
  ucred maker{};
  socklen_t bytes = sizeof maker;
  if (::getsockopt(liveness.get(), SOL_SOCKET, SO_PEERCRED, &maker, &bytes) != 0)
    maker = {.pid = 0, .uid = 65'534, .gid = 65'534};
  fs::Credentials found;
  std::array<u32, 4> may_be{};
  if (credentials_of_process(pid, found, may_be) &&
      (maker.uid == 0 || std::find(may_be.begin(), may_be.end(), maker.uid) != may_be.end()))
    return found;
  return {.uid = maker.uid, .gid = maker.gid, .groups = {}};
}

}  // namespace cob::kernel
