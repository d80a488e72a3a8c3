// Log: one line to standard error per event, `cob[<who>] level: text`, at most 10 lines a second
// from any one call site. Model: the site's own bucket counts what it suppressed and says so with
// its next line. fmt's format strings. Any thread; a line is one write(2).
#pragma once

#include <fmt/core.h>

#include <atomic>
#include <string_view>

#include "base/types.h"

namespace cob {

enum class Level : int { debug, info, warn, error };

class LogSite {
 public:
  static constexpr u32 lines_per_second = 10;

  // True if the site may write a line at `now_ns`; `suppressed` is what it swallowed since its last
  // line.
  bool admit(i64 now_ns, u32& suppressed);

 private:
  std::atomic<i64> window_start_ns_{INT64_MIN};
  std::atomic<u32> lines_{0};
  std::atomic<u32> suppressed_{0};
};

// The least level written; `info` at start. `who` names this process in each line ("kernel 1");
// copied.
void log_configure(Level least, std::string_view who);
bool log_wanted(Level level);
// Writes the line, whatever the level.
void log_write(LogSite& site, Level level, fmt::string_view format, fmt::format_args arguments);

template <typename... T>
void log_line(LogSite& site, Level level, fmt::format_string<T...> format, T&&... arguments) {
  log_write(site, level, format, fmt::make_format_args(arguments...));
}

// COB_LOG(warn, "peer {} is gone", id): checks the format when compiled, formats only if wanted.
#define COB_LOG(level_, ...)                                         \
  do {                                                               \
    if (::cob::log_wanted(::cob::Level::level_)) {                   \
      static ::cob::LogSite log_site_;                               \
      ::cob::log_line(log_site_, ::cob::Level::level_, __VA_ARGS__); \
    }                                                                \
  } while (false)

}  // namespace cob
