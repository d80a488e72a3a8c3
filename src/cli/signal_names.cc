// See signal_names.h. signal(7), sigabbrev_np(3).
#include "cli/signal_names.h"

#include <signal.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace cob::cli {

std::optional<int> signal_number(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc{} && end == text.data() + text.size() && !text.empty())
    return number >= 0 && number <= SIGRTMAX ? std::optional(number) : std::nullopt;
  std::string name(text);
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (name.starts_with("SIG")) name.erase(0, 3);
  for (int i = 1; i < SIGRTMIN; ++i)
    if (const char* known = ::sigabbrev_np(i); known != nullptr && name == known) return i;
  return std::nullopt;
}

std::string signal_name(int number) {
  const char* known = number > 0 ? ::sigabbrev_np(number) : nullptr;
  return known != nullptr ? known : std::to_string(number);
}

}  // namespace cob::cli
