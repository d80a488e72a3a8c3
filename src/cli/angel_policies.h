// Angel's policies by name, as `cob up --angel` and `cob angel set` take them; docs/angel.md. A bad
// value throws Failure{exit_usage}. Values; no owner.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cli/failure.h"
#include "message/control.h"

namespace cob::cli {

struct AngelPolicy {
  std::string_view name;
  u32 bit;
};
inline constexpr std::array angel_policies{
    AngelPolicy{"moves", message::angel_moves}, AngelPolicy{"redirect", message::angel_redirect},
    AngelPolicy{"take", message::angel_take}, AngelPolicy{"hung", message::angel_hung}};

// "redirect,take", "all" or "none".
inline u32 parse_angel(std::string_view text) {
  if (text == "all") return message::angel_all;
  if (text == "none") return 0;
  u32 policies = 0;
  for (std::string_view rest = text; !rest.empty() || policies == 0;) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    u32 bit = 0;
    for (const AngelPolicy& policy : angel_policies)
      if (policy.name == word) bit = policy.bit;
    if (bit == 0)
      fail(exit_usage,
           "'{}' is no policy of Angel; they are moves, redirect, take and hung, or all, or none",
           word);
    policies |= bit;
  }
  return policies;
}

inline nlohmann::json angel_names(u32 policies) {
  nlohmann::json names = nlohmann::json::array();
  for (const AngelPolicy& policy : angel_policies)
    if ((policies & policy.bit) != 0) names.push_back(policy.name);
  return names;
}

}  // namespace cob::cli
