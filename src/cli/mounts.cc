// See mounts.h. The superuser unmounts by itself, others by fusermount3(1), which is set-user-ID.
#include "cli/mounts.h"

#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <sstream>

#include "cli/failure.h"

namespace cob::cli {
namespace {

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(digits, digits + 3, value, 8).ptr == digits + 3) {
      out += static_cast<char>(value);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(std::move(word));
  return words;
}

uid_t user_of(std::string_view options) {
  constexpr std::string_view key = "user_id=";
  uid_t user = 0;
  const auto at = options.find(key);
  if (at != std::string_view::npos)
    std::from_chars(options.data() + at + key.size(), options.data() + options.size(), user);
  return user;
}

std::vector<Mounted> all_mounts() {
  std::ifstream file("/proc/self/mountinfo");
  std::ostringstream text;
  text << file.rdbuf();
  return read_mountinfo(text.str());
}

int run_fusermount(const std::string& directory) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", directory.c_str(), nullptr);
    ::_exit(127);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

// 36 35 98:0 /root /mount/point options [optional fields] - type source options
std::vector<Mounted> read_mountinfo(std::string_view text) {
  std::vector<Mounted> found;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> words = words_of(line);
    const auto dash = std::ranges::find(words, "-");
    if (words.size() < 6 || std::distance(dash, words.end()) < 4) continue;
    found.push_back({.directory = unescaped(words[4]),
                     .type = unescaped(dash[1]),
                     .source = unescaped(dash[2]),
                     .user = user_of(dash[3])});
  }
  return found;
}

std::optional<Mounted> mounted_at(const std::string& directory) {
  const std::vector<Mounted> all = all_mounts();
  const auto found = std::ranges::find(all.rbegin(), all.rend(), directory, &Mounted::directory);
  if (found == all.rend()) return std::nullopt;
  return *found;
}

std::vector<Mounted> mounts_of(const std::string& name) {
  std::vector<Mounted> mounts = all_mounts();
  std::erase_if(mounts, [&](const Mounted& mounted) {
    return mounted.type != mount_type || !mounted.source.starts_with(name + ":") ||
           mounted.user != ::geteuid();
  });
  std::ranges::reverse(mounts);
  return mounts;
}

void unmount(const Mounted& mounted) {
  const char* const directory = mounted.directory.c_str();
  if (::geteuid() == 0) {
    if (::umount2(directory, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return;
    fail(exit_state, "{}: cannot be unmounted: {}", mounted.directory, std::strerror(errno));
  }
  const int status = run_fusermount(mounted.directory);
  if (status == 127) fail(exit_state, "fusermount3 is missing: apt-get install fuse3");
  if (status != 0)
    fail(exit_state, "{}: cannot be unmounted: fusermount3 refuses", mounted.directory);
}

}  // namespace cob::cli
