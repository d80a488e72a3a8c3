// The line is built in a fixed buffer and truncated there; nothing is allocated.
// See log.h. Any thread.
#include "base/log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/clock.h"

namespace cob {
namespace {

// Settings of the process, written once at start.
std::atomic<Level> least{Level::info};
std::array<char, 32> who_name{};

constexpr std::string_view name_of(Level level) {
  switch (level) {
    case Level::debug:
      return "debug";
    case Level::info:
      return "info";
    case Level::warn:
      return "warn";
    case Level::error:
      return "error";
  }
  return "?";
}

}  // namespace

bool LogSite::admit(i64 now_ns, u32& suppressed) {
  constexpr i64 second_ns = 1'000'000'000;
  const i64 start = window_start_ns_.load(std::memory_order_relaxed);
  if (start == INT64_MIN || now_ns - start >= second_ns || now_ns < start) {
    window_start_ns_.store(now_ns, std::memory_order_relaxed);
    lines_.store(0, std::memory_order_relaxed);
  }
  if (lines_.fetch_add(1, std::memory_order_relaxed) >= lines_per_second) {
    suppressed_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  suppressed = suppressed_.exchange(0, std::memory_order_relaxed);
  return true;
}

void log_configure(Level level, std::string_view who) {
  least.store(level, std::memory_order_relaxed);
  who_name.fill(0);
  std::memcpy(who_name.data(), who.data(), std::min(who.size(), who_name.size() - 1));
}

bool log_wanted(Level level) { return level >= least.load(std::memory_order_relaxed); }

void log_write(LogSite& site, Level level, fmt::string_view format, fmt::format_args arguments) {
  u32 suppressed = 0;
  if (!site.admit(HostClock::read().ns, suppressed)) return;
  std::array<char, 1024> line;
  char* const end = line.data() + line.size() - 1;  // room for the newline
  char* at = line.data();
  const auto room = [&] { return static_cast<std::size_t>(end - at); };
  const auto appended = [&](std::size_t wanted) { at += std::min(wanted, room()); };
  const std::string_view who(who_name.data());
  appended(fmt::format_to_n(at, room(), "cob{}{}{} {}: ", who.empty() ? "" : "[", who,
                            who.empty() ? "" : "]", name_of(level))
               .size);
  appended(fmt::vformat_to_n(at, room(), format, arguments).size);
  if (suppressed > 0)
    appended(fmt::format_to_n(at, room(), " ({} like it not shown)", suppressed).size);
  *at++ = '\n';
  [[maybe_unused]] const auto n =
      ::write(STDERR_FILENO, line.data(), static_cast<std::size_t>(at - line.data()));
}

}  // namespace cob
