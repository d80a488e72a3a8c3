// A signal as kill(1) takes it: a number, or a name with or without SIG, in either case.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace cob::cli {

// 0 asks whether there is such a process; nullopt: it is no signal.
std::optional<int> signal_number(std::string_view text);
// "TERM"; "0"; numbers that have no name as they are.
std::string signal_name(int number);

}  // namespace cob::cli
