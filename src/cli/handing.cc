// See handing.h. proc_pid_fd(5), kcmp(2), eventfd(2).
#include "cli/handing.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/clock.h"
#include "base/passing.h"
#include "call/layout.h"
#include "cli/failure.h"
#include "kernel/handing.h"

namespace cob::cli {
namespace {

constexpr Duration links_come_up = Duration::seconds(5);
constexpr int answer_ms = 10'000;

// An open description, and its numbers here.
struct Open {
  std::vector<int> numbers;
  u64 held = 0;  // a placeholder of the shim's: its token
  u64 name = 0;
};

enum class Fate { goes, stays, cannot };

std::vector<int> numbers_to_pass() {
  std::vector<int> numbers;
  DIR* directory = ::opendir("/proc/self/fd");
  if (directory == nullptr) fail(exit_state, "/proc/self/fd: {}", std::strerror(errno));
  while (const dirent* entry = ::readdir(directory)) {
    char* end = nullptr;
    const long number = std::strtol(entry->d_name, &end, 10);
    if (end == entry->d_name || *end != '\0') continue;
    const int flags = ::fcntl(static_cast<int>(number), F_GETFD);
    if (flags >= 0 && (flags & FD_CLOEXEC) == 0) numbers.push_back(static_cast<int>(number));
  }
  ::closedir(directory);
  std::ranges::sort(numbers);
  return numbers;
}

std::string target_of(int number) {
  char target[256] = {};
  const auto path = fmt::format("/proc/self/fd/{}", number);
  return ::readlink(path.c_str(), target, sizeof target - 1) < 0 ? "" : target;
}

// The token of a placeholder (call/layout.h); 0: it is none.
u64 token_of(int number) {
  std::ifstream info(fmt::format("/proc/self/fdinfo/{}", number));
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("eventfd-count:")) continue;
    const u64 count = std::strtoull(line.c_str() + 14, nullptr, 16);
    return (count & call::token_mark_mask) == call::token_mark ? count : 0;
  }
  return 0;
}

// What every island has of its own stays: /dev/null and its like.
Fate fate_of(int number, u64& held, std::string& what) {
  struct stat status{};
  what = target_of(number);
  if (::fstat(number, &status) != 0) return Fate::cannot;
  if (what == "anon_inode:[eventfd]") held = token_of(number);
  if (held != 0) return Fate::goes;
  constexpr unsigned memory_devices = 1;
  switch (status.st_mode & S_IFMT) {
    case S_IFREG:
      return what.starts_with("anon_inode:") ? Fate::cannot : Fate::goes;
    case S_IFDIR:
    case S_IFIFO:
    case S_IFBLK:
      return Fate::goes;
    case S_IFCHR:
      return ::major(status.st_rdev) == memory_devices ? Fate::stays : Fate::goes;
    case S_IFSOCK: {
      int type = 0, listens = 0;
      socklen_t bytes = sizeof type;
      ::getsockopt(number, SOL_SOCKET, SO_TYPE, &type, &bytes);
      bytes = sizeof listens;
      ::getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes);
      return type == SOCK_STREAM && listens == 0 ? Fate::goes : Fate::cannot;
    }
    default:
      return Fate::cannot;
  }
}

bool same_description(int a, int b) {
  const long self = ::getpid();
  return ::syscall(SYS_kcmp, self, self, KCMP_FILE, static_cast<unsigned long>(a),
                   static_cast<unsigned long>(b)) == 0;
}

u64 new_name() {
  u64 random = 0;
  if (::getrandom(&random, sizeof random, 0) != sizeof random)
    fail(exit_state, "no random numbers: {}", std::strerror(errno));
  return call::token_mark | (random & ~call::token_mark_mask);
}

// `devices`: the numbers that stay, where they are of interest.
std::vector<Open> gather(std::vector<int>* devices = nullptr) {
  std::vector<Open> all;
  for (const int number : numbers_to_pass()) {
    u64 held = 0;
    std::string what;
    const Fate fate = fate_of(number, held, what);
    if (fate == Fate::stays) {
      if (devices != nullptr) devices->push_back(number);
      continue;
    }
    if (fate == Fate::cannot) {
      fmt::print(stderr, "cob: descriptor {} ({}) cannot go to another island; it is closed\n",
                 number, what);
      ::close(number);
      continue;
    }
    const auto known = std::ranges::find_if(all, [&](const Open& one) {
      return held != 0 ? one.held == held
                       : one.held == 0 && same_description(one.numbers.front(), number);
    });
    if (known != all.end()) {
      known->numbers.push_back(number);
    } else {
      all.push_back({.numbers = {number}, .held = held, .name = new_name()});
    }
  }
  return all;
}

// Without an error a reply: the kernel has died, or too many ask it just now.
Result<kernel::HandReply> ask(ControlClient& client, const kernel::HandRequest& request,
                              std::span<const FdRef> descriptors, int giver) {
  ControlReply joined = client.ask({{"do", "view"}, {"kernel", giver}});
  if (joined.descriptors.size() != 1) fail(exit_state, "the supervisor sent no socket");
  const FdRef socket = joined.descriptors[0].ref();
  TRY(send_struct(socket, request, descriptors));
  pollfd waits{socket.get(), POLLIN, 0};
  if (::poll(&waits, 1, answer_ms) != 1) return Error::of(ETIMEDOUT, "no answer");
  kernel::HandReply reply;
  const auto received = TRY(receive_datagram(socket, std::as_writable_bytes(std::span(&reply, 1))));
  if (received.bytes != sizeof reply || reply.version != kernel::view_version)
    return Error::of(ECONNRESET, "it hung up");
  return reply;
}

bool may_pass(int error) {
  return error == ENETDOWN || error == ESTALE || error == EHOSTDOWN || error == ECONNRESET ||
         error == EPIPE || error == ENOBUFS;
}

// Links between islands come up a moment after their kernels.
void hand(ControlClient& client, std::span<const Open> some, const HandOver& how) {
  kernel::HandRequest request;
  request.to = static_cast<u32>(how.to);
  request.program = static_cast<u32>(how.program);
  std::vector<FdRef> descriptors;
  for (const Open& one : some) {
    request.one[request.count++] = {.name = one.name, .held = one.held};
    if (one.held == 0) descriptors.emplace_back(one.numbers.front());
  }
  const Time until = HostClock::read() + links_come_up;
  for (;;) {
    const auto reply = ask(client, request, descriptors, how.giver);
    const int error = reply.is_error() ? reply.error().code : reply.value().error;
    if (error == 0) return;
    if (!may_pass(error) || HostClock::read() >= until) {
      const u32 which = reply.is_error() ? kernel::most_handed : reply.value().which;
      fail(exit_state, "{} cannot go from kernel {} to kernel {}: {}",
           which < some.size() ? fmt::format("descriptor {}", some[which].numbers.front())
                               : "descriptors",
           how.giver, how.to, std::strerror(error));
    }
    ::usleep(20'000);
  }
}

void put_placeholder(const Open& one) {
  const Fd placeholder(::eventfd(0, EFD_CLOEXEC));
  if (!placeholder.valid()) fail(exit_state, "no placeholder: {}", std::strerror(errno));
  for (const int number : one.numbers)
    if (::dup2(placeholder.get(), number) < 0)
      fail(exit_state, "descriptor {}: {}", number, std::strerror(errno));
}

}  // namespace

NumbersElsewhere hand_over_numbers(ControlClient& client, const HandOver& how) {
  std::vector<int> devices;
  const std::vector<Open> all = gather(&devices);
  NumbersElsewhere handed;
  handed.standard_error = Fd(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  for (std::size_t at = 0; at < all.size(); at += kernel::most_handed) {
    const std::size_t count = std::min<std::size_t>(kernel::most_handed, all.size() - at);
    hand(client, std::span(all).subspan(at, count), how);
  }
  for (const Open& one : all)
    for (const int number : one.numbers) {
      handed.numbers.push_back({.number = number, .name = one.name});
      ::close(number);
    }
  for (const int number : devices) {
    struct stat status{};
    ::fstat(number, &status);
    handed.numbers.push_back({.number = number, .device = ::minor(status.st_rdev)});
    ::close(number);
  }
  return handed;
}

HandedOver hand_over_descriptors(ControlClient& client, const HandOver& how) {
  const std::vector<Open> all = gather();
  if (all.empty()) return {};
  HandedOver handed;
  handed.any = true;
  handed.standard_error = Fd(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
  for (std::size_t at = 0; at < all.size(); at += kernel::most_handed) {
    const std::size_t count = std::min<std::size_t>(kernel::most_handed, all.size() - at);
    hand(client, std::span(all).subspan(at, count), how);
  }
  for (const Open& one : all) {
    put_placeholder(one);
    handed.names.emplace_back(one.numbers.front(), one.name);
  }
  return handed;
}

void name_placeholders(const HandedOver& handed) {
  for (const auto& [number, name] : handed.names)
    if (::write(number, &name, sizeof name) != sizeof name)
      fail(exit_state, "no placeholder: {}", std::strerror(errno));
}

}  // namespace cob::cli
