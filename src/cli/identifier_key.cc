// The key of the cob's IPv6 interface identifiers (RFC 7217 section 5): read, or made at the first
// `cob up`, in the user's state folder.
#include "cli/identifier_key.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "base/fd.h"
#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr std::size_t digits = 32;

std::string default_path(const std::string& name) {
  const auto from = [](const char* variable) {
    const char* value = std::getenv(variable);
    return std::string(value != nullptr && *value == '/' ? value : "");
  };
  std::string state = from("XDG_STATE_HOME");
  if (state.empty()) {
    state = from("HOME");
    if (state.empty()) return "";
    state += "/.local/state";
  }
  return state + "/cob/" + name + ".ipv6-key";
}

// nullopt: there is no such file.
std::optional<std::array<u64, 2>> read_key(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) {
    if (errno == ENOENT) return std::nullopt;
    fail(exit_state, "cannot open {}: {}", path, std::strerror(errno));
  }
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) fail(exit_state, "{}: {}", path, std::strerror(errno));
  if (!S_ISREG(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 077) != 0)
    fail(exit_state, "{}: a key must be a file that is ours and closed to others (chmod 600)",
         path);
  char text[digits + 2];
  const ssize_t got = ::pread(fd.get(), text, sizeof text, 0);
  std::array<u64, 2> words{};
  const bool whole = got == digits || (got == digits + 1 && text[digits] == '\n');
  for (std::size_t i = 0; whole && i < words.size(); ++i) {
    const char* begin = text + i * 16;
    if (std::from_chars(begin, begin + 16, words[i], 16).ptr != begin + 16) words = {}, i = 2;
  }
  if ((words[0] | words[1]) == 0)
    fail(exit_state, "{}: not a key of {} hexadecimal digits; remove it and another is made", path,
         digits);
  return words;
}

// 0, or what went wrong. Where another was faster theirs stays.
int write_key(const std::string& path, const std::array<u64, 2>& words) {
  std::error_code ignored;  // what is missing then, open() says
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  const std::string draft = fmt::format("{}.{}", path, ::getpid());
  Fd fd(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return errno;
  const std::string text = fmt::format("{:016x}{:016x}\n", words[0], words[1]);
  int error = 0;
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::fsync(fd.get()) != 0 || (::link(draft.c_str(), path.c_str()) != 0 && errno != EEXIST))
    error = errno;
  ::unlink(draft.c_str());
  return error;
}

}  // namespace

IdentifierKey identifier_key(const std::string& name, const std::string& named) {
  const std::string path = named.empty() ? default_path(name) : named;
  if (!path.empty())
    if (const auto known = read_key(path)) return {*known, ""};
  IdentifierKey made;
  while ((made.words[0] | made.words[1]) == 0)
    if (::getrandom(made.words.data(), sizeof made.words, 0) != sizeof made.words)
      fail(exit_state, "getrandom: {}", std::strerror(errno));
  if (path.empty()) {
    made.warning = "neither XDG_STATE_HOME nor HOME says where";
  } else if (const int error = write_key(path, made.words); error != 0) {
    if (!named.empty()) fail(exit_state, "cannot make {}: {}", path, std::strerror(error));
    made.warning = fmt::format("{}: {}", path, std::strerror(error));
  } else if (const auto written = read_key(path)) {
    made.words = *written;
  }
  return made;
}

}  // namespace cob::cli
