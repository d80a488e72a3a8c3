// Failure: how a command of the CLI ends early: an exit status and a sentence for the person who
// typed it. Thrown inside src/cli only and caught in main; everything below the CLI uses Result.
// Any thread.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace cob::cli {

inline constexpr int exit_state = 1;  // the command was understood; the state of things forbids it
inline constexpr int exit_usage = 2;  // the command line is wrong
inline constexpr int exit_cannot_run = 126;  // as shells: found, but cannot be executed
inline constexpr int exit_not_found = 127;   // as shells: no such program

struct Failure {
  int exit_code = exit_state;
  std::string text;
};

template <typename... Args>
[[noreturn]] void fail(int exit_code, fmt::format_string<Args...> format, Args&&... args) {
  throw Failure{exit_code, fmt::format(format, std::forward<Args>(args)...)};
}

}  // namespace cob::cli
